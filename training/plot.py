"""python -m training.plot: the curves of one or more runs as a picture."""

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from runtime import command_line
from runtime.command_line import SettingError, writing
from training.run_folder import read_metrics

NUM_COLUMNS = 4


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
    names = {name for rows in runs.values() for row in rows for name in row} - {"step", "group", "selection"}
    if not names:
        raise SettingError("run", f"{config.run[0]} has no metrics yet (metrics.jsonl)")
    num_rows = -(-len(names) // NUM_COLUMNS)
    figure = Figure(figsize=(4 * NUM_COLUMNS, 2.6 * num_rows), layout="tight")
    for place, name in enumerate(sorted(names), start=1):
        axes = figure.add_subplot(num_rows, NUM_COLUMNS, place, title=name)
        for number, (run, rows) in enumerate(runs.items()):
            for group, style in (("train", "-"), ("validation", "o")):
                points = {row["step"]: row[name] for row in rows if row["group"] == group and name in row}
                axes.plot([*points], [*points.values()], style, color=f"C{number}", label=f"{run.name} {group}")
    figure.axes[0].legend(fontsize="small")
    with writing(config.output):
        figure.savefig(config.output, dpi=100)


if __name__ == "__main__":
    command_line.run(main, PlotConfig, prog="python -m training.plot")
