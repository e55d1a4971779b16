"""python -m benchmarks.training: time and memory of a step of both trainings, as the preset computes and in float32."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.machine import print_table, run
from runtime import command_line

SCRIPTS = ("train_landmark.py", "train_render.py")
STEP = re.compile(r"about (\S+) s, (\S+) GiB")  # of a dry run


@dataclass(frozen=True)
class TrainingBenchmarkConfig:
    """Compares dry runs of both training scripts in the preset's precision and in float32."""

    cache: Path
    """Clips to train on."""
    preset: Literal["lite", "paper"] = "lite"


def main(config: TrainingBenchmarkConfig) -> None:
    """Prints a table."""
    rows = []
    for script in SCRIPTS:
        for precision in ((), ("--precision", "fp32")):
            flags = ("--cache", config.cache, "--run", config.cache / "unused", "--preset", config.preset, *precision)
            [(seconds, memory)] = STEP.findall(run(script, *flags, "--dry-run").output)
            name = " ".join((script, *precision))
            rows.append({config.preset: name, "a step, s": float(seconds), "memory, GiB": float(memory)})
    print_table("Training", rows)


if __name__ == "__main__":
    command_line.run(main, TrainingBenchmarkConfig, prog="python -m benchmarks.training")
