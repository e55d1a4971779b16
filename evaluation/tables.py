"""Tables as Markdown and JSON, with 95 % intervals, beside the published figures."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tabulate import tabulate

from metrics.lip_motion import nan_mean
from runtime.command_line import UserError, check_output, naming, write_whole, writing

RESAMPLES = 2000  # of the bootstrap
FOLDER = Path(__file__).parent
# Column -> arrow to the better values, and number of decimals.
COLUMNS: dict[str, tuple[str, int]] = json.loads((FOLDER / "columns.json").read_bytes())
MEANS_OVER_FRAMES = {"PSNR", "SSIM", "LPIPS", "LPIPS vgg"}  # the other columns are means over clips
# Table -> row -> column -> the value that the paper prints.
PUBLISHED: dict[str, dict[str, dict[str, float]]] = json.loads((FOLDER / "published.json").read_bytes())


@dataclass
class ClipScore:
    """One clip of one method. `values` are means over its scored frames; `reason` is empty unless scoring failed."""

    clip: str
    values: dict[str, float] = field(default_factory=dict)
    expected: int = 0  # frames for which the sound lasts; 0 if unknown
    produced: int = 0  # of the expected frames
    frames: int = 0  # scored
    reason: str = ""
    notes: list[str] = field(default_factory=list)  # printed below the table


def reason_of(error: Exception) -> str:
    """Says why a clip could not be made or scored. Even an unexpected error costs only the clip, not the table."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def bootstrap(values: np.ndarray, weights: np.ndarray | float = 1.0) -> list[float]:
    """Returns [mean, low, high]: the weighted mean of values (n,) and its 95 % bootstrap interval (fixed seed).

    Returns [value] if only one value is finite, and an empty list if none is.
    """
    finite = np.isfinite(values)
    weights = np.broadcast_to(weights, len(values))[finite]
    values = values[finite]
    if len(values) < 2:
        return values.tolist()
    samples = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    means = np.average(values[samples], axis=1, weights=weights[samples])
    return [float(np.average(values, weights=weights)), *np.quantile(means, (0.025, 0.975)).tolist()]


@dataclass
class Row:
    """`cells`: column -> [value] or [value, low, high]. `clips`: the scores of each clip, including failed ones."""

    name: str
    cells: dict[str, list[float]]
    clips: list[ClipScore] = field(default_factory=list)  # none in published rows


def summarise(
    name: str, clips: list[ClipScore], fid: float = math.nan, persons: Mapping[str, str] | None = None
) -> Row:
    """Computes the row of a method. Failed clips count only in the share of frames produced.

    With `persons` (clip -> person), clips are averaged per person first, so that all persons weigh the same. NaN (a
    clip too short, or without a face) is ignored, and removed from the clips' values.
    """
    scored = [clip for clip in clips if not clip.reason]
    frames = np.array([clip.frames for clip in scored], dtype=float)
    cells = {}
    for column in COLUMNS:
        values = np.array([clip.values.get(column, np.nan) for clip in scored])
        if persons:
            owners = np.array([persons[clip.clip] for clip in scored])
            means = [nan_mean(values[owners == owner]) for owner in dict.fromkeys(owners.tolist())]
            cells[column] = bootstrap(np.array(means))
        else:
            cells[column] = bootstrap(values, frames if column in MEANS_OVER_FRAMES else 1.0)
    expected = sum(clip.expected for clip in clips)
    if expected:
        cells["produced"] = [sum(clip.produced for clip in clips) / expected]
    if math.isfinite(fid):
        cells["FID"] = [fid]
    for clip in clips:
        clip.values = {column: value for column, value in clip.values.items() if math.isfinite(value)}
    return Row(name, {column: numbers for column, numbers in cells.items() if numbers}, clips)


@dataclass
class Table:
    """A table of all measured columns; `notes` say how it was scored and what is missing."""

    title: str
    rows: list[Row]
    notes: list[str]

    def markdown(self) -> str:
        """Formats the table, followed by its notes, the notes on single clips and the reasons of failures."""
        columns = [column for column in COLUMNS if any(column in row.cells for row in self.rows)]
        header = ["Method", *(f"{column} {COLUMNS[column][0]}" for column in columns), "failed"]
        body = []
        remarks = list(self.notes)
        for row in self.rows:
            failed = 0
            for clip in row.clips:
                remarks += [f"{row.name}, {clip.clip}: {note}" for note in clip.notes]
                if clip.reason:
                    failed += 1
                    remarks.append(f"failed: {row.name}, {clip.clip}: {clip.reason}")
            cells = [format_cell(row.cells.get(column, []), COLUMNS[column][1]) for column in columns]
            status = f"{failed} of {len(row.clips)}" if row.clips else "-"
            body.append([row.name.replace("|", r"\|"), *cells, status])
        table = tabulate(body, header, "pipe", disable_numparse=True, stralign="right", colalign=["left"])
        return "\n".join([f"**{self.title}**", "", table, "", *(f"- {remark}" for remark in remarks)]) + "\n"

    def publish(self, folder: Path | None) -> None:
        """Prints the table and, if a folder is given, writes it there as Markdown and JSON, named by its title."""
        text = self.markdown()
        if folder:
            name = self.title.replace(",", "").replace(" ", "_")
            content = json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False)
            write_whole(folder / f"{name}.md", text)
            write_whole(folder / f"{name}.json", content)
        print(f"\n{text}")


def format_cell(numbers: list[float], decimals: int) -> str:
    """Formats a value, with its interval if it has one, as "1.00 [0.90, 1.10]"."""
    value, *interval = [f"{number:.{decimals}f}" for number in numbers] or ["-"]
    return f"{value} [{', '.join(interval)}]" if interval else value


def make_output_folder(folder: Path | None) -> None:
    """Creates the folder for the results before any work is done. Raises UserError if that is impossible."""
    if folder:
        with naming("--output"), writing(f"the folder {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        check_output(folder / "table.json", "--output")


def published_rows(key: str) -> list[Row]:
    """Returns the rows that the paper prints in a table; none if the paper has no such table."""
    rows = []
    for name, cells in PUBLISHED.get(key, {}).items():
        rows.append(Row(f"{name} (paper)", {column: [value] for column, value in cells.items()}))
    return rows
