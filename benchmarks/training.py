"""python -m benchmarks.training: samples a second of both training loops, and where the time goes."""

import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from tabulate import tabulate
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

import train_landmark
import train_render
from benchmarks.machine import describe, matmul_rate
from runtime import command_line
from runtime.device import wait
from training.engine import Engine
from training.loop import Trainer

WARM_UP = 3  # steps before the clock starts: choice of kernels, first batches


@dataclass(frozen=True)
class TrainingBenchmarkConfig:
    """Times whole training steps of both stages, data included."""

    cache: Path
    """Clips to train on."""
    preset: Literal["lite", "paper"] = "lite"
    steps: int = 20
    """Steps that are timed."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"


def main(config: TrainingBenchmarkConfig) -> None:
    """Prints a table."""
    command_line.at_least(1, steps=config.steps)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        changes: dict[str, Any] = {"cache": config.cache, "run": Path(folder) / "run", "device": config.device}
        landmark = replace(train_landmark.PRESETS[config.preset], **changes)
        changes |= {"alignment_steps": 0, "initial_motion_steps": 0}  # all networks train from the first step on
        render = replace(train_render.PRESETS[config.preset], **changes)
        with redirect_stdout(None):  # the number of clips
            [landmark_trainer] = train_landmark.trainers(landmark, Engine(landmark))
            [render_trainer] = train_render.trainers(render, Engine(render))
        for trainer in (landmark_trainer, render_trainer):
            rows.append({"network": trainer.name, "batch": trainer.config.batch, **measure(trainer, config.steps)})
    print(f"{config.preset}: {describe(landmark_trainer.engine.device)}")
    print(tabulate(rows, headers="keys", floatfmt=".3g"))


def measure(trainer: Trainer, steps: int) -> dict[str, float]:
    """Samples a second of the loop's own steps; shares of the time by phase; speed relative to a matrix product."""
    batches = trainer.batches()
    engine = trainer.engine
    for _ in range(WARM_UP):
        trainer.train_step(next(batches))
    wait(engine.device)
    start = time.perf_counter()
    for _ in range(steps):
        trainer.train_step(next(batches))
    wait(engine.device)
    rate = steps * trainer.config.batch / (time.perf_counter() - start)
    parts = next(batches)
    with profile() as profiler:
        trainer.train_step(parts)
    events = profiler.key_averages()
    whole = sum(event.self_cpu_time_total for event in events)
    backward = sum(event.cpu_time_total for event in events if event.key.startswith("autograd::engine::evaluate"))
    optimiser = sum(event.cpu_time_total for event in events if event.key.startswith("Optimizer.step"))
    with FlopCounterMode(display=False) as counter:
        trainer.train_step(parts)
    operations = counter.get_total_flops() / trainer.config.batch
    return {
        "samples/s": rate,
        "backward": backward / whole,
        "optimiser": optimiser / whole,
        "GFLOP a sample": operations / 1e9,
        "relative rate": operations
        * rate
        / matmul_rate(engine.device, torch.bfloat16 if engine.half else torch.float32),
    }


if __name__ == "__main__":
    command_line.run(main, TrainingBenchmarkConfig, prog="python -m benchmarks.training")
