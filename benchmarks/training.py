"""python -m benchmarks.training: samples a second of both training loops, and where the time goes."""

import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from tabulate import tabulate
from torch.profiler import profile, record_function
from torch.utils.flop_counter import FlopCounterMode

import train_landmark
import train_render
from benchmarks.machine import describe, matmul_rate
from runtime import command_line
from training.engine import Engine
from training.loop import Trainer

SCRIPTS = {"landmark": train_landmark, "render": train_render}
VARIANTS: dict[str, dict[str, Any]] = {"fp32": {"precision": "fp32"}, "as shipped": {}, "compiled": {"compile": True}}
WARM_UP = 3  # steps before the clock starts: compilation, choice of kernels, first batches


@dataclass(frozen=True)
class TrainingBenchmarkConfig:
    """Times whole training steps, data included, on this machine."""

    cache: Path
    """Clips to train on."""
    stages: tuple[Literal["landmark", "render"], ...] = ("landmark", "render")
    preset: Literal["lite", "paper"] = "lite"
    steps: int = 20
    """Steps that are timed."""
    batch: int | None = None
    """Samples of a step; without it, the preset's."""
    workers: int = 2
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    vgg: Path | None = None
    """VGG-19 weights for the render stage; without it, those in checkpoints/."""


def main(config: TrainingBenchmarkConfig) -> None:
    """Prints a table for each stage, as they come."""
    command_line.at_least(1, steps=config.steps)
    for stage in config.stages:
        rows = []
        for variant, changes in VARIANTS.items():
            with tempfile.TemporaryDirectory() as folder, redirect_stdout(None):  # the number of clips
                trainer = make_trainer(config, stage, Path(folder) / "run", changes)
            rows.append({"variant": variant, **measure(trainer, config.steps)})
        print(f"\n{stage}, {config.preset}, batch {trainer.config.batch}: {describe(trainer.engine.device)}")
        print(tabulate(rows, headers="keys", floatfmt=".3g"), flush=True)


def make_trainer(config: TrainingBenchmarkConfig, stage: str, run: Path, changes: dict[str, Any]) -> Trainer:
    """Makes the trainer of a stage; the render stage's trains all networks from the first step on."""
    script = SCRIPTS[stage]
    preset = script.PRESETS[config.preset]
    if stage == "render":
        changes = {**changes, "vgg": config.vgg, "alignment_steps": 0, "initial_motion_steps": 0}
    run_config = replace(
        preset,
        cache=config.cache,
        run=run,
        workers=config.workers,
        device=config.device,
        batch=config.batch or preset.batch,
        **changes,
    )
    [trainer] = script.trainers(run_config, Engine(run_config))
    return trainer


def measure(trainer: Trainer, steps: int) -> dict[str, float]:
    """Samples a second of the loop's own steps; shares of the time by phase; speed relative to a matrix product."""
    batches = trainer.batches()
    device = trainer.engine.device
    for _ in range(WARM_UP):
        trainer.train_step(next(batches))
    trainer.take_means()  # waits for the device
    start = time.perf_counter()
    for _ in range(steps):
        trainer.train_step(next(batches))
    trainer.take_means()
    rate = steps * trainer.config.batch / (time.perf_counter() - start)
    with profile() as profiler:
        with record_function("data"):
            parts = next(batches)
        with record_function("step"):
            trainer.train_step(parts)
    attribute = "device_time_total" if device.type == "cuda" else "cpu_time_total"
    times = {event.key: getattr(event, attribute) for event in profiler.key_averages()}
    backward = sum(time for key, time in times.items() if key.startswith("autograd::engine::evaluate_function"))
    optimiser = sum(time for key, time in times.items() if key.startswith("Optimizer.step"))
    row = {
        "samples/s": rate,
        "forward": 1 - (backward + optimiser) / times["step"],
        "backward": backward / times["step"],
        "optimiser": optimiser / times["step"],
    }
    if not trainer.config.compile:
        with FlopCounterMode(display=False) as counter:
            trainer.train_step(parts)
        operations = counter.get_total_flops() / trainer.config.batch
        row["GFLOP a sample"] = operations / 1e9
        row["relative rate"] = (
            operations * rate / matmul_rate(device, torch.bfloat16 if trainer.engine.half else torch.float32)
        )
    return row


if __name__ == "__main__":
    command_line.run(main, TrainingBenchmarkConfig, prog="python -m benchmarks.training")
