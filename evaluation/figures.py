"""Pictures of the results: a sheet like the paper's Figure 4, a side-by-side video, plots, an HTML report."""

import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from evaluation.protocol import named
from evaluation.tables import COLUMNS, Table, read_table
from face.crop import crop_face
from face.landmarks import LIP_SLICE
from face.tracking import track_faces
from media.video import Video
from media.writer import WRITTEN, VideoWriter
from runtime import command_line
from runtime.command_line import UserError, write_whole

CELL, GAP = 192, 6  # pixels of a face in a sheet, and between two frames
STYLE = (
    "body{font:16px system-ui;margin:2rem}table{border-collapse:collapse}td,th{padding:.2rem .6rem;"
    "border:1px solid #ccc;white-space:nowrap}td+td{text-align:right}div{overflow-x:auto}img{max-width:100%}"
)
PLOTS = 3  # side by side in a report
ZOOM = 0.6  # of the mouth's width, that is added on each side


@dataclass(frozen=True)
class Sheet:
    """Methods by frames: the same frames of the original and of every method, each with its zoomed mouth."""

    original: Path
    """The original video."""
    methods: tuple[str, ...]
    """NAME=VIDEO of each method."""
    output: Path
    """The picture (.png)."""
    frames: tuple[int, ...] = ()
    """Numbers of the frames; without them five, evenly spread."""


def mouth_box(lips: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A square (4,) int around lips (40, 2), within the frame (width, height)."""
    side = int(min(np.ptp(lips[:, 0]) * (1 + 2 * ZOOM), *size))
    low = np.clip(lips.mean(0) - side / 2, 0, np.array(size) - side).astype(np.int32)
    return np.concatenate([low, low + side])


def label(text: str, width: int) -> np.ndarray:
    """(24, width, 3): black text on white; cut where it is too long."""
    strip = np.full((24, width, 3), 255, np.uint8)
    ascii_text = text.encode("ascii", "replace").decode()
    return cv2.putText(strip, ascii_text, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)


def sheet(config: Sheet) -> None:
    """A row for each video, face and mouth side by side for each frame."""
    command_line.check_output(config.output, "--output", (".png", ".jpg", ".webp"))
    paths = named((f"original={config.original}", *config.methods), "--methods")
    videos = {name: Video(path) for name, path in paths.items()}  # which know their frames once they were read
    tracks = {name: track_faces(video) for name, video in videos.items()}
    last, shortest = min((len(tracks[name].found) - 1, path) for name, path in paths.items())
    frames = config.frames or tuple(np.linspace(0, last, 5).astype(int).tolist())
    if beyond := [i for i in frames if not 0 <= i <= last]:
        raise UserError(f"--frames {beyond[0]}: {shortest} has frames 0 to {last}")
    rows, gap = [], np.full((CELL, GAP, 3), 255, np.uint8)
    for name, video in videos.items():
        track, cells = tracks[name], []
        for i, picture in zip(frames, video.frames(frames), strict=True):
            pair = [np.full((CELL, CELL, 3), 128, np.uint8)] * 2
            if track.found[i]:
                mouth = mouth_box(track.landmarks_in_frame[i, LIP_SLICE], track.frame_size)
                pair = [crop_face(picture, box, CELL) for box in (track.boxes[i], mouth)]
            cells += [*pair, gap]
        rows += [label(name, len(frames) * (2 * CELL + GAP)), np.concatenate(cells, axis=1)]
    head = np.concatenate([label(f"frame {i}", 2 * CELL + GAP) for i in frames], axis=1)
    whole, picture = cv2.imencode(config.output.suffix, np.concatenate([head, *rows])[..., ::-1])
    if not whole:
        raise UserError(f"--output {config.output}: the sheet is too large for such a file; take .png or fewer frames")
    write_whole(config.output, picture.tobytes())


@dataclass(frozen=True)
class Compare:
    """Videos side by side, in step, with their names and the sound of the first that has one."""

    videos: tuple[str, ...]
    """NAME=VIDEO of each."""
    output: Path
    """The video (.mp4)."""
    height: int = 256
    """Pixels of each."""


def compare(config: Compare) -> None:
    paths = named(config.videos, "--videos")
    command_line.check_output(config.output, "--output", WRITTEN, inputs=paths.values())
    command_line.at_least(1, height=config.height)
    videos = [Video(path) for path in paths.values()]
    if not videos:
        raise UserError("--videos: name at least one, as NAME=VIDEO")
    widths = [max(1, round(video.width * config.height / video.height / 2)) * 2 for video in videos]
    heads = np.concatenate([*map(label, paths, widths)], axis=1)
    sound = next((video.path for video in videos if video.has_audio), None)
    with VideoWriter(config.output, videos[0].fps, (sum(widths), len(heads) + config.height), sound) as writer:
        for pictures in zip(*videos, strict=False):
            fitted = [cv2.resize(p, (w, config.height)) for p, w in zip(pictures, widths, strict=True)]
            writer.write(np.concatenate([heads, np.concatenate(fitted, axis=1)]))


@dataclass(frozen=True)
class Report:
    """One HTML file, which opens from disk, from tables that were written as JSON."""

    tables: tuple[Path, ...]
    """The .json files of tables."""
    output: Path
    """The report (.html)."""
    sheets: tuple[Path, ...] = ()
    """Pictures to put in, such as those of `sheet`."""


def plot(table: Table) -> bytes:
    """PNG: the spread over clips of every metric, a box for each method. Empty where no clip has a value of its own."""
    from matplotlib.figure import Figure

    rows = [row for row in table.rows if row.clips]
    columns = [c for c in table.columns if any(c in score.values for row in rows for score in row.clips)]
    if not columns:
        return b""
    lines = -(-len(columns) // PLOTS)
    figure = Figure(figsize=(4.5 * PLOTS, lines * (0.4 * len(rows) + 1)), layout="constrained")
    figure.suptitle("Spread over the clips: median, quartiles, range without outliers")
    for place, column in enumerate(columns, 1):
        axes = figure.add_subplot(lines, PLOTS, place)
        values = [[s.values[column] for s in row.clips if column in s.values] for row in rows]
        axes.boxplot(values[::-1], orientation="horizontal", tick_labels=[row.name for row in rows][::-1])
        axes.set_title(f"{column} {COLUMNS[column][0]}")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=80)
    return stream.getvalue()


def section(title: str, picture: bytes, lines: list[str]) -> str:
    """HTML: a heading, what stands under it, and a picture (any that a browser shows) if there is one."""
    title, data = html.escape(title), base64.b64encode(picture).decode()
    image = [f'<img alt="{title}" src="data:image/png;base64,{data}">'] if picture else []
    return "\n".join([f"<h2>{title}</h2>", *lines, *image])


def elements(tag: str, texts: list[str]) -> str:
    return "".join(f"<{tag}>{html.escape(text)}</{tag}>" for text in texts)


def report(config: Report) -> None:
    command_line.check_output(config.output, "--output", (".html",))
    if absent := [path for path in config.sheets if not path.is_file()]:
        raise UserError(f"--sheets: there is no picture {absent[0]}")
    parts = [f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Evaluation</title><style>{STYLE}</style>']
    for table in map(read_table, config.tables):
        head, *rows = table.grid()
        rows = [f"<tr>{elements('th', head)}</tr>", *(f"<tr>{elements('td', row)}</tr>" for row in rows)]
        lines = ["<div><table>", *rows, "</table></div>", f"<ul>{elements('li', table.remarks)}</ul>"]
        parts.append(section(table.title, plot(table), lines))
    parts += [section(sheet.stem, sheet.read_bytes(), []) for sheet in config.sheets]
    write_whole(config.output, "\n".join(parts))
    print(f"{config.output}: tables: {len(config.tables)}, sheets: {len(config.sheets)}")
