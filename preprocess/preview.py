"""python -m preprocess.preview: a contact sheet of some clips of a cache, to check before training."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from datasets.clip_cache import Clip, ClipCache
from media.audio import FPS
from media.timing import evenly_spaced
from runtime.command_line import check_output, naming, run, write_whole

CELL = 192  # side of a face in the contact sheet, in pixels
NUM_CLIPS = 8  # at most
NUM_FRAMES = 8  # of each clip, spread over its length


@dataclass(frozen=True)
class PreviewConfig:
    """Draws a contact sheet of some clips of a cache and prints the size of the cache."""

    cache: Path
    """Folder that python -m preprocess wrote."""
    output: Path = Path("contact_sheet.png")
    """Picture to write (.png)."""


def main(config: PreviewConfig) -> None:
    """Writes the picture, and prints the number of clips and hours."""
    check_output(config.output, "--output", (".png",))
    with naming("--cache"):
        clips = list(ClipCache(config.cache, None))
    chosen = evenly_spaced(len(clips), NUM_CLIPS)  # of clips sorted by name, so that they spread over speakers
    sheet = np.concatenate([strip(clips[index]) for index in chosen])
    _, png = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    write_whole(config.output, png.tobytes())
    frames = sum(clip.num_frames for clip in clips)
    print(f"{len(clips)} clips, {frames / FPS / 3600:.2f} hours")


def strip(clip: Clip) -> np.ndarray:
    """Draws faces of one clip, evenly spaced in time, with their landmarks; red cells have no face.

    Returns:
        (CELL, NUM_FRAMES * CELL, 3) uint8 RGB, with the clip's name.
    """
    frames = np.linspace(0, clip.num_frames - 1, NUM_FRAMES, dtype=int)
    row = np.full((CELL, NUM_FRAMES * CELL, 3), (120, 0, 0), np.uint8)
    cells = np.split(row, NUM_FRAMES, axis=1)  # views
    for frame, landmarks, cell in zip(frames, clip.crop_landmarks(frames), cells, strict=True):
        if clip.found[frame]:
            cell[:] = cv2.resize(clip.face(frame), (CELL, CELL))
            for x, y in (landmarks * CELL).astype(int).tolist():
                cv2.circle(cell, (x, y), radius=1, color=(90, 200, 255))
    return cv2.putText(row, clip.name, (3, 15), cv2.FONT_HERSHEY_PLAIN, 1, (255, 255, 255))


if __name__ == "__main__":
    run(main, PreviewConfig, prog="python -m preprocess.preview")
