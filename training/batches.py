"""Which samples make a step's batch, and how they get to the device: a function of the seed and the step."""

import functools
import itertools
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from runtime.command_line import UserError
from training.config import TrainConfig
from training.engine import SIGNALS, Engine

Batch = dict[str, Any]  # tensors (B, ...), and "name": the clip of each sample


def load_batches(data: Dataset[Any], config: TrainConfig, engine: Engine, first_step: int) -> Iterator[list[Batch]]:
    """This process's share of each step's batch, in `accumulate` parts, on the device: without end."""
    loader = DataLoader(
        data,
        batch_sampler=part_indices(len(data), config, engine, first_step),  # type: ignore[arg-type]
        num_workers=config.workers,
        worker_init_fn=_ignore_signals,
        pin_memory=engine.device.type == "cuda",
    )
    parts = iter(loader)
    while True:
        try:
            yield [to_device(next(parts), engine.device) for _ in range(config.accumulate)]
        except UserError as error:  # from a worker it comes with a traceback in front
            line = str(error).strip().splitlines()[-1]
            raise UserError(line.removeprefix("runtime.command_line.UserError: ")) from None


def part_indices(length: int, config: TrainConfig, engine: Engine, first_step: int) -> Iterator[list[int]]:
    """Indices of the samples of one part after the other."""
    part_size = config.batch // (engine.num_processes * config.accumulate)
    for step in itertools.count(first_step):
        share = indices_of(step, length, config)[engine.rank :: engine.num_processes]
        for start in range(0, len(share), part_size):
            yield share[start : start + part_size]


def _ignore_signals(_: int) -> None:
    """In a process that loads data: the main process decides when to stop."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def indices_of(step: int, length: int, config: TrainConfig) -> list[int]:
    """A step's batch of `length` samples, a function of the seed: epoch after epoch, each a permutation of the data.

    Indices go on counting from epoch to epoch (epoch = index // length). `overfit` takes the same few samples again and
    again.
    """
    positions = range(step * config.batch, (step + 1) * config.batch)
    if config.overfit:
        return [position % config.overfit for position in positions]
    indices = []
    for position in positions:
        epoch, place = divmod(position, length)
        indices.append(epoch * length + int(_order(config.seed, epoch, length)[place]))
    return indices


@functools.lru_cache(maxsize=2)  # a batch may begin in one epoch and end in the next
def _order(seed: int, epoch: int, length: int) -> np.ndarray:
    """The permutation of an epoch."""
    return np.random.default_rng((seed, epoch)).permutation(length)


def spread(length: int, count: int) -> list[int]:
    """At most `count` indices, evenly over `length`."""
    if length == 0:
        return []
    return sorted({i * length // count for i in range(count)})


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on the device; names and such stay."""
    moved = {}
    for name, value in batch.items():
        moved[name] = value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
    return moved
