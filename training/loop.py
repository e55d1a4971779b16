"""The training loop of both scripts: samples in order, steps, reports, validation, checkpoints, reasons to stop."""

import contextlib
import math
import multiprocessing
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from runtime.command_line import SettingError, UserError
from runtime.device import memory_gib, out_of_memory
from training import checkpoint
from training.batches import Batch, Batches, to_device
from training.config import Config, TrainConfig
from training.engine import Engine, MovingAverage, lost_another
from training.run_folder import RunFolder

MIN_LOSS_SCALE = 2**-4  # of fp16, which begins at 2**16: below it, the scale is not what makes gradients infinite


class Stage(ABC):
    """What a script gives to `Trainer`: networks, and how they are trained and validated."""

    name: str  # of the averaged network
    warm_up_steps = 0  # steps before what validation looks at is trained: they do not count towards patience

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
    def export(self, network: Any, folder: Path, about: dict[str, Any]) -> None:
        """Writes the weights that others load into the run's folder, and what there is to say about them."""


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
        if config.overfit > self.length:
            raise SettingError("overfit", f"{config.overfit} is more than the {self.length} training samples")
        if config.batch > self.length and not config.overfit and not config.dry_run:
            raise SettingError(
                "batch",
                f"{config.batch} is more than the {self.length} training samples of an epoch; use a smaller batch, or "
                f"draw more samples from the same clips (--sampling.samples-per-epoch {config.batch})",
            )
        for network in stage.networks.values():
            network.train()
        self.average = MovingAverage(stage.network, config.ema, is_trained=config.init is not None)
        self.step = 0
        self.best = math.inf
        self.best_step = 0
        self.stale_validations = 0
        self.unreported: list[tuple[dict[str, Tensor], list[str]]] = []  # of each step since a report: losses, clips
        self.report_began = time.monotonic()

    @property
    def is_out_of_patience(self) -> bool:
        return 0 < self.config.patience <= self.stale_validations

    @property
    def is_done(self) -> bool:
        return self.step >= self.config.steps or self.is_out_of_patience

    def fit(self) -> bool:
        """Trains until the steps or the patience are used up, or until a signal or the minutes stop it earlier.

        Returns whether the stage is done.

        Raises:
            UserError: another training is at work in this run, the loss is no number or something cannot be written.
        """
        config = self.config
        engine = self.engine
        if engine.is_main:
            self.run.lock()
        self._restore()
        if engine.is_main:
            self.run.open(self.step)
        engine.catch_signals()
        self.report_began = time.monotonic()
        batches = self.batches()
        stop = self.is_done

        while not stop:
            # Train the networks on one batch, and average the weights.
            self.train_step(next(batches))

            # Stop? All processes do so after the same step.
            interrupted, late = engine.on_any_process(engine.signal is not None, engine.is_late())
            stop = interrupted or late or self.is_done
            pause = stop or self.step % config.validate_every == 0

            # Report the means over the steps since the last report.
            if pause or self.step % config.log_every == 0:
                self._report(batches)

            # Validate the averaged weights; export them if they are the best so far.
            if pause and engine.is_main and not interrupted:
                self._validate()

            # Save everything that the next step depends on.
            if pause and engine.is_main:
                self._save()
            if pause:
                [out_of_patience] = engine.on_any_process(self.is_out_of_patience)
                stop = stop or out_of_patience
                self.report_began = time.monotonic()

        if engine.is_main:
            self.run.close()
        self._say_why_it_ends()
        return self.is_done

    def batches(self) -> Batches:
        """This process's share of each batch, from the current step on."""
        return Batches(self.data, self.config, self.engine, self.step)

    def train_step(self, parts: list[Batch]) -> None:
        """One step, on a batch in parts; its randomness is a function of the seed, the step and the process."""
        key = (self.config.seed, self.step, self.engine.rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        stage_step = self.stage.warm_up_steps if self.config.dry_run else self.step  # a dry run is not of the warm-up
        losses_of_parts = []
        for number, part in enumerate(parts, start=1):
            self.engine.exchange_gradients(number == len(parts))
            losses_of_parts.append(self.stage.train_step(part, stage_step))
        losses = {}
        for name in losses_of_parts[0]:
            losses[name] = torch.stack([part[name].detach().float() for part in losses_of_parts]).mean()
        for name, network in self.stage.networks.items():
            if any(parameter.grad is not None for parameter in network.parameters()):  # else it is not trained yet
                prefix = "" if network is self.stage.network else f"{name}_"
                losses[f"{prefix}gradient_norm"] = self.engine.update(self.stage.optimisers[name], self.step)
        self.engine.scaler.update()
        self.unreported.append((losses, [name for part in parts for name in part["name"]]))
        self.step += 1
        self.average.update(self.step)

    def take_means(self) -> dict[str, float]:
        """Means of the losses over the steps since the last call: read together, as a GPU has to wait for each look.

        Raises:
            UserError: one of them is not finite; the clips of the first such step are written to a file.
        """
        steps = self.unreported
        self.unreported = []
        values = iter(torch.stack([value for losses, _ in steps for value in losses.values()]).tolist())
        columns: dict[str, list[float]] = {}
        for step, (losses, clips) in enumerate(steps, start=self.step - len(steps)):
            numbers = {name: next(values) for name in losses}
            not_finite = [name for name, value in numbers.items() if not math.isfinite(value)]
            if not not_finite:
                for name, value in numbers.items():
                    columns.setdefault(name, []).append(value)
            elif not self.engine.scaler.is_enabled() or self.engine.scaler.get_scale() < MIN_LOSS_SCALE:
                file = self.run.write_failure(step, self.engine.rank, clips, numbers)
                raise UserError(
                    f"step {step}: {', '.join(not_finite)} is no longer a finite number; its clips are listed in "
                    f"{file}; look at them, lower the learning rate or clip the gradients (clip-norm)"
                )
        return {name: sum(column) / len(column) for name, column in columns.items()}

    def dry_run(self) -> None:
        """Prints sizes, and time and memory of a step on few samples and on a part of the batch; writes nothing."""
        for name, network in self.stage.networks.items():
            self._say(f"{name}: {sum(p.numel() for p in network.parameters()):,} parameters")
        epochs = self.config.steps / self.epoch_steps
        self._say(f"{self.length} samples an epoch, {self.epoch_steps:.1f} steps; {epochs:.1f} epochs in all")
        if self.part_size > 8:  # say what a step needs before it may be too much
            samples = [self.data[i] for i in range(4)]
            memory_2 = self._try([to_device(default_collate(samples[:2]), self.engine.device)])
            memory_4 = self._try([to_device(default_collate(samples), self.engine.device)])
            needed = memory_4 + (memory_4 - memory_2) / 2 * (self.part_size - 4)
            self._say(f"a step of {self.part_size} samples will need about {needed:.1f} GiB")
        parts = next(self.batches())
        for _ in range(2):  # the second time it is warm
            self._try(parts)

    def _try(self, parts: list[Batch]) -> float:
        """Prints time and memory of a step; returns the memory in GiB."""
        began = time.monotonic()
        self.train_step(parts)
        numbers = self.take_means()  # waits for the device
        seconds = time.monotonic() - began
        memory = memory_gib(self.engine.device)
        size = f"{len(parts[0]['name'])} samples"
        if len(parts) > 1:
            size = f"{len(parts)} parts of {size}"
        self._say(f"a step of {size}: {seconds:.2f} s, {memory:.2f} GiB at most: {_line(numbers)}")
        return memory

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
            if state["scaler"]:  # else of a run in another precision
                self.engine.scaler.load_state_dict(state["scaler"])
            self.step = state["step"]
            self.best = state["best"]
            self.best_step = state["best_step"]
            self.stale_validations = state["stale"]
        except (KeyError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise SettingError(
                "run", f"checkpoints in {self.run.path} are of another configuration ({reason})"
            ) from error
        self._say(f"continuing {self.run.path} after step {self.step}")

    def _save(self) -> None:
        state = {
            "step": self.step,
            "best": self.best,
            "best_step": self.best_step,
            "stale": self.stale_validations,
            "networks": {name: network.state_dict() for name, network in self.stage.networks.items()},
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.stage.optimisers.items()},
            "average": self.average.module.state_dict(),
            "scaler": self.engine.scaler.state_dict(),
        }
        checkpoint.save(self.run.checkpoints, state, self.config.keep)

    def _validate(self) -> None:
        """Validates the averaged weights, and exports them if they are the best so far."""
        with torch.no_grad():
            numbers, pictures = self.stage.validate(self.average.module)
        self.run.log(self.step, numbers, "validation")
        self.run.show(self.step, pictures)
        self._say(f"step {self.step} validation  {_line(numbers)}")
        if self.step > self.stage.warm_up_steps:
            self.stale_validations += 1
        if numbers["selection"] < self.best:
            self.best = numbers["selection"]
            self.best_step = self.step
            self.stale_validations = 0
            about = {"step": self.step, "validation": numbers, "validated_on": len(self.stage.examples)}
            self.stage.export(self.average.module, self.run.path, about)

    def _report(self, batches: Batches) -> None:
        num_samples = len(self.unreported) * self.config.batch
        losses = self.take_means()  # waits for the device
        means = self.engine.mean_over_processes(torch.tensor(list(losses.values()), device=self.engine.device))
        seconds = max(1e-9, time.monotonic() - self.report_began)
        numbers = dict(zip(losses, means.tolist(), strict=True))
        numbers["learning_rate"] = self.config.learning_rate_at(self.step - 1)
        numbers["samples_per_second"] = num_samples / seconds
        numbers["waiting_for_data"] = batches.seconds_waited / seconds
        numbers["epoch"] = self.step / self.epoch_steps
        numbers["memory_gib"] = memory_gib(self.engine.device)
        if self.engine.is_main:
            self.run.log(self.step, numbers, "train")
        self._say(f"step {self.step}  {_line(numbers)}")
        self.report_began = time.monotonic()
        batches.seconds_waited = 0.0

    def _say_why_it_ends(self) -> None:
        best = f"best {self.best:.5g}" if self.best < math.inf else "not validated yet"
        reason = "stopped"
        if self.engine.signal:
            reason = f"stopped by {self.engine.signal.name}"
        if self.is_out_of_patience:
            reason = f"nothing better in {self.stale_validations} validations"
        if self.step >= self.config.steps:
            reason = "done"
        more = "" if self.is_done else "; the same command continues"
        self._say(f"{reason} at step {self.step}, {best}{more}; see {self.run.path}")

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
    except BaseException as error:
        end_workers()
        if isinstance(error, MemoryError | RuntimeError):
            explain(error, config)
        raise
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


def explain(error: Exception, config: TrainConfig) -> None:
    """Raises a UserError for the errors of PyTorch that the user can mend."""
    if lost_another(error):
        raise UserError("another process of this training has ended; its own line says why") from error
    if "DataLoader worker" in str(error):  # killed: too little memory, or shared memory, for what it loads
        raise SettingError("workers", f"{error}; use fewer of them, or a smaller batch") from error
    if out_of_memory(error):
        device = config.device.replace("auto", "this machine")
        raise SettingError(
            "batch",
            f"{config.batch} does not fit into the memory of {device}; use a smaller one, cut it into parts "
            "(accumulate), or choose a smaller model",
        ) from error


def end_workers() -> None:
    """Ends the processes that load data: the traceback holds them, and the end of this process would wait for them."""
    for worker in multiprocessing.active_children():
        with contextlib.suppress(RuntimeError):  # PyTorch's handler of SIGCHLD reports each end
            worker.kill()
            worker.join()


def _line(numbers: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
