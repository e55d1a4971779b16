"""Which samples make a step's batch, a function of the seed and the step."""

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
    """Indices of the samples of one part after the other."""
    indices = sample_indices(length, config, first_step * config.batch)
    while True:
        batch = list(itertools.islice(indices, config.batch))
        num_parts = engine.num_processes * config.accumulate
        for part in range(engine.rank, num_parts, engine.num_processes):
            yield batch[part::num_parts]


def sample_indices(length: int, config: TrainConfig, first: int) -> Iterator[int]:
    """Indices from the sample number `first` on, a function of the seed: each epoch is a permutation of the data.

    Indices go on counting from epoch to epoch (epoch = index // length).
    """
    while True:
        epoch, place = divmod(first, length)
        order = np.random.default_rng((config.seed, epoch)).permutation(length)
        yield from (epoch * length + order[place:]).tolist()
        first += length - place


def ignore_signals(_: int) -> None:
    """In a process that loads data: the main process decides when to stop."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on the device; names and such stay."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in batch.items()
    }
