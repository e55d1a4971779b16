"""python -m preprocess.preview: a look at a cache: a contact sheet of some clips, and what is in it altogether."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draws to files, on machines without a screen too

import cv2
import matplotlib.pyplot as plt
import numpy as np

import command_line
from command_line import UserError
from datasets.clip_cache import Clip, ClipCache
from datasets.splits import speaker_of
from face.crop import SIZE
from face.landmarks import JAW_SLICE, LIP_SLICE, POSE_SLICE
from face.sketch import draw_sketch
from media.audio import COLUMNS_PER_SECOND, FPS
from preprocess.report import Record, read, summary

COLOURS = ((POSE_SLICE, (90, 200, 255)), (JAW_SLICE, (255, 210, 60)), (LIP_SLICE, (255, 70, 90)))  # RGB
FACE_BINS = 40


@dataclass(frozen=True)
class Config:
    """Draws a contact sheet of some clips of a cache, and sums the cache up as text and as a plot."""

    cache: Path
    """Folder that python -m preprocess made."""
    output: Path
    """Folder for contact_sheet.png, summary.png and summary.txt; made if need be."""
    clips: tuple[str, ...] = ()
    """Clips to show; without it, some spread evenly over the names."""
    num_clips: int = 8
    """How many, if --clips doesn't say which."""
    num_frames: int = 8
    """Frames of each, spread over its length."""
    size: int = SIZE
    """Pixels of a face crop's side in this cache."""


def main(config: Config) -> None:
    """Writes the three files: see `Config`."""
    cache = ClipCache(config.cache, config.size)
    unknown = [name for name in config.clips if name not in cache.names]
    if unknown:
        raise UserError(f"--clips: {unknown[0]} is not in {config.cache}; names are like {cache.names[0]}")
    spread = np.linspace(0, len(cache) - 1, min(config.num_clips, len(cache))).round().astype(int)
    names = config.clips or [cache.names[i] for i in spread]
    try:
        config.output.mkdir(parents=True, exist_ok=True)
        sheet = np.concatenate([strip(cache.open(name), config.num_frames) for name in names])
        plt.imsave(config.output / "contact_sheet.png", sheet)
        records = read(sorted(config.cache.glob("report*.jsonl")))
        clips = list(cache)
        text = describe(clips, records)
        (config.output / "summary.txt").write_text(text + "\n", encoding="utf-8")
        plot(clips, records, config.output / "summary.png")
    except OSError as error:
        raise UserError(f"--output: {config.output} cannot be written ({error.strerror})") from error
    print(text)
    print(f"pictures: {config.output}")


def strip(clip: Clip, num_frames: int) -> np.ndarray:
    """One clip as a picture (rows, num_frames * S, 3) uint8: faces with landmarks, sketches, the mel of all of it."""
    frames = np.flatnonzero(clip.found)
    frames = frames[np.linspace(0, len(frames) - 1, num_frames).round().astype(int)]
    points, faces, sketches = clip.crop_landmarks(frames), [], []
    for frame, landmarks_in_crop in zip(frames, points, strict=True):
        face = clip.face(frame).copy()
        size = len(face)
        for part, colour in COLOURS:
            for x, y in np.clip(landmarks_in_crop[part] * size, 0, size - 1).astype(int):
                face[y, x] = colour
        x0, y0, x1, y1 = (int(side) for side in clip.boxes[frame])
        sketches.append(draw_sketch(landmarks_in_crop, y1 - y0, x1 - x0, size).astype(np.uint8))
        faces.append(cv2.putText(face, str(frame), (2, 10), cv2.FONT_HERSHEY_PLAIN, 0.7, (255, 255, 255)))
    size, width = len(faces[0]), len(faces[0]) * num_frames
    heard = clip.mel[:, : max(1, clip.num_frames * COLUMNS_PER_SECOND // FPS)]
    shades = plt.get_cmap("magma")((heard[::-1] + 4) / 8)[..., :3]
    mel = cv2.resize((shades * 255).astype(np.uint8), (width, size // 2), interpolation=cv2.INTER_AREA)
    title = np.zeros((16, width, 3), np.uint8)
    label = f"{clip.name}: {clip.num_frames} frames, {clip.num_found} with a face"
    cv2.putText(title, label, (2, 12), cv2.FONT_HERSHEY_PLAIN, 0.9, (255, 255, 255))
    return np.concatenate([title, np.concatenate(faces, axis=1), np.concatenate(sketches, axis=1), mel])


def describe(clips: Sequence[Clip], records: Sequence[Record]) -> str:
    """Hours, clips, speakers, frames, sizes on disk, face sizes, and failures by reason."""
    frames, found = sum(clip.num_frames for clip in clips), sum(clip.num_found for clip in clips)
    sides = _face_sides(clips)
    stored = sum(clip.num_bytes for clip in clips)
    lengths = [clip.num_frames / FPS for clip in clips]
    return "\n".join(
        [
            f"{len(clips)} clips of {len({speaker_of(clip.name) for clip in clips})} speakers (folders)",
            f"{frames / FPS / 3600:.2f} hours, {frames} frames, {frames - found} of them without a face",
            f"clips of {min(lengths):.1f} to {max(lengths):.1f} s, {np.median(lengths):.1f} s as a median",
            f"faces of {sides.min():.0f} to {sides.max():.0f} px, {np.median(sides):.0f} px as a median (shorter side)",
            f"{stored / 2**20:.1f} MiB of face crops, {stored / found:.0f} bytes a frame",
            summary(records),
        ]
    )


def plot(clips: Sequence[Clip], records: Sequence[Record], path: Path) -> None:
    """Lengths, face sizes, share of frames with a face, and what became of the videos, as histograms."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    axes[0, 0].hist([clip.num_frames / FPS for clip in clips], FACE_BINS)
    axes[0, 0].set(xlabel="length of a clip, s", ylabel="clips")
    axes[0, 1].hist(_face_sides(clips), FACE_BINS)
    axes[0, 1].set(xlabel="shorter side of the face box, px", ylabel="clips")
    axes[1, 0].hist([clip.num_found / clip.num_frames for clip in clips], FACE_BINS, range=(0, 1))
    axes[1, 0].set(xlabel="share of frames with a face", ylabel="clips", yscale="log")
    counts = Counter(record.get("reason", record["status"]) for record in records)
    names = sorted(counts, key=lambda name: counts[name])
    axes[1, 1].barh(names, [counts[name] for name in names])
    axes[1, 1].set(xlabel="videos", xscale="log")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _face_sides(clips: Sequence[Clip]) -> np.ndarray:
    """(clips,) median of the shorter side of each clip's face box, in pixels."""
    boxes = [clip.boxes[clip.found] for clip in clips]
    return np.array([np.median((box[:, 2:] - box[:, :2]).min(axis=1)) for box in boxes])


if __name__ == "__main__":
    command_line.run(main, Config, prog="python -m preprocess.preview")
