"""A picture of the results, like the paper's Figure 4."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from PIL import Image, ImageDraw

from evaluation.protocol import parse_named
from face.crop import crop_face
from face.tracking import FaceTrack, track_faces
from media.video import Video
from metrics.mouth import mouth_crop
from runtime import command_line
from runtime.command_line import UserError, naming, write_whole

CELL = 192  # pixels of a face in a sheet
GAP = 6  # pixels between two frames
LABEL_HEIGHT = 24


def labelled(text: str, picture: ndarray) -> ndarray:
    """A picture (H, W, 3) below its name, black on white: (24 + H, W, 3)."""
    strip = Image.new("RGB", (picture.shape[1], LABEL_HEIGHT), "white")
    ImageDraw.Draw(strip).text((4, 6), text, "black")
    return np.vstack([np.asarray(strip), picture])


def draw_cell(picture: ndarray, track: FaceTrack, frame: int) -> ndarray:
    """Face and mouth side by side, with a gap behind them; grey if the frame shows no face."""
    cell = np.full((CELL, 2 * CELL, 3), 128, np.uint8)
    if track.found[frame]:
        face = crop_face(picture, track.boxes[frame], CELL)
        cell = np.hstack([face, mouth_crop(picture, track.landmarks_in_frame[frame], CELL)])
    return np.pad(cell, ((0, 0), (0, GAP), (0, 0)), constant_values=255)


@dataclass(frozen=True)
class Sheet:
    """The same frames of the original and of every method with enlarged mouths, like the paper's Figure 4."""

    original: Path
    """The original video."""
    methods: tuple[str, ...]
    """NAME=VIDEO of each method."""
    output: Path
    """The picture (.png)."""
    frames: tuple[int, ...] = ()
    """Frame numbers; without them five, evenly spread."""

    def run(self) -> None:
        """Draws a row for each video, with face and mouth of each frame."""
        command_line.check_output(self.output, "--output", (".png", ".jpg", ".webp"))
        with naming("--methods"):
            paths = parse_named((f"original={self.original}", *self.methods))
        tracks = {name: track_faces(Video(path)) for name, path in paths.items()}
        count = min(len(track.found) for track in tracks.values())
        frames = self.frames or np.linspace(0, count - 1, 5).astype(int).tolist()
        for frame in frames:
            if not 0 <= frame < count:
                raise UserError(f"--frames {frame}: the shortest video has frames 0 to {count - 1}")
        rows = []
        for name, path in paths.items():
            cells = []
            for frame, picture in zip(frames, Video(path).frames(frames), strict=True):
                cell = draw_cell(picture, tracks[name], frame)
                cells.append(cell if rows else labelled(f"frame {frame}", cell))
            rows.append(labelled(name, np.hstack(cells)))
        encoded, content = cv2.imencode(self.output.suffix, np.vstack(rows)[..., ::-1])
        if not encoded:
            raise UserError(f"--output {self.output}: too large for such a file; use .png or fewer frames")
        write_whole(self.output, content.tobytes())
        print(f"{self.output}: {len(paths)} videos, {len(frames)} frames of each")
