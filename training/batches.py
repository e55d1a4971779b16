"""Chooses the samples of each step's batch, as a function of the seed and the step."""

import itertools
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.config import TrainConfig
from training.engine import SIGNALS, Engine

Batch = dict[str, Any]  # tensors (B, ...), and "name": the clip of each sample
Scalars = dict[str, Tensor]  # losses and the like by name


def part_indices(length: int, config: TrainConfig, engine: Engine, first_step: int) -> Iterator[list[int]]:
    """Yields the sample indices of each part that this process computes, from step `first_step` on, without end."""
    indices = sample_indices(length, config, first_step * config.batch)
    while True:
        batch = list(itertools.islice(indices, config.batch))
        num_parts = engine.num_processes * config.accumulate
        for part in range(engine.rank, num_parts, engine.num_processes):
            yield batch[part::num_parts]


def sample_indices(length: int, config: TrainConfig, first: int) -> Iterator[int]:
    """Yields indices from sample number `first` on, as a function of the seed. Each epoch permutes the data.

    Indices keep counting from epoch to epoch (epoch = index // length).
    """
    while True:
        epoch, place = divmod(first, length)
        order = np.random.default_rng((config.seed, epoch)).permutation(length)
        yield from (epoch * length + order[place:]).tolist()
        first += length - place


def ignore_signals(_: int) -> None:
    """Makes a process that loads data ignore signals; the training process decides when to stop."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Moves the tensors of a batch to the device; other values stay as they are."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
