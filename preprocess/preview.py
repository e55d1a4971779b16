"""python -m preprocess.preview: a contact sheet of some clips of a cache, and a summary of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from datasets.clip_cache import Clip, ClipCache
from datasets.splits import speaker_of
from face.landmarks import JAW_SLICE, LIP_SLICE, POSE_SLICE
from face.sketch import draw_sketch
from media.audio import FPS, SILENCE, mel_windows
from preprocess.report import read_all, summary
from runtime import command_line
from runtime.command_line import UserError, naming

COLOURS = ((POSE_SLICE, (90, 200, 255)), (JAW_SLICE, (255, 210, 60)), (LIP_SLICE, (255, 70, 90)))  # RGB
CELL = 192  # side of a face in the contact sheet, in pixels
COLUMNS_OF_FRAME = slice(6, 10)  # the columns of a mel window that lie in the frame itself
WORST = 5  # clips that the summary names because they may be bad


@dataclass(frozen=True)
class PreviewConfig:
    """Draws a contact sheet of some clips of a cache, and summarises the whole cache as text."""

    cache: Path
    """Folder that python -m preprocess wrote."""
    output: Path
    """Folder for contact_sheet.png and summary.txt; created if it does not exist."""
    clips: tuple[str, ...] = ()
    """Clips to show; without it, some of different speakers."""
    num_clips: int = 8
    """Number of clips, without --clips."""
    num_frames: int = 8
    """Frames of each clip, spread over its length."""


def main(config: PreviewConfig) -> None:
    """Writes both files and prints the summary."""
    command_line.at_least(1, num_clips=config.num_clips, num_frames=config.num_frames)
    with naming("--cache"):
        cache = ClipCache(config.cache, None)
    for name in config.clips:
        if name not in cache.names:
            raise UserError(f"--clips: {name} is not in {config.cache}; names are like {cache.names[0]}")
    indices = np.linspace(0, len(cache.names) - 1, config.num_clips, dtype=int)  # sorted, so spread over speakers
    names = config.clips or [cache.names[index] for index in np.unique(indices)]
    text = describe(list(cache), config.cache)
    sheet = np.concatenate([strip(cache.open(name), config.num_frames) for name in names])
    with command_line.writing(f"--output: {config.output}"):
        config.output.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(config.output / "contact_sheet.png"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        (config.output / "summary.txt").write_text(text + "\n", encoding="utf-8")
    print(f"{text}\ncontact sheet: {config.output / 'contact_sheet.png'}")


def strip(clip: Clip, num_frames: int) -> np.ndarray:
    """Draws one clip: faces with landmarks, sketches, and the mel spectrogram below.

    The frames are in the middle of equal parts of the clip, so that the sound of each is right below it. A frame
    without a face is a red cell.

    Returns:
        (rows, num_frames * CELL, 3) uint8 RGB.
    """
    frames = ((np.arange(num_frames) + 0.5) * clip.num_frames / num_frames).astype(int)
    cells = np.concatenate([_cell(clip, frame) for frame in frames], axis=1)
    width = cells.shape[1]
    columns = mel_windows(clip.mel, np.arange(clip.num_frames))[:, 0, :, COLUMNS_OF_FRAME]  # (F, 80, 4)
    loudness = np.concatenate(list(columns), axis=1)[::-1]  # (80, 4 * F), high frequencies on top
    shades = (255 * (loudness - SILENCE) / (-2 * SILENCE)).astype(np.uint8)
    mel = cv2.applyColorMap(shades, cv2.COLORMAP_MAGMA)[..., ::-1]
    mel = cv2.resize(mel, (width, CELL // 2), interpolation=cv2.INTER_AREA)
    frame_size = " x ".join(map(str, clip.metadata["frame_size"]))
    name = clip.name.encode("ascii", "backslashreplace").decode()
    title = f"{name}: {clip.num_frames} frames of {frame_size}, {clip.num_frames - clip.num_found} without a face"
    header = _write(np.zeros((20, width, 3), np.uint8), title, 15)
    return np.concatenate([header, cells, mel])


def _cell(clip: Clip, frame: int) -> np.ndarray:
    """A frame's face with landmarks above its sketch: (2 * CELL, CELL, 3) uint8."""
    face = np.full((CELL, CELL, 3), (120, 0, 0), np.uint8)
    sketch = face
    if clip.found[frame]:
        face = cv2.resize(clip.face(frame), (CELL, CELL), interpolation=cv2.INTER_CUBIC)
        (landmarks_in_crop,) = clip.crop_landmarks(np.array([frame]))
        for part, colour in COLOURS:
            for x, y in (landmarks_in_crop[part] * CELL).astype(int).tolist():
                cv2.circle(face, (x, y), 1, colour, -1)
        x0, y0, x1, y1 = clip.boxes[frame].tolist()
        sketch = draw_sketch(landmarks_in_crop, y1 - y0, x1 - x0, CELL).astype(np.uint8)
    return np.concatenate([_write(face.copy(), f"{frame / FPS:.2f} s", CELL - 6), sketch])


def _write(picture: np.ndarray, text: str, y: int) -> np.ndarray:
    return cv2.putText(picture, text, (3, y), cv2.FONT_HERSHEY_PLAIN, 1, (255, 255, 255), 1, cv2.LINE_AA)


def describe(clips: Sequence[Clip], cache: Path) -> str:
    """Summarises a cache: speakers, hours, lengths, face sizes, bytes, failures by reason, clips that may be bad."""
    frames = np.array([clip.num_frames for clip in clips])
    found = np.array([clip.num_found for clip in clips])
    faces = np.array([clip.metadata["measures"]["face"] for clip in clips])
    num_bytes = sum(clip.num_bytes for clip in clips)
    seconds = frames / FPS
    lines = [
        f"{len(clips)} clips of {len({speaker_of(clip.name) for clip in clips})} speakers (folders)",
        f"{seconds.sum() / 3600:.2f} hours, {frames.sum()} frames, {(frames - found).sum()} of them without a face",
        f"clips of {seconds.min():.1f} to {seconds.max():.1f} s, median {np.median(seconds):.1f} s",
        f"faces of {faces.min():.0f} to {faces.max():.0f} px (shorter side), median {np.median(faces):.0f} px",
        f"{num_bytes / 2**20:.1f} MiB of face crops, {num_bytes / found.sum():.0f} bytes a frame",
    ]
    records = read_all(cache)
    if records:
        lines.append(summary(records))
    lines.append("look at (--clips NAME):")
    doubtful = sorted(clips, key=lambda clip: (clip.num_found / clip.num_frames, -clip.metadata["measures"]["cuts"]))
    for clip in doubtful[:WORST]:
        share = clip.num_found / clip.num_frames
        lines.append(f"  {share:6.1%} with a face, {clip.metadata['measures']['cuts']} cuts: {clip.name}")
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


if __name__ == "__main__":
    command_line.run(main, PreviewConfig, prog="python -m preprocess.preview")
