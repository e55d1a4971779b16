"""python -m training.plot: the curves of one or more runs as a picture."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from runtime import command_line
from runtime.command_line import SettingError, writing
from training.run_folder import read_metrics

COLUMNS = 4
MAX_POINTS = 200  # longer curves are averaged down to this many points


@dataclass(frozen=True)
class PlotConfig:
    """Draws every number in metrics.jsonl over the steps: training as lines, validation as dots."""

    run: tuple[Path, ...]
    """Run folders; each gets a colour."""
    output: Path = Path("curves.png")
    """Picture to write: .png, .svg or .pdf."""


def main(config: PlotConfig) -> None:
    """Raises UserError when a run has no metrics or the picture can't be written."""
    command_line.check_output(config.output, "--output", (".png", ".svg", ".pdf"))
    runs = {run: read_metrics(run) for run in config.run}
    names: list[str] = []
    for run, rows in runs.items():
        if not rows:
            raise SettingError("run", f"{run} has no metrics yet (metrics.jsonl)")
        names += [name for row in rows for name in row if name not in ("step", "group", "selection", "epoch")]
    names = list(dict.fromkeys(names))
    num_rows = -(-len(names) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.6 * num_rows), layout="tight")
    grid = figure.subplots(num_rows, COLUMNS, squeeze=False).flat
    for name, axes in zip(names, grid, strict=False):
        axes.set_title(name)
        for number, (run, rows) in enumerate(runs.items()):
            draw_curve(axes, rows, name, "train", fmt="-", color=f"C{number}", label=f"{run.name} train")
            draw_curve(axes, rows, name, "validation", fmt="o", color=f"C{number}", label=f"{run.name} validation")
    grid[0].legend(fontsize="small")
    for axes in grid[len(names) :]:
        axes.axis("off")
    with writing(config.output):
        figure.savefig(config.output, dpi=100)


def draw_curve(axes: Axes, rows: list[dict], name: str, group: str, fmt: str, color: str, label: str) -> None:
    """Draws one number of the rows of "train" or "validation" over the steps."""
    points = np.array([(row["step"], row[name]) for row in rows if row["group"] == group and name in row])
    if len(points):
        parts = np.array_split(points, min(MAX_POINTS, len(points)))
        steps, values = np.transpose([part.mean(axis=0) for part in parts])
        axes.plot(steps, values, fmt, color=color, label=label, markersize=3)


if __name__ == "__main__":
    command_line.run(main, PlotConfig, prog="python -m training.plot")
