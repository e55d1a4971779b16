"""python -m preprocess.preview: a look at a cache: a contact sheet of some clips, and what is in it altogether."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draws to files, on machines without a screen too

import cv2
import matplotlib.pyplot as plt
import numpy as np

from datasets.clip_cache import Clip, ClipCache
from datasets.splits import speaker_of
from face.landmarks import JAW_SLICE, LIP_SLICE, POSE_SLICE
from face.sketch import draw_sketch
from media.audio import FPS, SILENCE, mel_windows
from preprocess.report import Record, read_all, summary
from runtime import command_line
from runtime.command_line import UserError

COLOURS = ((POSE_SLICE, (90, 200, 255)), (JAW_SLICE, (255, 210, 60)), (LIP_SLICE, (255, 70, 90)))  # RGB
CELL = 192  # pixels of a face's side in the contact sheet
WORST = 5  # clips that the summary names, as those to look at


@dataclass(frozen=True)
class Config:
    """Draws a contact sheet of some clips of a cache, and sums the cache up as text and as a plot."""

    cache: Path  # Folder that python -m preprocess made.
    output: Path  # Folder for contact_sheet.png, summary.png and summary.txt; made if need be.
    clips: tuple[str, ...] = ()  # Clips to show; without it, some of different speakers.
    num_clips: int = 8  # How many, if --clips doesn't say which.
    num_frames: int = 8  # Moments of each, spread over its length.


def main(config: Config) -> None:
    """Writes the three files: see `Config`."""
    cache = ClipCache(config.cache, None)
    if unknown := set(config.clips) - set(cache.names):
        raise UserError(f"--clips: {min(unknown)} is not in {config.cache}; names are like {cache.names[0]}")
    command_line.at_least(1, num_clips=config.num_clips, num_frames=config.num_frames)
    names = config.clips or spread_over_speakers(cache.names, config.num_clips)
    figures, records = figures_of(cache), read_all(config.cache)
    text = describe(figures, records)
    with command_line.writing(f"--output: {config.output}"):
        config.output.mkdir(parents=True, exist_ok=True)
        sheet = np.concatenate([strip(cache.open(name), config.num_frames) for name in names])
        plt.imsave(config.output / "contact_sheet.png", sheet)
        (config.output / "summary.txt").write_text(text + "\n", encoding="utf-8")
        plot(figures, records, config.output / "summary.png")
    print(f"{text}\npictures: {config.output}")


def spread_over_speakers(names: Sequence[str], count: int) -> list[str]:
    """Some clips, spread evenly over the speakers; several of one only where there are too few speakers."""
    speakers = [list(group) for _, group in groupby(sorted(names, key=speaker_of), speaker_of)]
    ranked = sorted((turn, name) for clips in speakers for turn, name in enumerate(clips))
    first = [name for _, name in ranked][: max(count, len(speakers))]
    return [first[i] for i in np.linspace(0, len(first) - 1, min(count, len(first))).round().astype(int)]


def strip(clip: Clip, num_frames: int) -> np.ndarray:
    """One clip as a picture (rows, num_frames * CELL, 3) uint8: faces with landmarks, sketches, and the mel below.

    The moments are in the middle of equal parts of the clip, so that the sound of each is right below it. A moment
    without a face is a red cell, a frame without a face a red line over the mel.
    """
    moments = ((np.arange(num_frames) + 0.5) * clip.num_frames / num_frames).astype(int)
    cells = []
    for frame, landmarks_in_crop in zip(moments, clip.crop_landmarks(moments), strict=True):
        face = sketch = np.full((CELL, CELL, 3), (120, 0, 0), np.uint8)
        if clip.found[frame]:
            face = cv2.resize(clip.face(frame), (CELL, CELL), interpolation=cv2.INTER_CUBIC)
            for part, colour in COLOURS:
                for x, y in (landmarks_in_crop[part] * CELL).astype(int):
                    cv2.circle(face, (int(x), int(y)), 1, colour, -1)
            x0, y0, x1, y1 = (int(side) for side in clip.boxes[frame])
            sketch = draw_sketch(landmarks_in_crop, y1 - y0, x1 - x0, CELL).astype(np.uint8)
        cells.append(np.concatenate([_write(face.copy(), f"{frame / FPS:.2f} s", CELL - 6), sketch]))
    heard = mel_windows(clip.mel, np.arange(clip.num_frames))[:, 0, ::-1, 6:10]  # (F, 80, 4): what is said in a frame
    shades = plt.get_cmap("magma")((heard.transpose(1, 0, 2).reshape(heard.shape[1], -1) - SILENCE) / (-2 * SILENCE))
    width = num_frames * CELL
    mel = cv2.resize((shades[..., :3] * 255).astype(np.uint8), (width, CELL // 2), interpolation=cv2.INTER_AREA)
    gaps = cv2.resize((~clip.found[None]).astype(np.uint8), (width, 1), interpolation=cv2.INTER_NEAREST)[0] > 0
    mel[:6, gaps] = 255, 0, 0
    size = " x ".join(map(str, clip.metadata["frame_size"]))
    told = clip.name.encode("ascii", "backslashreplace").decode()
    told = f"{told}: {clip.num_frames} frames of {size}, {clip.num_frames - clip.num_found} without a face"
    return np.concatenate([_write(np.zeros((20, width, 3), np.uint8), told, 15), np.concatenate(cells, axis=1), mel])


def _write(picture: np.ndarray, text: str, y: int) -> np.ndarray:
    return cv2.putText(picture, text, (3, y), cv2.FONT_HERSHEY_PLAIN, 1, (255, 255, 255), 1, cv2.LINE_AA)


def figures_of(clips: Iterable[Clip]) -> np.recarray:
    """What the summary tells of each clip, from one pass over the files of the cache, which may be many."""
    columns = [("name", "O"), ("frames", "i8"), ("found", "i8"), ("bytes", "i8"), ("face", "f8"), ("cuts", "i8")]
    measured = ((clip, clip.metadata["measures"]) for clip in clips)
    rows = [(c.name, c.num_frames, c.num_found, c.num_bytes, m["face"], m["cuts"]) for c, m in measured]
    return np.rec.fromrecords(rows, columns)


def describe(clips: np.recarray, records: Sequence[Record]) -> str:
    """Hours, clips, speakers, frames, sizes on disk, face sizes, failures by reason, and which clips to look at."""
    frames, found, lengths = clips.frames.sum(), clips.found.sum(), clips.frames / FPS
    doubtful = clips[np.lexsort((-clips.cuts, clips.found / clips.frames))][:WORST]
    lines = [
        f"{len(clips)} clips of {len({speaker_of(name) for name in clips.name})} speakers (folders)",
        f"{frames / FPS / 3600:.2f} hours, {frames} frames, {frames - found} of them without a face",
        f"clips of {lengths.min():.1f} to {lengths.max():.1f} s, {np.median(lengths):.1f} s as a median",
        f"faces of {clips.face.min():.0f} to {clips.face.max():.0f} px, {np.median(clips.face):.0f} px as a median "
        "(shorter side)",
        f"{clips.bytes.sum() / 2**20:.1f} MiB of face crops, {clips.bytes.sum() / found:.0f} bytes a frame",
        *([summary(records)] if records else []),
        "look at (--clips NAME):",
        *(f"  {c.found / c.frames:6.1%} with a face, {c.cuts} cuts: {c.name}" for c in doubtful),
    ]
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def plot(clips: np.recarray, records: Sequence[Record], path: Path) -> None:
    """Lengths, face sizes, share of frames with a face, and what became of the videos, as histograms."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    for axis, values, label, limits in (
        (axes[0, 0], clips.frames / FPS, "length of a clip, s", None),
        (axes[0, 1], clips.face, "shorter side of the face box, px", None),
        (axes[1, 0], 100 * clips.found / clips.frames, "frames with a face, %", (0, 100)),
    ):
        axis.hist(values, bins=40, range=limits)
        axis.set(xlabel=label, ylabel="clips", yscale="log", ylim=(0.5, None))  # a single clip is seen, too
    counts = Counter(record.get("reason", record["status"]) for record in records).most_common()[::-1]
    bars = axes[1, 1].barh([name for name, _ in counts], [count for _, count in counts])
    axes[1, 1].bar_label(bars, padding=3)
    axes[1, 1].set(xlabel="videos", xscale="log", xlim=(0.5, None))
    axes[1, 1].margins(x=0.2)
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    command_line.run(main, Config, prog="python -m preprocess.preview")
