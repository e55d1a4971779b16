"""python -m benchmarks.training: samples a second of both training loops in each precision, data included."""

import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import train_landmark
import train_render
from benchmarks.machine import Row, describe, print_table
from runtime import command_line
from runtime.device import wait
from training.engine import Engine
from training.loop import Trainer

STEPS = 20  # that are timed
WARM_UP = 3  # steps before the clock starts: choice of kernels, first batches


@dataclass(frozen=True)
class TrainingBenchmarkConfig:
    """Times whole training steps of both stages, in the precision that the device is fastest in, and in float32."""

    cache: Path
    """Clips to train on."""
    preset: Literal["lite", "paper"] = "lite"


def main(config: TrainingBenchmarkConfig) -> None:
    """Prints a table."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for script in (train_landmark, train_render):
            preset = script.PRESETS[config.preset]
            for precision in (preset.precision, "fp32"):
                run = Path(folder) / script.__name__ / precision
                settings: Any = replace(preset, cache=config.cache, run=run, precision=precision)
                with redirect_stdout(None):  # the number of clips
                    *_, trainer = script.trainers(settings, Engine(settings))
                rows.append(measure(trainer))
    print_table(f"{config.preset}: {describe(trainer.engine.device)}", rows)


def measure(trainer: Trainer) -> Row:
    """Samples a second of the loop's own steps, and the share of the time in which it waits for data."""
    trainer.step = trainer.warm_up_steps  # now all networks train
    batches = trainer.batches()
    for _ in range(WARM_UP):
        trainer.train_step(next(batches))
    wait(trainer.engine.device)
    waiting = 0.0
    start = time.perf_counter()
    for _ in range(STEPS):
        before = time.perf_counter()
        batch = next(batches)
        waiting += time.perf_counter() - before
        trainer.train_step(batch)
    wait(trainer.engine.device)
    whole = time.perf_counter() - start
    return {
        "network": trainer.name,
        "precision": trainer.config.precision,
        "samples/s": STEPS * trainer.config.batch / whole,
        "waiting for data": waiting / whole,
    }


if __name__ == "__main__":
    command_line.run(main, TrainingBenchmarkConfig, prog="python -m benchmarks.training")
