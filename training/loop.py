"""The training loop of both scripts: samples in order, steps, reports, validation, checkpoints, reasons to stop."""

import contextlib
import math
import multiprocessing
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from runtime.command_line import SettingError, UserError
from runtime.device import memory_gib, out_of_memory
from training import checkpoint
from training.batches import Batch, load_batches, to_device
from training.config import Config, TrainConfig
from training.engine import Engine, MovingAverage, lost_another
from training.run_folder import RunFolder

PROGRESS = ("step", "best", "best_step")  # attributes of a Trainer that a checkpoint holds


class Stage(ABC):
    """What a script gives to `Trainer`: networks, and how they are trained and validated."""

    name: str  # of the averaged network
    warm_up_steps = 0  # steps at the start that train a part of the network

    def __init__(self, network: nn.Module, engine: Engine, examples: list[Batch]) -> None:
        """`network` is averaged, validated on the `examples` and exported; others may be added to `networks`."""
        self.engine = engine
        self.examples = examples
        self.network = network.to(engine.device)
        if engine.config.compile:
            network.compile()
        self.networks = {self.name: network}
        self.optimisers = {self.name: engine.adam(network)}

    @abstractmethod
    def train_step(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Forward and backward passes of a batch, or of each part of it. Returns scalars by name."""

    @abstractmethod
    def validate(self, network: nn.Module) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Scalars by name, of which "selection" (lower is better) picks the best; pictures for TensorBoard."""

    @abstractmethod
    def export(self, network: Any, path: Path, about: dict[str, Any]) -> None:
        """Writes the weights that others load, and what there is to say about them."""


class Trainer:
    """Trains a stage from the run's last checkpoint on.

    Raises:
        SettingError: the data cannot fill a batch, or the batch cannot be shared out.
    """

    def __init__(self, stage: Stage, data: Dataset[Any], config: TrainConfig, run: RunFolder) -> None:
        self.stage = stage
        self.data = data
        self.config = config
        self.run = run
        self.engine = stage.engine
        self.length = len(data)  # type: ignore[arg-type]
        self.epoch_steps = (config.overfit or self.length) / config.batch
        self.part_size, remainder = divmod(config.batch, self.engine.num_processes * config.accumulate)
        if remainder:
            shares = f"{self.engine.num_processes} processes and {config.accumulate} accumulated parts"
            raise SettingError("batch", f"{config.batch} cannot be shared evenly by {shares}")
        if config.batch > self.length and not config.overfit and not config.dry_run:
            raise SettingError(
                "batch",
                f"{config.batch} is more than the {self.length} training samples of an epoch; use a smaller batch, or "
                f"draw more samples from the same clips (sampling.samples-per-epoch {config.batch})",
            )
        for network in stage.networks.values():
            network.train()
        self.average = MovingAverage(stage.network, config.ema, is_trained=config.init is not None)
        self.step = 0
        self.best = math.inf
        self.best_step = 0
        self.unreported: list[tuple[int, dict[str, Tensor], list[str]]] = []  # step, losses and clips of each part
        self.report_began = time.monotonic()

    @property
    def is_done(self) -> bool:
        return self.step >= self.config.steps

    def fit(self) -> bool:
        """Trains until the steps are done, or until a signal or the minutes stop it earlier. Returns which.

        Raises:
            UserError: another training is at work in this run, the loss is no number or something cannot be written.
        """
        engine = self.engine
        if engine.is_main:
            self.run.lock()
        self._restore()
        if engine.is_main:
            self.run.open(self.step)
        engine.catch_signals()
        batches = self.batches()
        self.report_began = time.monotonic()
        stop = self.is_done

        while not stop:
            # Train the networks on a batch, and average the weights.
            self.train_step(next(batches))

            # Stop? All processes do so after the same step.
            interrupted, late = engine.on_any_process(engine.signal is not None, engine.is_late())
            stop = interrupted or late or self.is_done
            pause = stop or self.step % self.config.validate_every == 0

            # Report the means over the steps since the last report.
            if pause or self.step % self.config.log_every == 0:
                self._report()

            # Validate and export the averaged weights.
            if pause and engine.is_main and not interrupted:
                self._validate()

            # Save everything that the next step depends on.
            if pause and engine.is_main:
                self._save()
            if pause:
                self.report_began = time.monotonic()

        if engine.is_main:
            self.run.close()
        best = f"best {self.best:.5g}" if self.best < math.inf else "not validated yet"
        status = "done" if self.is_done else "stopped, the same command continues"
        self._say(f"step {self.step}: {status}; {best}, see {self.run.path}")
        return self.is_done

    def batches(self) -> Iterator[list[Batch]]:
        """This process's share of each batch, in parts, from the current step on."""
        return load_batches(self.data, self.config, self.engine, self.step)

    def train_step(self, parts: list[Batch]) -> None:
        """One step, on a batch in parts; its randomness is a function of the seed, the step and the process."""
        key = (self.config.seed, self.step, self.engine.rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        stage_step = self.stage.warm_up_steps if self.config.dry_run else self.step  # a dry run is not of the warm-up
        for number, part in enumerate(parts, start=1):
            self.engine.exchange_gradients(number == len(parts))
            losses = self.stage.train_step(part, stage_step)
            losses = {name: value.detach().float() for name, value in losses.items()}
            self.unreported.append((self.step, losses, part["name"]))
        for name, network in self.stage.networks.items():
            if any(parameter.grad is not None for parameter in network.parameters()):  # else it is not trained yet
                norm = self.engine.update(self.stage.optimisers[name], self.step)
                self.unreported.append((self.step, {f"{name}_gradient_norm": norm}, []))
        self.step += 1
        self.average.update(self.step)

    def take_means(self) -> dict[str, float]:
        """Means of the losses over the steps since the last call: read together, as a GPU has to wait for each look.

        Raises:
            UserError: one of them is not finite; the message names the clips of the first such step.
        """
        columns: dict[str, list[Tensor]] = {}
        for _, losses, _ in self.unreported:
            for name, value in losses.items():
                columns.setdefault(name, []).append(value)
        means = torch.stack([torch.stack(values).mean() for values in columns.values()]).tolist()
        if not np.isfinite(means).all():
            self._name_the_clips()
        self.unreported.clear()
        return dict(zip(columns, means, strict=True))

    def _name_the_clips(self) -> None:
        for step, losses, clips in self.unreported:
            for name, value in losses.items():
                if not value.isfinite():
                    raise UserError(
                        f"step {step}: {name} is no longer a finite number; look at the clips ({', '.join(clips)}), "
                        "lower the learning rate or clip the gradients (clip-norm)"
                    )

    def dry_run(self) -> None:
        """Prints sizes, and the time and memory of all steps, estimated from steps of few samples; writes nothing."""
        for name, network in self.stage.networks.items():
            self._say(f"{name}: {sum(p.numel() for p in network.parameters()):,} parameters")
        epochs = self.config.steps / self.epoch_steps
        self._say(f"{self.length} samples an epoch, {self.epoch_steps:.1f} steps; {epochs:.1f} epochs in all")
        few = min(4, self.part_size)
        more = min(8, self.part_size)
        _, memory_of_few = self._try(few)
        seconds, memory = self._try(more)
        memory += (memory - memory_of_few) / max(1, more - few) * (self.part_size - more)
        seconds *= self.part_size / more * self.config.accumulate
        parts = f" in {self.config.accumulate} parts" if self.config.accumulate > 1 else ""
        hours = seconds * self.config.steps / 3600
        self._say(f"a step of {self.config.batch} samples{parts}: about {seconds:.3g} s, {memory:.2g} GiB a process")
        self._say(f"{self.config.steps} steps: about {hours:.3g} hours")

    def _try(self, num_samples: int) -> tuple[float, float]:
        """Seconds and peak memory in GiB of a step on so many samples."""
        batch = default_collate([self.data[index] for index in range(num_samples)])
        began = time.monotonic()
        self.train_step([to_device(batch, self.engine.device)])
        self.take_means()  # waits for the device
        return time.monotonic() - began, memory_gib(self.engine.device)

    def _restore(self) -> None:
        """Takes everything that the next step depends on from the last checkpoint, or from the main process."""
        state = checkpoint.load_latest(self.run.checkpoints) if self.engine.is_main else None
        state = self.engine.from_main(state)
        if not state:
            return
        try:
            for name, network in self.stage.networks.items():
                network.load_state_dict(state["networks"][name])
                self.stage.optimisers[name].load_state_dict(state["optimisers"][name])
            self.average.module.load_state_dict(state["average"])
            for name in PROGRESS:
                setattr(self, name, state[name])
        except (KeyError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[-1].strip()
            message = f"checkpoints in {self.run.path} are of another configuration ({reason})"
            raise SettingError("run", message) from error
        self._say(f"continuing {self.run.path} after step {self.step}")

    def _save(self) -> None:
        state: dict[str, Any] = {name: getattr(self, name) for name in PROGRESS}
        state["networks"] = {name: network.state_dict() for name, network in self.stage.networks.items()}
        state["optimisers"] = {name: optimiser.state_dict() for name, optimiser in self.stage.optimisers.items()}
        state["average"] = self.average.module.state_dict()
        checkpoint.save(self.run.checkpoints, state, self.config.keep)

    def _validate(self) -> None:
        """Validates and exports the averaged weights: the last ones, and the best so far."""
        network = self.average.module
        with torch.no_grad():
            numbers, pictures = self.stage.validate(network)
        self.run.log(self.step, numbers, "validation")
        self.run.show(self.step, pictures)
        self._say(f"step {self.step} validation  {_line(numbers)}")
        about = {"step": self.step, "validation": numbers, "validated_on": len(self.stage.examples)}
        self.stage.export(network, self.run.path / f"{self.stage.name}_last.safetensors", about)
        if numbers["selection"] < self.best:
            self.best = numbers["selection"]
            self.best_step = self.step
            self.stage.export(network, self.run.path / f"{self.stage.name}.safetensors", about)

    def _report(self) -> None:
        num_steps = self.step - self.unreported[0][0]
        losses = self.take_means()  # waits for the device
        means = self.engine.mean_over_processes(torch.tensor(list(losses.values()), device=self.engine.device))
        seconds = max(1e-9, time.monotonic() - self.report_began)
        numbers = dict(zip(losses, means.tolist(), strict=True))
        numbers["learning_rate"] = self.config.learning_rate_at(self.step - 1)
        numbers["samples_per_second"] = num_steps * self.config.batch / seconds
        numbers["epoch"] = self.step / self.epoch_steps
        numbers["memory_gib"] = memory_gib(self.engine.device)
        if self.engine.is_main:
            self.run.log(self.step, numbers, "train")
        seconds_left = (self.config.steps - self.step) * seconds / num_steps
        self._say(f"step {self.step}  {_line(numbers)}  {timedelta(seconds=round(seconds_left))} left")
        self.report_began = time.monotonic()

    def _say(self, line: str) -> None:
        if self.engine.is_main:
            with contextlib.suppress(OSError):  # a lost terminal is no reason to lose the run
                print(line, flush=True)


def train(trainers: Callable[[Config, Engine], Iterable[Trainer]], config: Config) -> None:
    """Runs the trainers of a script one after the other.

    Raises:
        UserError: as `Trainer` does, and if the memory is too small or a process is lost.
    """
    try:
        engine = Engine(config)
        run_in_turn(trainers(config, engine))
        engine.close()
    except (MemoryError, RuntimeError) as error:
        if lost_another(error):
            raise UserError("another process of this training has ended; its own line says why") from error
        if "DataLoader worker" in str(error):  # killed: too little memory for what it loads
            raise SettingError("workers", f"{error}; use fewer of them, or a smaller batch") from error
        if out_of_memory(error):
            device = config.device.replace("auto", "this machine")
            remedy = "use a smaller one, cut it into parts (accumulate), or choose a smaller model"
            raise SettingError("batch", f"{config.batch} does not fit into the memory of {device}; {remedy}") from error
        raise
    finally:
        end_workers()
    if engine.signal == signal.SIGINT:  # as other commands end: a script must not go on with its next line
        raise KeyboardInterrupt
    if engine.signal:
        sys.exit(128 + engine.signal)


def run_in_turn(trainers: Iterable[Trainer]) -> None:
    """Runs one trainer after the other, until one stops early."""
    for trainer in trainers:
        if trainer.config.dry_run:
            trainer.dry_run()
        elif not trainer.fit():
            break


def end_workers() -> None:
    """Ends the processes that load data: they ignore the signals by which the end of this process would end them."""
    for worker in multiprocessing.active_children():
        with contextlib.suppress(RuntimeError):  # PyTorch's handler of SIGCHLD reports each end
            worker.kill()
            worker.join()


def _line(numbers: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
