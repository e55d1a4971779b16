"""Figures of the results: a sheet like the paper's Figure 4, a side-by-side video, a report."""

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from PIL import Image, ImageDraw

from evaluation.protocol import parse_named
from face.crop import crop_face
from face.tracking import FaceTrack, track_faces
from media.timing import evenly_spaced
from media.video import Video
from media.writer import WRITTEN, VideoWriter
from metrics.mouth import mouth_crop
from runtime.command_line import UserError, check_input, check_output, naming, write_whole

CELL = 192  # side of a face in a sheet, in pixels
GAP = 6  # pixels between two frames
LABEL_HEIGHT = 24


def labelled(text: str, picture: ndarray) -> ndarray:
    """Puts a name above a picture (H, W, 3), black on white: (24 + H, W, 3)."""
    strip = Image.new("RGB", (picture.shape[1], LABEL_HEIGHT), "white")
    ImageDraw.Draw(strip).text((4, 6), text, "black")
    return np.vstack([np.asarray(strip), picture])


def draw_cell(picture: ndarray, track: FaceTrack, frame: int) -> ndarray:
    """Draws face and mouth side by side, with a gap at the right; grey if the frame shows no face."""
    cell = np.full((CELL, 2 * CELL, 3), 128, np.uint8)
    if track.found[frame]:
        face = crop_face(picture, track.boxes[frame], CELL)
        cell = np.hstack([face, mouth_crop(picture, track.landmarks_in_frame[frame], CELL)])
    return np.pad(cell, ((0, 0), (0, GAP), (0, 0)), constant_values=255)


@dataclass(frozen=True)
class Sheet:
    """Shows the same frames of the original and of every method, with enlarged mouths, like the paper's Figure 4."""

    original: Path
    """The original video."""
    methods: tuple[str, ...]
    """NAME=VIDEO of each method."""
    output: Path
    """The picture (.png)."""
    frames: tuple[int, ...] = ()
    """Frame numbers; by default up to five, evenly spread."""

    def run(self) -> None:
        """Draws a row for each video, with face and mouth of each frame."""
        check_output(self.output, "--output", (".png", ".jpg", ".webp"))
        with naming("--methods"):
            paths = parse_named((f"original={self.original}", *self.methods))
        tracks = {name: track_faces(Video(path)) for name, path in paths.items()}
        count = min(len(track.found) for track in tracks.values())
        frames = self.frames or evenly_spaced(count, 5).tolist()
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
            raise UserError(f"--output {self.output}: too large a picture for this format; use .png or fewer frames")
        write_whole(self.output, content.tobytes())
        print(f"{self.output}: {len(paths)} videos, {len(frames)} frames of each")


@dataclass(frozen=True)
class Compare:
    """Plays videos side by side in one video, with their names and the sound of the first that has any."""

    videos: tuple[str, ...]
    """NAME=VIDEO of each."""
    output: Path
    """The video to write (.mp4)."""

    def run(self) -> None:
        """Writes the video, as long as the shortest and as high as the first."""
        with naming("--videos"):
            paths = parse_named(self.videos)
            if not paths:
                raise UserError("name at least one, as NAME=VIDEO")
        check_output(self.output, "--output", WRITTEN, inputs=paths.values())
        videos = [Video(path) for path in paths.values()]
        sounds = [(video.path, 0.0) for video in videos if video.has_audio]
        height = videos[0].height
        widths = [max(1, round(video.width * height / video.height)) for video in videos]
        num_frames = 0
        with VideoWriter(self.output, videos[0].fps, (sum(widths), LABEL_HEIGHT + height), sounds[:1]) as writer:
            for pictures in zip(*videos, strict=False):
                cells = []
                for name, width, picture in zip(paths, widths, pictures, strict=True):
                    cells.append(labelled(name, cv2.resize(picture, (width, height))))
                writer.write(np.hstack(cells))
                num_frames += 1
        print(f"{self.output}: {len(videos)} videos side by side, {num_frames} frames")


@dataclass(frozen=True)
class Report:
    """Joins tables and pictures in one Markdown file."""

    tables: tuple[Path, ...]
    """The .md files of tables."""
    output: Path
    """The report (.md)."""
    sheets: tuple[Path, ...] = ()
    """Pictures to link to, such as those made by `sheet`."""

    def run(self) -> None:
        """Writes the report."""
        check_output(self.output, "--output", (".md",), inputs=self.tables)
        for path in (*self.tables, *self.sheets):
            check_input(path)
        parts = [path.read_text(encoding="utf-8") for path in self.tables]
        for path in self.sheets:
            link = os.path.relpath(path, self.output.parent)
            parts.append(f"![{path.stem}]({Path(link).as_posix()})\n")
        write_whole(self.output, "\n".join(parts))
        print(f"{self.output}: tables: {len(self.tables)}, sheets: {len(self.sheets)}")
