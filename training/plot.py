"""python -m training.plot: the curves of one or more runs as a picture."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from runtime import command_line
from runtime.command_line import UserError, writing
from training.run_folder import read_metrics

COLUMNS = 4
POINTS = 200  # a curve with more is averaged down to this many


@dataclass(frozen=True)
class Config:
    """Draws every number in metrics.jsonl over the steps: training as lines, validation as dots."""

    run: tuple[Path, ...]
    """Run folders; each gets a colour."""
    output: Path = Path("curves.png")
    """Picture to write: .png, .svg or .pdf."""


def main(config: Config) -> None:
    """Raises UserError when a run has no metrics or the picture can't be written."""
    command_line.check_output(config.output, "--output", (".png", ".svg", ".pdf"))
    runs = {run: read_metrics(run) for run in config.run}
    if empty := [str(run) for run, rows in runs.items() if not rows]:
        raise UserError(f"--run: {', '.join(empty)} has no metrics yet (metrics.jsonl)")
    names = list(dict.fromkeys(name for rows in runs.values() for row in rows for name in row))
    names = [name for name in names if name not in ("step", "group", "selection", "epoch")]
    height = -(-len(names) // COLUMNS)
    figure = Figure(figsize=(4 * COLUMNS, 2.6 * height), layout="tight")
    grid = figure.subplots(height, COLUMNS, squeeze=False)
    for name, axes in zip(names, grid.flat, strict=False):
        for number, (run, rows) in enumerate(runs.items()):
            for group, style in (("train", "-"), ("validation", "o")):
                points = np.array([(r["step"], r[name]) for r in rows if r["group"] == group and name in r])
                parts = np.array_split(points, min(POINTS, len(points))) if len(points) else []
                x, y = zip(*(part.mean(axis=0) for part in parts), strict=True) if parts else ((), ())
                axes.plot(x, y, style, color=f"C{number}", label=f"{run.name} {group}", markersize=3)
        axes.set_title(name)
    grid[0, 0].legend(fontsize="small")
    for axes in grid.flat[len(names) :]:
        axes.axis("off")
    with writing(config.output):
        figure.savefig(config.output, dpi=100)


if __name__ == "__main__":
    command_line.run(main, Config, prog="python -m training.plot")
