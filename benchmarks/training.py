"""python -m benchmarks.training: samples a second of both training loops, and where the time goes."""

import runtime.threads  # isort: skip  # noqa: F401 (before PyTorch)

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

import train_landmark
import train_render
from runtime import command_line
from runtime.device import wait
from training.engine import Engine
from training.loop import Trainer

STAGES = {"landmark": train_landmark, "render": train_render}
VARIANTS: dict[str, dict[str, Any]] = {
    "fp32 eager": {"precision": "fp32"}, "as shipped": {}, "with --compile": {"compile": True},
}  # fmt: skip
WARM_UP = 3  # steps before the clock starts: compilation, the choice of kernels, the first loaded batches


@dataclass(frozen=True)
class Config:
    """Times whole training steps, data included, on this machine."""

    cache: Path
    """Clips to train on."""
    stages: tuple[Literal["landmark", "render"], ...] = ("landmark", "render")
    preset: Literal["lite", "paper"] = "lite"
    steps: int = 20
    """Steps that are timed."""
    batch: int | None = None
    """Samples a step, if not the preset's."""
    workers: int = 2
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    vgg: Path | None = None


class Phases:
    """Seconds by phase, without the phases inside it. The device is waited for at every change."""

    def __init__(self, trainer: Trainer) -> None:
        self.device, self.current, self.mark = trainer.engine.device, "other", time.perf_counter()
        self.seconds: dict[str, float] = defaultdict(float)
        engine: Any = trainer.engine
        autocast = engine.autocast

        @contextmanager
        def forward() -> Iterator[None]:
            with self.phase("forward"), autocast():
                yield

        engine.autocast, engine.backward = forward, self.phase("backward")(engine.backward)
        engine.update = self.phase("optimiser")(engine.update)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        outer = self.switch(name)
        yield
        self.switch(outer)

    def switch(self, name: str) -> str:
        wait(self.device)
        now, before = time.perf_counter(), self.current
        self.seconds[before] += now - self.mark
        self.mark, self.current = now, name
        return before


def run(trainer: Trainer, steps: int, phases: Phases | None = None) -> float:
    """Seconds of the loop's own steps after a warm-up."""
    parts, take = trainer.batches(), phases.phase("data")(next) if phases else next
    for _ in range(WARM_UP):
        trainer.train_step(take(parts))
    if phases:
        phases.switch("other")
        phases.seconds.clear()
    wait(trainer.engine.device)
    began = time.perf_counter()
    for _ in range(steps):
        trainer.train_step(take(parts))
    trainer.take_means()  # waits for the device
    return time.perf_counter() - began


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP a second of a large matrix product."""
    side = 1024 if device.type == "cpu" else 8192
    square = torch.ones(side, side, device=device, dtype=dtype)
    timer = Timer("a @ a", globals={"a": square}, num_threads=torch.get_num_threads())
    return 2 * side**3 / timer.blocked_autorange().median


def main(config: Config) -> None:
    """Prints a line for each stage and variant, as they come."""
    command_line.at_least(1, steps=config.steps)
    for stage in config.stages:
        script = STAGES[stage]
        preset = script.PRESETS[config.preset]
        settings: dict[str, Any] = {"cache": config.cache, "workers": config.workers, "device": config.device}
        settings["batch"] = config.batch or preset.batch
        if stage == "render":
            settings |= {"vgg": config.vgg, "alignment_steps": 0, "initial_motion_steps": 0}
        flops = first = 0.0
        for variant, changes in VARIANTS.items():
            with tempfile.TemporaryDirectory() as folder, redirect_stdout(None):  # how many clips there are
                run_config = replace(preset, run=Path(folder) / "run", **{**settings, **changes})
                [trainer] = script.trainers(run_config, Engine(run_config))
            batch, device = trainer.config.batch, trainer.engine.device
            if not flops:
                with FlopCounterMode(display=False) as counter:
                    trainer.train_step(next(trainer.batches()))
                flops = counter.get_total_flops() / batch
                print(f"{stage}, {config.preset}, batch {batch}, {device}: {flops / 1e9:.3g} GFLOP a sample")
            rate = config.steps * batch / run(trainer, config.steps)
            first = first or rate
            phases = Phases(trainer)
            total = run(trainer, config.steps, phases)
            shares = "  ".join(f"{phase} {seconds / total:.0%}" for phase, seconds in phases.seconds.items())
            peak = matmul_peak(device, torch.bfloat16 if trainer.engine.half else torch.float32)
            print(f"  {variant:14} {rate:.3g} samples/s, x {rate / first:.2f}: {shares}; ", end="")
            print(f"{flops * rate / peak:.1%} of a matrix product's {peak / 1e12:.3g} TFLOP/s", flush=True)


if __name__ == "__main__":
    command_line.run(main, Config, prog="python -m benchmarks.training")
