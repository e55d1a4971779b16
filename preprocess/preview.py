"""python -m preprocess.preview: a contact sheet of some clips of a cache, and a summary of all of them."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from datasets.clip_cache import Clip, ClipCache
from datasets.splits import speaker_of
from media.audio import FPS
from preprocess.report import read_all, summary
from runtime import command_line
from runtime.command_line import naming

CELL = 192  # side of a face in the contact sheet, in pixels
NUM_CLIPS = 8
NUM_FRAMES = 8  # of each clip, spread over its length
WORST = 5  # clips that the summary names because they have the fewest faces


@dataclass(frozen=True)
class PreviewConfig:
    """Draws a contact sheet of some clips of a cache, and summarises the whole cache as text."""

    cache: Path
    """Folder that python -m preprocess wrote."""
    output: Path
    """Folder for contact_sheet.png and summary.txt; created if it does not exist."""


def main(config: PreviewConfig) -> None:
    """Writes both files and prints the summary."""
    with naming("--cache"):
        cache = ClipCache(config.cache, None)
    indices = np.linspace(0, len(cache.names) - 1, NUM_CLIPS, dtype=int)  # sorted, so spread over speakers
    text = describe(cache)
    sheet = np.concatenate([strip(cache.open(cache.names[index])) for index in np.unique(indices)])
    with command_line.writing(f"--output: {config.output}"):
        config.output.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(config.output / "contact_sheet.png"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        (config.output / "summary.txt").write_text(text + "\n", encoding="utf-8")
    print(f"{text}\ncontact sheet: {config.output / 'contact_sheet.png'}")


def strip(clip: Clip) -> np.ndarray:
    """Draws faces of one clip with their landmarks, evenly spread over its length; red if there is no face.

    Returns:
        (CELL, NUM_FRAMES * CELL, 3) uint8 RGB, with the clip's name.
    """
    frames = np.linspace(0, clip.num_frames - 1, NUM_FRAMES, dtype=int)
    row = np.full((CELL, NUM_FRAMES * CELL, 3), (120, 0, 0), np.uint8)
    cells = np.split(row, NUM_FRAMES, axis=1)  # views
    for frame, points, cell in zip(frames, clip.crop_landmarks(frames), cells, strict=True):
        if clip.found[frame]:
            cell[:] = cv2.resize(clip.face(frame), (CELL, CELL))
            dots = list((points * CELL).astype(np.int32)[:, None])
            cv2.polylines(cell, dots, isClosed=True, color=(90, 200, 255), thickness=2)
    return cv2.putText(row, ascii(clip.name), (3, 15), cv2.FONT_HERSHEY_PLAIN, 1, (255, 255, 255))


def describe(cache: ClipCache) -> str:
    """Summarises a cache: speakers, hours, lengths, face sizes, clips with missing faces, failures by reason."""
    clips = list(cache)
    frames = np.array([clip.num_frames for clip in clips])
    found = np.array([clip.num_found for clip in clips])
    faces = [clip.metadata["measures"]["face"] for clip in clips]
    lines = [
        f"{len(clips)} clips of {len({speaker_of(clip.name) for clip in clips})} speakers (folders)",
        f"{frames.sum() / FPS / 3600:.2f} hours, {frames.sum()} frames, {sum(frames - found)} of them without a face",
        f"clips of {frames.min()} to {frames.max()} frames, median {np.median(frames):.0f}",
        f"faces of {min(faces):.0f} to {max(faces):.0f} px (shorter side), median {np.median(faces):.0f} px",
    ]
    for index in np.argsort(found / frames, kind="stable")[:WORST]:
        lines.append(f"{found[index] / frames[index]:7.1%} with a face: {clips[index].name}")
    lines.append(summary(read_all(cache.root).values()))
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


if __name__ == "__main__":
    command_line.run(main, PreviewConfig, prog="python -m preprocess.preview")
