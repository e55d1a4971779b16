"""python -m training.plot: the curves of one or more runs as a picture."""

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from runtime import command_line
from runtime.command_line import SettingError, writing
from training.run_folder import read_metrics

NUM_COLUMNS = 4


@dataclass(frozen=True)
class PlotConfig:
    """Draws every number in metrics.jsonl over the steps: training as lines, validation as dots."""

    run: tuple[Path, ...]
    """Run folders."""
    output: Path = Path("curves.png")
    """Picture to write: .png, .svg or .pdf."""


def main(config: PlotConfig) -> None:
    """Raises UserError when a run has no metrics or the picture can't be written."""
    command_line.check_output(config.output, "--output", (".png", ".svg", ".pdf"))
    curves = defaultdict(lambda: defaultdict(list))  # by name, then by run and group: step and value
    for run in config.run:
        for row in read_metrics(run):
            for name in row.keys() - {"step", "group", "selection"}:
                curves[name][f"{run.name} {row['group']}"].append((row["step"], row[name]))
    if not curves:
        raise SettingError("run", f"{config.run[0]} has no metrics yet (metrics.jsonl)")
    num_rows = math.ceil(len(curves) / NUM_COLUMNS)
    figure = Figure(figsize=(4 * NUM_COLUMNS, 2.6 * num_rows), layout="tight")
    for place, name in enumerate(sorted(curves), start=1):
        axes = figure.add_subplot(num_rows, NUM_COLUMNS, place, title=name)
        for label, points in curves[name].items():
            axes.plot(*np.transpose(points), "-" if label.endswith("train") else "o", label=label)
        axes.legend(fontsize="x-small")
    with writing(config.output):
        figure.savefig(config.output, dpi=100)


if __name__ == "__main__":
    command_line.run(main, PlotConfig, prog="python -m training.plot")
