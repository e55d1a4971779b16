"""A training run without faces for the tests of the loop: a small network with dropout fits made-up numbers.

Run as a program it trains in a folder and, when told to, kills itself: python -m tests.training.toy RUN [WHEN]
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from runtime.command_line import UserError, fail
from training.config import TrainConfig
from training.engine import Engine
from training.loop import Trainer, Validation, run_in_turn

STEPS = 12


class Numbers(Dataset[dict[str, Any]]):
    """Item i is a function of i alone; item `broken` holds a NaN."""

    def __init__(self, broken: int | None = None) -> None:
        self.broken = broken

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Any]:
        x = torch.from_numpy(np.random.default_rng(index).normal(size=16)).float()
        y = x[:4] * (float("nan") if index % 8 == self.broken else 2)
        return {"x": x, "y": y, "name": f"clip{index % 8}"}


class ToyTrainer(Trainer):
    name = "toy"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.selections: list[float] = []  # scores that validation returns in turn; the last one repeats
        self.exported: list[int] = []

    def train_batch(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        with self.engine.autocast():
            output = self.parallel(batch["x"])
        loss = (output.float() - batch["y"]).square().mean()
        self.engine.backward(loss)
        return {"L": loss}

    def validate(self, network: nn.Module, example: Any) -> Validation:
        if len(self.selections) > 1:
            return {"selection": self.selections.pop(0)}, lambda: {}
        selection = self.selections[0] if self.selections else float(sum(p.abs().sum() for p in network.parameters()))
        return {"selection": selection}, lambda: {"picture": np.zeros((3, 4, 4), np.uint8)}

    def export(self, network: nn.Module, path: Path, about: dict[str, Any]) -> None:
        if path.name == "toy.safetensors":
            self.exported.append(about["step"])


def path_of(checkpoints: Path, step: int) -> Path:
    return checkpoints / f"step_{step:09d}.pt"


def toy_trainer(
    run: Path, broken: int | None = None, dropout: float = 0.3, engine: Engine | None = None, **settings: Any
) -> ToyTrainer:
    config = TrainConfig(**{
        "cache": run, "run": run, "batch": 4, "steps": STEPS, "workers": 0, "log_every": 1, "validate_every": 2,
        "learning_rate": 1e-2, "ema": 0.9, "device": "cpu", "precision": "fp32", **settings,
    })  # fmt: skip
    engine = engine or Engine(config)
    network = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 4))
    return ToyTrainer(network, Numbers(broken), [{}], config, engine)


def disturbed_trainer(run: Path, when: str = "", settings: str = "{}") -> ToyTrainer:
    trainer = toy_trainer(run, workers=int(when == "wait"), **json.loads(settings))
    step, replace = trainer.train_step, os.replace
    if when == "step":  # in the middle of the run, between two checkpoints

        def train_step(batch: Any) -> None:
            step(batch)
            if trainer.step == 5:
                os.kill(os.getpid(), signal.SIGKILL)

        trainer.train_step = train_step  # type: ignore[method-assign]
    if when == "save":  # with the third checkpoint written but not yet in its place

        def killing_replace(source: Any, target: Any) -> None:
            if str(target).endswith("step_000000006.pt"):
                os.kill(os.getpid(), signal.SIGKILL)
            replace(source, target)

        os.replace = killing_replace
    if when == "term":  # in the middle of a step

        def terminated(batch: Any) -> None:
            if trainer.step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0)
            step(batch)

        trainer.train_step = terminated  # type: ignore[method-assign]
    if when == "wait":  # in the middle of the run, until killed

        def waiting(batch: Any) -> None:
            step(batch)
            if trainer.step == 6:
                time.sleep(60)

        trainer.train_step = waiting  # type: ignore[method-assign]
    return trainer


def main(arguments: list[str]) -> None:
    trainers = [disturbed_trainer(Path(arguments[0]), *arguments[1:])]
    engine = trainers[0].engine
    run_in_turn(trainers.pop() for _ in range(1))
    engine.close()
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]  # none but on Linux
    assert not [name for name in threads if "gloo" in name], threads  # they could crash the process when it exits


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        fail(str(error))
