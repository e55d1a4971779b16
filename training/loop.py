"""The training loop of both scripts: batches, steps, reports, validation, checkpoints and stopping."""

import copy
import math
import multiprocessing
import sys
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Adam
from torch.utils.data import DataLoader, default_collate

from runtime.command_line import SettingError, UserError
from runtime.device import memory_gib, out_of_memory, wait
from training.batches import Batch, Scalars, ignore_signals, part_indices, to_device
from training.config import TrainConfig
from training.engine import Engine, update_average
from training.run_folder import RunFolder

SHOWN = 10  # every tenth validation example is shown in TensorBoard
Validation = tuple[dict[str, float], Callable[[], dict[str, Any]]]  # scores by name; a function that draws pictures


@dataclass
class Trainer(ABC):
    """Trains a network from the run's last checkpoint on. Subclasses define the training of a batch and validation."""

    network: Any
    """It is averaged, validated and exported. Others may join `networks`, and `optimiser` as a named group."""
    data: Any
    """A map-style dataset with the samples of an epoch."""
    examples: Sequence[Any]
    """Validation examples."""
    config: Any
    engine: Engine
    name = "network"
    warm_up_steps = 0  # number of first steps that train only a part of the network

    def __post_init__(self) -> None:
        device = self.engine.device
        self.network.to(device).train()
        self.run = RunFolder(self.config)
        self.networks = nn.ModuleDict({self.name: self.network})
        group = {"name": self.name, "params": self.network.parameters()}
        self.optimiser = Adam([group], fused=device.type == "cuda")
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.saved = {"networks": self.networks, "optimiser": self.optimiser, "average": self.average}
        self.step = 0
        self.best = math.inf
        self.unreported = []  # scalars since the last report: step, name, value, clips of the part of the batch

    @cached_property
    def parallel(self) -> nn.Module:
        """The network to call in training steps."""
        return self.engine.parallel(self.network)

    @abstractmethod
    def train_batch(self, batch: Batch) -> Scalars:
        """Runs the forward and backward passes of a batch, or of a part of one. Returns scalars by name."""

    @abstractmethod
    def validate(self, network: Any, example: Any) -> Validation:
        """Scores an example. The score "selection", else "L", picks the best network (lower is better).

        Also returns a function that draws pictures of the example; it is called for the few that are shown.
        """

    def export(self, network: Any, path: Path, about: dict[str, Any]) -> None:  # noqa: B027 (may do nothing)
        """Writes a weight file for others to load and records `about` in it; by default does nothing."""

    def write_video(self, network: Any, path: Path) -> None:  # noqa: B027 (may do nothing)
        """Writes an mp4 of what the network does, with sound; by default does nothing."""

    def fit(self) -> bool:
        """Trains until all steps are done, or a signal or the minutes stop it. Returns whether all steps are done.

        Raises:
            UserError: another training uses this run, the loss is not finite, or something cannot be written.
        """
        engine = self.engine
        config = self.config
        state = engine.from_main(self.run.open() if engine.is_main else None)
        if state["step"]:
            self._restore(state)
        engine.catch_signals()
        batches = self.batches()
        stop = self.step >= config.steps
        began = time.monotonic()
        if config.profile and not stop:  # these steps count like others
            with torch.profiler.profile() as profiler:
                for _ in range(min(3, config.steps - self.step - 1)):  # the loop below takes at least one step
                    self.train_step(next(batches))
            if engine.is_main:
                profiler.export_chrome_trace(str(self.run.path / "trace.json"))

        while not stop:
            # Train the networks on a batch, and average the weights.
            self.train_step(next(batches))

            # Decide whether to stop; all processes stop after the same step.
            interrupted, late = engine.from_main((bool(engine.signal), time.monotonic() > engine.deadline))
            stop = interrupted or late or self.step >= config.steps
            pause = stop or self.step % config.validate_every == 0

            # Report the means over the steps since the last report.
            if pause or self.step % config.log_every == 0:
                self._report(began)

                # Validate and export the averaged weights, and save everything that the next step depends on.
                if pause and engine.is_main:
                    if not interrupted or self.step >= config.steps:
                        self._validate()
                    states = {name: part.state_dict() for name, part in self.saved.items()}
                    self.run.save({"step": self.step, "best": self.best, **states})
                began = time.monotonic()

        if engine.is_main:
            self.run.close()
        is_done = self.step >= config.steps
        status = "done" if is_done else "stopped (the same command continues)"
        best = f"best {self.best:.5g}" if self.best < math.inf else "not validated yet"
        self.say(f"step {self.step}: {status}; {best}, see {self.run.path}")
        return is_done

    def batches(self) -> Iterator[list[Batch]]:
        """Yields this process's share of each batch from the current step on, in `accumulate` parts, without end."""
        loader = DataLoader(
            self.data,
            batch_sampler=part_indices(len(self.data), self.config, self.engine, self.step),  # type: ignore[arg-type]
            num_workers=self.config.workers,
            worker_init_fn=ignore_signals,
            pin_memory=self.engine.device.type == "cuda",
        )
        parts = iter(loader)
        while True:
            try:
                yield [to_device(next(parts), self.engine.device) for _ in range(self.config.accumulate)]
            except UserError as error:  # a worker's message starts with a traceback
                raise UserError(str(error).rpartition("UserError: ")[2].strip()) from None

    def train_step(self, parts: list[Batch]) -> None:
        """Takes one step on a batch in parts. Its randomness is a function of the seed, the step and the process."""
        key = (self.config.seed, self.step, self.engine.rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        for part in parts:
            self._keep(self.train_batch(part), part["name"])
        self._keep(self.engine.update(self.optimiser, self.step), [])
        self.step += 1
        update_average(self.average, self.network, self.config.decay_at(self.step))

    def dry_run(self) -> None:
        """Prints sizes, and estimates time and memory from two steps on few samples; writes nothing."""
        engine = self.engine
        config = self.config
        for name, network in self.networks.items():
            self.say(f"{name}: {sum(p.numel() for p in network.parameters()):,} parameters")
        self.say(f"{len(self.data)} samples, {len(self.data) / config.batch:.1f} steps per epoch")
        self.step = self.warm_up_steps
        memory = []
        for num_samples in (4, 8):
            batch = default_collate([self.data[index] for index in range(num_samples)])
            began = time.monotonic()
            self.train_step([to_device(batch, engine.device)])
            wait(engine.device)
            seconds = (time.monotonic() - began) / num_samples * engine.part_size * config.accumulate
            memory.append(memory_gib(engine.device))
        peak = memory[0] + (memory[1] - memory[0]) / 4 * (engine.part_size - 4)
        samples = f"{config.batch} samples, {engine.part_size} at a time"
        self.say(f"a step of {samples}: about {seconds:.3g} s, {peak:.2g} GiB per process")
        self.say(f"{config.steps} steps: about {seconds * config.steps / 3600:.3g} hours")

    def _restore(self, state: dict[str, Any]) -> None:
        """Restores everything that the next step depends on from a checkpoint."""
        try:
            for name, part in self.saved.items():
                part.load_state_dict(state[name])
        except (KeyError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise SettingError("run", f"{self.run.path} holds checkpoints of another network ({reason})") from error
        self.step = state["step"]
        self.best = state["best"]
        self.say(f"continuing {self.run.path} after step {self.step}")

    def _validate(self) -> None:
        """Validates the averaged weights and exports them, as the last ones and, where they are, as the best so far."""
        columns = defaultdict(list)
        pictures = {}
        for number, example in enumerate(self.examples):
            with torch.no_grad():
                scores, draw = self.validate(self.average, example)
            for name, score in scores.items():
                if math.isfinite(score):  # some scores are undefined where lips never close or move
                    columns[name].append(score)
            if number % SHOWN == 0:
                pictures |= draw()
        numbers = {name: float(np.mean(scores)) for name, scores in columns.items()}
        self.run.log(self.step, "validation", numbers, pictures)
        self.say(f"step {self.step} validation  {_line(numbers)}")
        self.write_video(self.average, self.run.path / f"{self.name}.mp4")
        about = {"step": self.step, "validation": numbers}
        self.export(self.average, self.run.path / f"{self.name}_last.safetensors", about)
        selection = numbers.get("selection", numbers.get("L", math.inf))
        if selection < self.best:
            self.best = selection
            self.export(self.average, self.run.path / f"{self.name}.safetensors", about)

    def _keep(self, scalars: Scalars, clips: list[str]) -> None:
        for name, value in scalars.items():
            self.unreported.append((self.step, name, value.detach().float(), clips))

    def _report(self, began: float) -> None:
        """Logs the means of all scalars since the last report, or since the time `began`.

        Raises:
            UserError: a scalar is not finite; the message names the clips of the first such step.
        """
        columns = defaultdict(list)
        for step, name, value, clips in self.unreported:
            if not value.isfinite():
                raise UserError(
                    f"step {step}: {name} is no longer finite; look at the clips ({', '.join(clips)}), "
                    "lower the learning rate or clip the gradients (clip-norm)"
                )
            columns[name].append(value)
        means = torch.stack([torch.stack(values).mean() for values in columns.values()])
        means = self.engine.mean_over_processes(means)
        numbers = dict(zip(columns, means.tolist(), strict=True))
        seconds = (time.monotonic() - began) / (self.step - self.unreported[0][0])
        self.unreported.clear()
        numbers["learning_rate"] = self.config.learning_rate_at(self.step - 1)
        numbers["samples_per_second"] = self.config.batch / seconds
        numbers["memory_gib"] = memory_gib(self.engine.device)
        if self.engine.is_main:
            self.run.log(self.step, "train", numbers, {})
        time_left = timedelta(seconds=round((self.config.steps - self.step) * seconds))
        self.say(f"step {self.step}  {_line(numbers)}  {time_left} left")

    def say(self, line: str) -> None:
        if self.engine.is_main:
            with suppress(OSError):  # a lost terminal must not end the run
                print(line, flush=True)


def train(trainers: Callable[[Any, Engine], Iterable[Trainer]], config: TrainConfig) -> None:
    """Runs the trainers of a script one after the other.

    Raises:
        UserError: as in `Trainer.fit`; also if the memory is too small or a process has died.
    """
    try:
        engine = Engine(config)
        run_in_turn(trainers(config, engine))
        engine.close()
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, torch.distributed.DistError) or "gloo" in str(error):
            raise UserError("another process of this training has ended; its own error message says why") from error
        if "DataLoader worker" in str(error):  # killed: too little memory for what it loads
            raise SettingError("workers", f"{error}; use fewer of them, or a smaller batch") from error
        if out_of_memory(error):
            device = config.device.replace("auto", "this machine")
            raise SettingError(
                "batch",
                f"{config.batch} does not fit into the memory of {device}; use a smaller one, split it into parts "
                "(accumulate), or choose a smaller model",
            ) from error
        raise
    finally:
        for worker in multiprocessing.active_children():  # they ignore the signals that end this process
            with suppress(RuntimeError):  # PyTorch's handler of SIGCHLD reports each death
                worker.kill()
                worker.join()
    if engine.signal:
        sys.exit(128 + engine.signal)


def run_in_turn(trainers: Iterable[Trainer]) -> None:
    """Runs one trainer after the other, until one of them stops early."""
    for trainer in trainers:
        if trainer.config.dry_run:
            trainer.dry_run()
        elif not trainer.fit():
            break


def _line(numbers: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
