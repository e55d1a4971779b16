"""Tables as text, Markdown, LaTeX, CSV and JSON, with 95 % intervals, beside the published figures."""

import csv
import io
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from runtime.command_line import UserError, check_output, write_whole, writing

RESAMPLES = 2000  # of the bootstrap
TO_LATEX = str.maketrans({c: rf"\{c}" for c in "_&%#${}"} | {
    "\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\to$",
})  # fmt: skip
# Column -> arrow and decimals.
COLUMNS = {
    "PSNR": ("↑", 2), "PSNR lower half": ("↑", 2), "PSNR pasted": ("↑", 2), "SSIM": ("↑", 4), "LPIPS": ("↓", 4),
    "LPIPS pasted": ("↓", 4), "LPIPS vgg": ("↓", 4), "FID": ("↓", 2), "LipLMD": ("↓", 5), "CSIM": ("↑", 4),
    "LSE-C": ("↑", 2), "LSE-D": ("↓", 2), "offset": ("→0", 1), "openness r": ("↑", 3), "closed F1": ("↑", 2),
    "articulation": ("→1", 2), "silence": ("↓", 3), "jitter": ("→1", 2), "produced": ("↑", 3),
    "Landmark Error": ("↓", 2), "image quality": ("↑", 2), "lip sync": ("↑", 2), "identity": ("↑", 2),
}  # fmt: skip
OVER_FRAMES = {"PSNR", "SSIM", "LPIPS", "LPIPS vgg"}  # a mean over all frames; the others are a mean over clips
# Table -> row -> column -> what the paper prints. Its LSE-C (SyncScore) is of dubbing, all else of reconstruction.
PUBLISHED: dict[str, dict[str, dict[str, float]]] = json.loads(Path(__file__).with_name("published.json").read_bytes())


@dataclass
class ClipScore:
    """One clip of one method. `values` are means over its scored frames; an empty `reason` means it was scored."""

    clip: str
    values: dict[str, float] = field(default_factory=dict)
    wanted: int = 0  # frames that the sound is long; 0 where nobody knows
    produced: int = 0  # of these, those that the method made
    frames: int = 0  # scored
    faceless: int = 0  # frames without a face in output or original: they count for no face metric
    reason: str = ""
    note: str = ""

    def remark(self, text: str) -> None:
        """Adds to the note, which stands under the table."""
        self.note = "; ".join(filter(None, (self.note, text)))


def reason_of(error: Exception) -> str:
    """Why a clip could not be made or scored: its trouble, even an unforeseen one, is not the table's."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def bootstrap(values: np.ndarray, weights: np.ndarray | float = 1.0) -> list[float]:
    """[mean, low, high]: weighted mean of values (n,) and its 95 % interval over resampled clips, with a fixed seed.

    [value] of a single one, which tells nothing of an interval, and [NaN] of none.
    """
    kept = np.isfinite(values)
    values, weights = values[kept], np.broadcast_to(weights, len(values))[kept]
    if len(values) < 2:
        return values.tolist() or [float("nan")]
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    means = (values * weights)[drawn].sum(1) / weights[drawn].sum(1)
    return [float(np.average(values, weights=weights)), *np.quantile(means, (0.025, 0.975)).tolist()]


@dataclass
class Row:
    """`cells`: column -> [value] or [value, low, high]. `clips`: every clip's own values, also of those that failed.

    What a clip was too short or too faceless for is left out: no file holds NaN, which strict readers of JSON refuse.
    """

    name: str
    cells: dict[str, list[float]]
    clips: list[ClipScore] = field(default_factory=list)  # none: published figures

    def __post_init__(self) -> None:
        self.cells = {column: numbers for column, numbers in self.cells.items() if math.isfinite(numbers[0])}
        for score in self.clips:
            score.values = {column: value for column, value in score.values.items() if math.isfinite(value)}

    @property
    def failed(self) -> dict[str, str]:
        return {score.clip: score.reason for score in self.clips if score.reason}


def row_of(name: str, clips: list[ClipScore], over_all: dict[str, float] | None = None) -> Row:
    """Summarises the clips of a method. The share of frames produced counts the failed ones; nothing else does.

    `over_all`: column -> value of what only all frames of all clips together tell, such as FID.
    """
    scored, cells = [score for score in clips if not score.reason], {}
    frames = np.array([score.frames for score in scored], dtype=float)
    for column in COLUMNS:
        values = np.array([score.values.get(column, np.nan) for score in scored])
        cells[column] = bootstrap(values, frames if column in OVER_FRAMES else 1.0)
    if wanted := sum(score.wanted for score in clips):
        cells["produced"] = [sum(score.produced for score in clips) / wanted]
    return Row(name, cells | {column: [value] for column, value in (over_all or {}).items()}, clips)


@dataclass
class Table:
    """A table with everything that was measured; `notes` say what is missing or how it was scored."""

    title: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        return [c for c in COLUMNS if any(c in row.cells for row in self.rows)]

    @property
    def remarks(self) -> list[str]:
        """What stands below the figures: the notes, then why clips failed."""
        failed = [f"failed: {row.name}, {clip}: {why}" for row in self.rows for clip, why in row.failed.items()]
        return self.notes + failed

    def grid(self, intervals: bool = True) -> list[list[str]]:
        """Heading and rows as strings."""
        lines = [["Method", *(f"{column} {COLUMNS[column][0]}" for column in self.columns), "failed"]]
        for row in self.rows:
            cells = []
            for column in self.columns:
                numbers = [f"{x:.{COLUMNS[column][1]}f}" for x in row.cells.get(column, [])]
                tail = f" [{numbers[1]}, {numbers[2]}]" if intervals and len(numbers) == 3 else ""
                cells.append(numbers[0] + tail if numbers else "-")
            lines.append([row.name, *cells, f"{len(row.failed)} of {len(row.clips)}" if row.clips else "published"])
        return lines

    def text(self) -> str:
        grid = self.grid()
        first, *widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
        line = "  ".join([f"{{:<{first}}}", *(f"{{:>{width}}}" for width in widths)])
        return "\n".join([self.title, *(line.format(*cells) for cells in grid), *self.remarks]) + "\n"

    def markdown(self) -> str:
        grid = [[cell.replace("|", r"\|") for cell in cells] for cells in self.grid()]
        head, *rows = ["| " + " | ".join(cells) + " |" for cells in grid]
        rule = "|" + "---|" * len(grid[0])
        return "\n".join([f"**{self.title}**", "", head, rule, *rows, "", *(f"- {r}" for r in self.remarks)]) + "\n"

    def latex(self) -> str:
        """The figures; above them, as comments, everything else, intervals included."""
        grid = [[cell.translate(TO_LATEX) for cell in cells] for cells in self.grid(intervals=False)]
        head, *rows = [" & ".join(cells) + r" \\" for cells in grid]
        above = [f"% {line}" for line in self.text().splitlines()]
        above.append(rf"\begin{{tabular}}{{l{'r' * (len(grid[0]) - 1)}}}")
        return "\n".join([*above, r"\hline", head, r"\hline", *rows, r"\hline", r"\end{tabular}"]) + "\n"

    def csv(self) -> str:
        """One line for each method and column, then one for each clip of a method and column."""
        stream = io.StringIO()
        writer = csv.writer(stream)
        writer.writerow(["method", "clip", "column", "value", "low", "high", "frames", "faceless", "reason", "note"])
        for row in self.rows:
            for column, numbers in row.cells.items():
                writer.writerow([row.name, "", column, *numbers, *[""] * (7 - len(numbers))])
            for score in row.clips:
                tail = ["", "", score.frames, score.faceless, score.reason, score.note]
                for column, value in (score.values or {"": ""}).items():
                    writer.writerow([row.name, score.clip, column, value, *tail])
        return stream.getvalue()

    def json(self) -> str:
        rows = [asdict(row) | {"failed": row.failed, "published": not row.clips} for row in self.rows]
        content = {"title": self.title, "notes": self.notes, "rows": rows}
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)

    def publish(self, folder: Path | None, name: str) -> None:
        """Writes `name`.txt, .md, .tex, .csv and .json into the folder, where there is one, and prints the table."""
        formats = {"txt": self.text, "md": self.markdown, "tex": self.latex, "csv": self.csv, "json": self.json}
        for suffix, content in formats.items():
            if folder:
                write_whole(folder / f"{name}.{suffix}", content())
        print("\n" + self.text())


def output_folder(folder: Path | None) -> None:
    """Makes the folder for the results, before any work is done. Raises UserError if that can't be."""
    if folder:
        with writing(f"--output: the folder {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        check_output(folder / "table.json", "--output")


def read_table(path: Path) -> Table:
    """The table of a .json file that `Table.publish` wrote. Raises UserError if the file is no such table."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [Row(r["name"], r["cells"], [ClipScore(**clip) for clip in r["clips"]]) for r in content["rows"]]
        return Table(content["title"], rows, content["notes"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"--tables: {path} is no table written by these commands ({error})") from error


def published(key: str) -> list[Row]:
    """The paper's rows of a table; none where the paper has no such table."""
    rows = PUBLISHED.get(key, {}).items()
    return [Row(f"{name} (paper)", {column: [value] for column, value in cells.items()}) for name, cells in rows]
