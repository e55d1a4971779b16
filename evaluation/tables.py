"""Tables as Markdown and JSON, with 95 % intervals, beside the published figures."""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tabulate import tabulate

from runtime.command_line import UserError, check_output, naming, write_whole, writing

RESAMPLES = 2000  # of the bootstrap
FOLDER = Path(__file__).parent
# Column -> which values are better, and decimals.
COLUMNS: dict[str, tuple[str, int]] = json.loads((FOLDER / "columns.json").read_bytes())
MEANS_OVER_FRAMES = {"PSNR", "SSIM", "LPIPS", "LPIPS vgg"}  # the other columns are means over clips
# Table -> row -> column -> the printed value. The paper's LSE-C (SyncScore) is of dubbing, all else of reconstruction.
PUBLISHED: dict[str, dict[str, dict[str, float]]] = json.loads((FOLDER / "published.json").read_bytes())


@dataclass
class ClipScore:
    """One clip of one method. `values` are means over its scored frames; `reason` is empty unless scoring failed."""

    clip: str
    values: dict[str, float] = field(default_factory=dict)
    expected: int = 0  # frames that the sound lasts; 0 if unknown
    produced: int = 0  # of the expected frames
    frames: int = 0  # scored
    faceless: int = 0  # frames without a face in output or original, ignored by all metrics of faces
    reason: str = ""
    note: str = ""

    def add_note(self, text: str) -> None:
        """Adds to the note, which is printed below the table."""
        self.note = f"{self.note}; {text}" if self.note else text


def reason_of(error: Exception) -> str:
    """Why a clip could not be made or scored. Even an unexpected error costs only the clip, not the table."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def bootstrap(values: np.ndarray, weights: np.ndarray | float = 1.0) -> list[float]:
    """[mean, low, high]: the weighted mean of values (n,) and its 95 % interval over resampled clips (fixed seed).

    [value] if there is only one finite value, which has no interval, and [NaN] if there is none.
    """
    finite = np.isfinite(values)
    weights = np.broadcast_to(weights, len(values))[finite]
    values = values[finite]
    if len(values) < 2:
        return values.tolist() or [float("nan")]
    samples = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    means = (values * weights)[samples].sum(1) / weights[samples].sum(1)
    low, high = np.quantile(means, (0.025, 0.975)).tolist()
    return [float(np.average(values, weights=weights)), low, high]


@dataclass
class Row:
    """`cells`: column -> [value] or [value, low, high]. `clips`: each clip's values, also of those that failed.

    NaN (a clip too short, or without a face) is removed: strict readers of JSON refuse it.
    """

    name: str
    cells: dict[str, list[float]]
    clips: list[ClipScore] = field(default_factory=list)  # none in published rows

    def __post_init__(self) -> None:
        self.cells = {column: numbers for column, numbers in self.cells.items() if math.isfinite(numbers[0])}
        for clip in self.clips:
            clip.values = {column: value for column, value in clip.values.items() if math.isfinite(value)}

    @property
    def failed(self) -> dict[str, str]:
        """Clip -> reason."""
        return {clip.clip: clip.reason for clip in self.clips if clip.reason}


def summarise(name: str, clips: list[ClipScore], fid: float = math.nan) -> Row:
    """The row of a method. Only the share of frames produced includes the clips that failed."""
    scored = [clip for clip in clips if not clip.reason]
    frames = np.array([clip.frames for clip in scored], dtype=float)
    cells = {}
    for column in COLUMNS:
        values = np.array([clip.values.get(column, np.nan) for clip in scored])
        weights = frames if column in MEANS_OVER_FRAMES else 1.0
        cells[column] = bootstrap(values, weights)
    expected = sum(clip.expected for clip in clips)
    if expected:
        cells["produced"] = [sum(clip.produced for clip in clips) / expected]
    cells["FID"] = [fid]
    return Row(name, cells, clips)


@dataclass
class Table:
    """A table with all measured columns; `notes` say how it was scored and what is missing."""

    title: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        return [column for column in COLUMNS if any(column in row.cells for row in self.rows)]

    @property
    def remarks(self) -> list[str]:
        """What is printed below the table: its notes, then those of single clips and the reasons of failed ones."""
        lines = list(self.notes)
        for row in self.rows:
            for clip in row.clips:
                if clip.note:
                    lines.append(f"{row.name}, {clip.clip}: {clip.note}")
                if clip.reason:
                    lines.append(f"failed: {row.name}, {clip.clip}: {clip.reason}")
        return lines

    def markdown(self) -> str:
        header = ["Method", *(f"{column} {COLUMNS[column][0]}" for column in self.columns), "failed"]
        body = []
        for row in self.rows:
            cells = [format_cell(row.cells.get(column, []), COLUMNS[column][1]) for column in self.columns]
            status = f"{len(row.failed)} of {len(row.clips)}" if row.clips else "-"
            body.append([row.name.replace("|", r"\|"), *cells, status])
        alignment = ["left"] + ["right"] * (len(header) - 1)
        table = tabulate(body, header, tablefmt="pipe", disable_numparse=True, colalign=alignment)
        remarks = [f"- {remark}" for remark in self.remarks]
        return "\n".join([f"**{self.title}**", "", table, "", *remarks]) + "\n"

    def json(self) -> str:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False)

    def publish(self, folder: Path | None, name: str) -> None:
        """Prints the table and, if a folder is given, writes it there as `name`.md and .json."""
        if folder:
            write_whole(folder / f"{name}.md", self.markdown())
            write_whole(folder / f"{name}.json", self.json())
        print("\n" + self.markdown())


def format_cell(numbers: list[float], decimals: int) -> str:
    """A value, with its interval if it has one, as "1.00 [0.90, 1.10]"."""
    texts = [f"{number:.{decimals}f}" for number in numbers]
    if not texts:
        return "-"
    return texts[0] if len(texts) == 1 else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def make_output_folder(folder: Path | None) -> None:
    """Makes the folder for the results before any work is done. Raises UserError if that is impossible."""
    if folder:
        with naming("--output"), writing(f"the folder {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        check_output(folder / "table.json", "--output")


def published_rows(key: str) -> list[Row]:
    """The rows that the paper prints in a table; none if the paper has no such table."""
    table = PUBLISHED.get(key, {})
    return [
        Row(f"{name} (paper)", {column: [value] for column, value in cells.items()}) for name, cells in table.items()
    ]
