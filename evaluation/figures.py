"""Pictures of the results: a sheet like the paper's Figure 4, a side-by-side video, a report."""

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from evaluation.protocol import parse_named
from face.crop import crop_face
from face.tracking import FaceTrack, track_faces
from media.video import Video
from media.writer import WRITTEN, VideoWriter
from metrics.mouth import mouth_crop
from runtime import command_line
from runtime.command_line import UserError, naming, write_whole

CELL = 192  # pixels of a face in a sheet
GAP = 6  # pixels between two frames
LABEL_HEIGHT = 24


@dataclass(frozen=True)
class SheetConfig:
    """The same frames of the original and of every method, each with its enlarged mouth."""

    original: Path
    """The original video."""
    methods: tuple[str, ...]
    """NAME=VIDEO of each method."""
    output: Path
    """The picture (.png)."""
    frames: tuple[int, ...] = ()
    """Frame numbers; without them five, evenly spread."""


def draw_label(text: str, width: int) -> np.ndarray:
    """(24, width, 3): black text on white, cut off if it is too long."""
    strip = np.full((LABEL_HEIGHT, width, 3), 255, np.uint8)
    ascii_text = text.encode("ascii", "replace").decode()
    return cv2.putText(strip, ascii_text, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)


def draw_cell(picture: np.ndarray, track: FaceTrack, frame: int) -> np.ndarray:
    """Face and mouth side by side, with a gap behind them; grey if the frame shows no face."""
    gap = np.full((CELL, GAP, 3), 255, np.uint8)
    if not track.found[frame]:
        return np.concatenate([np.full((CELL, 2 * CELL, 3), 128, np.uint8), gap], axis=1)
    face = crop_face(picture, track.boxes[frame], CELL)
    mouth = mouth_crop(picture, track.landmarks_in_frame[frame], CELL)
    return np.concatenate([face, mouth, gap], axis=1)


def sheet(config: SheetConfig) -> None:
    """Draws a row for each video, with face and mouth of each frame."""
    command_line.check_output(config.output, "--output", (".png", ".jpg", ".webp"))
    with naming("--methods"):
        paths = parse_named((f"original={config.original}", *config.methods))
    videos = {name: Video(path) for name, path in paths.items()}
    tracks = {name: track_faces(video) for name, video in videos.items()}
    shortest = min(tracks, key=lambda name: len(tracks[name].found))
    last = len(tracks[shortest].found) - 1
    frames = config.frames or tuple(np.linspace(0, last, 5).astype(int).tolist())
    for frame in frames:
        if not 0 <= frame <= last:
            raise UserError(f"--frames {frame}: {paths[shortest]} has frames 0 to {last}")
    width = 2 * CELL + GAP
    lines = [np.concatenate([draw_label(f"frame {frame}", width) for frame in frames], axis=1)]
    for name, video in videos.items():
        pictures = zip(frames, video.frames(frames), strict=True)
        cells = [draw_cell(picture, tracks[name], frame) for frame, picture in pictures]
        lines += [draw_label(name, len(frames) * width), np.concatenate(cells, axis=1)]
    encoded, content = cv2.imencode(config.output.suffix, np.concatenate(lines)[..., ::-1])
    if not encoded:
        raise UserError(f"--output {config.output}: the sheet is too large for such a file; use .png or fewer frames")
    write_whole(config.output, content.tobytes())
    print(f"{config.output}: {len(videos)} videos, {len(frames)} frames of each")


@dataclass(frozen=True)
class CompareConfig:
    """Videos side by side, in step, with their names and the sound of the first that has any."""

    videos: tuple[str, ...]
    """NAME=VIDEO of each."""
    output: Path
    """The video (.mp4)."""
    height: int = 256
    """Pixels of each."""


def compare(config: CompareConfig) -> None:
    with naming("--videos"):
        paths = parse_named(config.videos)
        if not paths:
            raise UserError("name at least one, as NAME=VIDEO")
    command_line.check_output(config.output, "--output", WRITTEN, inputs=paths.values())
    command_line.at_least(1, height=config.height)
    videos = [Video(path) for path in paths.values()]
    widths = [2 * max(1, round(video.width * config.height / video.height / 2)) for video in videos]
    labels = np.concatenate([draw_label(name, width) for name, width in zip(paths, widths, strict=True)], axis=1)
    sound = next((video.path for video in videos if video.has_audio), None)
    size = (sum(widths), LABEL_HEIGHT + config.height)
    num_frames = 0
    with VideoWriter(config.output, videos[0].fps, size, sound) as writer:
        for pictures in zip(*videos, strict=False):
            pairs = zip(pictures, widths, strict=True)
            resized = [cv2.resize(picture, (width, config.height)) for picture, width in pairs]
            writer.write(np.concatenate([labels, np.concatenate(resized, axis=1)]))
            num_frames += 1
    print(f"{config.output}: {len(videos)} videos side by side, {num_frames} frames")


@dataclass(frozen=True)
class ReportConfig:
    """Tables and pictures in one Markdown file."""

    tables: tuple[Path, ...]
    """The .md files of tables."""
    output: Path
    """The report (.md)."""
    sheets: tuple[Path, ...] = ()
    """Pictures to link to, such as those of `sheet`."""


def report(config: ReportConfig) -> None:
    command_line.check_output(config.output, "--output", (".md",), inputs=config.tables)
    for path in (*config.tables, *config.sheets):
        command_line.check_input(path)
    parts = [path.read_text(encoding="utf-8") for path in config.tables]
    for path in config.sheets:
        link = os.path.relpath(path, config.output.parent)
        parts.append(f"![{path.stem}]({Path(link).as_posix()})\n")
    write_whole(config.output, "\n".join(parts))
    print(f"{config.output}: tables: {len(config.tables)}, sheets: {len(config.sheets)}")
