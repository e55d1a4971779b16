"""python -m training.plot: draws the curves of a run as a picture."""

import math
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from runtime.command_line import SettingError, run, writing
from training.run_folder import read_metrics

NUM_COLUMNS = 4


@dataclass(frozen=True)
class PlotConfig:
    """Draws every metric of a run over its steps to RUN/curves.png: training as lines, validation as dots."""

    run: Path
    """The run's folder."""


def main(config: PlotConfig) -> None:
    """Draws and writes the picture. Raises UserError if the run has no metrics, or the picture cannot be written."""
    rows = read_metrics(config.run)
    names = {name for row in rows for name in row} - {"step", "group", "selection"}
    if not names:
        raise SettingError("run", f"{config.run} has no metrics yet (metrics.jsonl)")
    num_rows = math.ceil(len(names) / NUM_COLUMNS)
    figure = Figure(figsize=(4 * NUM_COLUMNS, 2.6 * num_rows), layout="tight")
    for place, name in enumerate(sorted(names), start=1):
        axes = figure.add_subplot(num_rows, NUM_COLUMNS, place, title=name)
        for group, style in (("train", "-"), ("validation", "o")):
            points = {row["step"]: row[name] for row in rows if row["group"] == group and name in row}
            axes.plot([*points], [*points.values()], style)
    picture = config.run / "curves.png"
    with writing(picture):
        figure.savefig(picture, dpi=100)
    print(picture)


if __name__ == "__main__":
    run(main, PlotConfig, prog="python -m training.plot")
