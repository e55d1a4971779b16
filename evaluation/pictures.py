"""Pictures of the results: a sheet like the paper's Figure 4, a side-by-side video, plots, an HTML report."""

import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

import command_line
from command_line import UserError
from evaluation.paper import named
from evaluation.tables import COLUMNS, Table, read_table
from face.crop import crop_face
from face.landmarks import LIP_SLICE
from face.tracking import track_faces
from media.video import WRITTEN, Video, VideoWriter, has_audio

CELL = 192  # pixels of a face in a sheet
STYLE = (
    "body{font:16px system-ui;margin:2rem}table{border-collapse:collapse}td,th{padding:.2rem .6rem;"
    "border:1px solid #ccc;white-space:nowrap}div{overflow-x:auto}img{max-width:100%}"
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
    middle, half = lips.mean(0), np.ptp(lips[:, 0]) * (0.5 + ZOOM)
    low, high = np.maximum(middle - half, 0), np.minimum(middle + half, size)
    return np.concatenate([low, high]).astype(np.int32)


def label(text: str, width: int, height: int = 24) -> np.ndarray:
    """Black text on white; cut where it is too long."""
    strip = np.full((height, width, 3), 255, np.uint8)
    ascii_text = text.encode("ascii", "replace").decode()
    cv2.putText(strip, ascii_text, (4, height - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


def draw_sheet(videos: dict[str, Path], frames: tuple[int, ...] = ()) -> np.ndarray:
    """(H, W, 3) RGB: a row for each video, face and mouth side by side for each frame."""
    rows = []
    for name, path in videos.items():
        video = Video(path)
        track = track_faces(video)
        frames = frames or tuple(np.linspace(0, len(track.found) - 1, 5).astype(int).tolist())
        if beyond := [i for i in frames if not 0 <= i < len(track.found)]:
            raise UserError(f"--frames {beyond[0]}: {path} has frames 0 to {len(track.found) - 1}")
        cells = []
        for i, picture in zip(frames, video.frames(frames), strict=True):
            pair = [np.full((CELL, CELL, 3), 128, np.uint8)] * 2
            if track.found[i]:
                lips = track.landmarks_in_frame[i, LIP_SLICE]
                pair = [crop_face(picture, box, CELL) for box in (track.boxes[i], mouth_box(lips, track.frame_size))]
            cells.append(np.concatenate([*pair, np.full((CELL, 6, 3), 255, np.uint8)], axis=1))
        row = np.concatenate(cells, axis=1)
        rows += [label(name, row.shape[1]), row]
    head = np.concatenate([label(f"frame {i}", 2 * CELL + 6) for i in frames], axis=1)
    return np.concatenate([head, *rows])


def sheet(config: Sheet) -> None:
    command_line.output_parent(config.output, "--output", (".png", ".jpg", ".webp"))
    picture = draw_sheet({"original": config.original, **named(config.methods, "--methods")}, config.frames)
    if not cv2.imwrite(str(config.output), picture[..., ::-1]):
        raise UserError(f"--output {config.output}: cannot be written")


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
    command_line.output_parent(config.output, "--output", WRITTEN)
    paths = named(config.videos, "--videos")
    opened = {name: Video(path) for name, path in paths.items()}
    if not opened:
        raise UserError("--videos: name at least one, as NAME=VIDEO")
    widths = {n: round(v.info.width * config.height / v.info.height / 2) * 2 for n, v in opened.items()}
    heads = np.concatenate([label(name, width) for name, width in widths.items()], axis=1)
    sound = next((path for path in paths.values() if has_audio(path)), None)
    size = (heads.shape[1], heads.shape[0] + config.height)
    with VideoWriter(config.output, next(iter(opened.values())).fps, size, sound) as writer:
        for pictures in zip(*opened.values(), strict=False):
            fitted = [cv2.resize(p, (w, config.height)) for p, w in zip(pictures, widths.values(), strict=True)]
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
    lines = max(1, -(-len(columns) // PLOTS))
    figure = Figure(figsize=(4.5 * PLOTS, lines * (0.4 * len(rows) + 1)), layout="constrained")
    grid = np.ravel(figure.subplots(lines, PLOTS))
    for axes in grid[len(columns) :]:
        axes.remove()
    for axes, column in zip(grid, columns, strict=False):
        values = [[s.values[column] for s in row.clips if column in s.values] for row in rows]
        axes.boxplot(values[::-1], orientation="horizontal", tick_labels=[row.name for row in rows][::-1])
        axes.set_title(f"{column} {COLUMNS[column][0]}")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=80)
    return stream.getvalue()


def picture_tag(content: bytes, name: str) -> str:
    return f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'


def html_row(cells: list[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def report(config: Report) -> None:
    command_line.output_parent(config.output, "--output")
    parts = []
    for path in config.tables:
        table = read_table(path)
        head, *rows = table.grid()
        parts += [f"<h2>{html.escape(table.title)}</h2><div><table>", html_row(head, "th")]
        parts += [*(html_row(row, "td") for row in rows), "</table></div><ul>"]
        parts += [f"<li>{html.escape(note)}</li>" for note in table.remarks]
        parts += ["</ul>", picture_tag(plot(table), table.title)]
    if absent := [path for path in config.sheets if not path.is_file()]:
        raise UserError(f"--sheets: there is no picture {absent[0]}")
    parts += [f"<h2>{html.escape(s.stem)}</h2>{picture_tag(s.read_bytes(), s.stem)}" for s in config.sheets]
    head = f'<!doctype html><meta charset="utf-8"><title>Evaluation</title><style>{STYLE}</style>\n'
    page = head + "\n".join(parts)
    config.output.write_text(page, encoding="utf-8")
    print(f"{config.output}: {len(config.tables)} tables, {len(config.sheets)} sheets")
