"""The training loop of both stages: samples in order, steps, logs, validation, checkpoints, and when to stop."""

import contextlib
import functools
import itertools
import math
import multiprocessing
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from models import weights
from runtime.command_line import UserError
from runtime.device import memory_gib, out_of_memory
from training import checkpoint, distributed
from training.engine import Average, Engine
from training.options import Config, Options
from training.run_folder import RunFolder

LEAST_SCALE = 2**-4  # of fp16's loss, which begins at 2**16: below it's not the scale that makes gradients infinite
# What lets a step end, then saves; SIGHUP (not on Windows): the terminal is gone.
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
Batch = dict[str, Any]


class Stage(ABC):
    """What a script gives to `Trainer`: its networks, and how they are trained and validated."""

    name: str  # of its file of weights
    average: nn.Module  # of the model's weights over the last steps
    warming_up = False  # after a training step: whether what validation looks at wasn't trained yet

    def __init__(self, model: nn.Module, engine: Engine, examples: list[Batch], settings: Mapping[str, Any]) -> None:
        """`model` is averaged, validated on the `examples` and exported, with the `settings` of its data."""
        self.engine, self.examples, self.settings = engine, examples, settings
        self.model = model.requires_grad_(True).to(engine.device)
        self.forward = engine.compiled(self.model)
        self.networks = {self.name: self.model}  # all that is trained
        self.optimisers = {self.name: engine.adam(self.model)}  # of each of them

    @abstractmethod
    def train_step(self, batch: Batch, epoch: float) -> dict[str, Tensor]:
        """Forward and backward passes of a batch, or of each part of it; named scalars."""

    @abstractmethod
    def validate(self, model: nn.Module) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Numbers, of which "selection" (lower is better) picks the best; pictures for TensorBoard."""

    def export(self, model: Any, step: int, numbers: dict[str, float]) -> None:
        """Writes the weights that others load."""
        about = {"step": step, "validation": numbers, "validated_on": len(self.examples)}
        weights.save(model, self.engine.options.run / f"{self.name}.safetensors", self.settings, about, half=True)


def indices_of(step: int, length: int, options: Options) -> list[int]:
    """A step's batch of `length` samples, a function of the seed: epoch after epoch, each a permutation of the data.

    Indices go on counting from epoch to epoch (epoch = index // length). `overfit` takes the same few samples again and
    again.
    """
    positions = range(step * options.batch, (step + 1) * options.batch)
    if options.overfit:
        return [position % options.overfit for position in positions]
    places = (divmod(position, length) for position in positions)  # epoch, and where in it
    return [epoch * length + int(_order(options.seed, epoch, length)[k]) for epoch, k in places]


@functools.lru_cache(maxsize=2)  # a batch may begin in one epoch and end in the next
def _order(seed: int, epoch: int, length: int) -> np.ndarray:
    """The permutation of an epoch."""
    return np.random.default_rng((seed, epoch)).permutation(length)


class Trainer:
    """Trains a stage until the steps, the minutes or the patience are used up, from the run's last checkpoint on.

    Raises:
        UserError: the data cannot fill a batch, or the batch cannot be shared out.
    """

    def __init__(self, stage: Stage, data: Dataset[dict[str, Any]], options: Options, run: RunFolder) -> None:
        self.stage, self.data, self.options, self.run = stage, data, options, run
        self.length = len(data)  # type: ignore[arg-type]
        self.epoch_steps = (options.overfit or self.length) / options.batch
        self.engine, self.world = stage.engine, stage.engine.world
        if options.batch > self.length and not options.overfit:
            raise UserError(f"--batch: {options.batch} is more than the {self.length} training samples; "
                            "use a smaller batch")  # fmt: skip
        if options.overfit > self.length:
            raise UserError(f"--overfit: {options.overfit} is more than the {self.length} training samples")
        self.part, left = divmod(options.batch, self.world.size * options.accumulate)  # samples computed at a time
        if left:
            shares = f"{self.world.size} processes and --accumulate {options.accumulate}"
            raise UserError(f"--batch: {options.batch} cannot be shared evenly by {shares}")
        for network in stage.networks.values():
            network.train()  # from a file of weights they come in eval mode
        # A copy, taken before the layers are joined over processes.
        self.average = Average(stage.model, options.ema, trained=options.init is not None)
        stage.average = self.average.module
        self.step, self.best, self.best_step, self.stale = 0, math.inf, 0, 0
        self.recent: list[tuple[dict[str, Tensor], list[str]]] = []  # of the steps not yet logged: scalars, clips
        self.lap = self.waited = 0.0  # when the steps not yet logged began, and seconds of waiting for data since then
        self.signal: signal.Signals | None = None

    @property
    def out_of_patience(self) -> bool:
        return 0 < self.options.patience <= self.stale

    def fit(self) -> None:
        """Raises UserError when another training has this run, the loss is no number or something cannot be written."""
        if self.world.is_main:
            self.run.lock()
        self._restore()
        if self.world.is_main:
            self.run.open(self.step)
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup's
                signal.signal(number, self._note_signal)
        steps, began = self.steps(), time.monotonic()
        self.lap, self.waited = began, 0.0
        stop = self.step >= self.options.steps or self.out_of_patience
        while not stop:
            self.train_step(next(steps))
            late = self.options.minutes is not None and time.monotonic() - began > 60 * self.options.minutes
            interrupted, late = distributed.any_process([bool(self.signal), late], self.world)
            stop = interrupted or late or self.step >= self.options.steps
            validate = stop or self.step % self.options.validate_every == 0
            if validate or self.step % self.options.log_every == 0:
                self._log()
                if validate and self.world.is_main:
                    if not interrupted:
                        self._validate()
                    self._save()
                if validate:
                    stop |= any(distributed.any_process([self.out_of_patience], self.world))
                self.lap, self.waited = time.monotonic(), 0.0
        why = f"stopped by {self.signal.name}" if self.signal else "stopped"
        more = "the same command"
        if self.step >= self.options.steps:
            why, more = "done", "a larger --steps"
        elif self.out_of_patience:
            why, more = f"nothing better in {self.stale} validations", "a larger --patience"
        best = f"best {self.best:.5g}" if self.best < math.inf else "not validated yet"
        self._say(f"{why} at step {self.step}, {best}; {more} continues, see {self.run.path}")

    def train_step(self, parts: list[Batch]) -> None:
        """One step, on a batch in parts; its randomness is a function of the seed, the step and the process."""
        key = (self.options.seed, self.step, self.world.rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        epoch = math.inf if self.options.dry_run else self.step / self.epoch_steps  # its sizes are of no warm-up
        rows = [self.stage.train_step(part, epoch) for part in parts]
        losses = {name: torch.stack([row[name].detach().float() for row in rows]).mean() for name in rows[0]}
        for name, network in self.stage.networks.items():
            if any(parameter.grad is not None for parameter in network.parameters()):  # none: it is not its turn yet
                of = "" if network is self.stage.model else f"{name}_"
                losses[f"{of}gradient_norm"] = self.engine.update(self.stage.optimisers[name], self.step)
        self.engine.scaler.update()
        self.recent.append((losses, [name for part in parts for name in part["name"]]))
        self.step += 1
        self.average.update(self.step)

    def take_recent(self) -> dict[str, float]:
        """Means of the scalars over the steps since the last call: read together, as a GPU has to wait for each look.

        Raises:
            UserError: one of them is not finite; the clips of the first such step are written down.
        """
        values = iter(torch.stack([value for row, _ in self.recent for value in row.values()]).tolist())
        columns: dict[str, list[float]] = {}
        for step, (row, clips) in enumerate(self.recent, start=self.step - len(self.recent)):
            numbers = {name: next(values) for name in row}
            bad = [name for name, value in numbers.items() if not math.isfinite(value)]
            if bad and (not self.engine.scaler.is_enabled() or self.engine.scaler.get_scale() < LEAST_SCALE):
                file = self.run.write_failure(step, self.world.rank, clips, numbers)
                raise UserError(f"step {step}: {', '.join(bad)} is no longer a finite number; its clips are listed in "
                                f"{file}; look at them, lower --learning-rate or set --clip-norm")  # fmt: skip
            for name, value in numbers.items() if not bad else ():
                columns.setdefault(name, []).append(value)
        self.recent.clear()
        return {name: sum(column) / len(column) for name, column in columns.items()}

    def shares(self) -> Iterator[list[int]]:
        """Indices of this process's share of each step's batch, in `accumulate` parts, from the current step on."""
        for step in itertools.count(self.step):
            mine = indices_of(step, self.length, self.options)[self.world.rank :: self.world.size]
            yield from (mine[i : i + self.part] for i in range(0, len(mine), self.part))

    def steps(self) -> Iterator[list[Batch]]:
        """This process's parts of each step's batch, on the device, from the current step on, without end."""
        loader = iter(DataLoader(
            self.data, batch_sampler=self.shares(), num_workers=self.options.workers, worker_init_fn=prepare_worker,
            pin_memory=self.world.device.type == "cuda",
        ))  # fmt: skip
        while True:
            asked = time.monotonic()
            try:
                parts = [next(loader) for _ in range(self.options.accumulate)]
            except UserError as error:  # from a worker it comes with a traceback in front
                line = str(error).strip().splitlines()[-1]
                raise UserError(line.removeprefix("runtime.command_line.UserError: ")) from None
            parts = [to_device(part, self.world.device) for part in parts]
            self.waited += time.monotonic() - asked
            yield parts

    def dry_run(self) -> None:
        """Prints sizes, and time and memory of a step on few samples and on the whole batch; writes nothing."""
        for name, network in self.stage.networks.items():
            self._say(f"{name}: {sum(p.numel() for p in network.parameters()):,} parameters")
        steps, epochs = self.options.steps, self.options.steps / self.epoch_steps
        self._say(f"{self.length} samples an epoch, {self.epoch_steps:.1f} steps; {steps} steps, {epochs:.1f} epochs")
        if self.part > 8:  # what a step needs is said before it may be too much
            samples = [self.data[i] for i in range(4)]
            held = [self._try([to_device(default_collate(samples[:size]), self.world.device)]) for size in (2, 4)]
            needed = held[1] + (held[1] - held[0]) / 2 * (self.part - 4)
            self._say(f"a step of {self.part} samples will need about {needed:.1f} GiB")
        whole = next(self.steps())
        for _ in range(2):  # the second time it is warm
            self._try(whole)

    def _try(self, parts: list[Batch]) -> float:
        """Prints time and memory of a step; returns the memory in GiB."""
        began = time.monotonic()
        self.train_step(parts)
        numbers, held = self.take_recent(), memory_gib(self.world.device)
        took = f"a step of {len(parts[0]['name'])} samples: {time.monotonic() - began:.2f} s, {held:.2f} GiB at most"
        self._say(f"{took}: {_line(numbers)}")
        return held

    def _restore(self) -> None:
        """Takes everything that the next step depends on from the last checkpoint, or from the main process."""
        found = checkpoint.load_latest(self.run.checkpoints) if self.world.is_main else None
        state = distributed.from_main(found, self.world)
        if state:
            try:
                for name, network in self.stage.networks.items():
                    network.load_state_dict(state["networks"][name])
                    self.stage.optimisers[name].load_state_dict(state["optimisers"][name])
                self.average.module.load_state_dict(state["average"])
                if state["scaler"]:  # else of a run in another --precision
                    self.engine.scaler.load_state_dict(state["scaler"])
                self.step, self.best_step = state["step"], state["best_step"]
                self.best, self.stale = state["best"], state["stale"]
            except (KeyError, ValueError, RuntimeError) as error:
                what = f"--run: checkpoints in {self.run.path} are of another configuration"
                raise UserError(f"{what} ({str(error).splitlines()[-1].strip()})") from error
            self._say(f"continuing {self.run.path} after step {self.step}")
        for network in self.stage.networks.values():
            distributed.copy_from_main(network, self.world)
            distributed.share_batch_norm(network, self.world)

    def _save(self) -> None:
        state = {
            "step": self.step, "best": self.best, "best_step": self.best_step, "stale": self.stale,
            "networks": {k: v.state_dict() for k, v in self.stage.networks.items()},
            "optimisers": {k: v.state_dict() for k, v in self.stage.optimisers.items()},
            "average": self.average.module.state_dict(), "scaler": self.engine.scaler.state_dict(),
        }  # fmt: skip
        checkpoint.save(self.run.checkpoints, state, self.options.keep)

    def _validate(self) -> None:
        """Validates the averaged weights, and exports them when they are better than ever."""
        with torch.no_grad():
            numbers, pictures = self.stage.validate(self.average.module)
        self.run.log(self.step, numbers, "validation")
        self.run.show(self.step, pictures)
        self._say(f"step {self.step} validation  {_line(numbers)}")
        self.stale += not self.stage.warming_up
        if numbers["selection"] < self.best:
            self.best, self.best_step, self.stale = numbers["selection"], self.step, 0
            self.stage.export(self.average.module, self.step, numbers)

    def _log(self) -> None:
        samples, numbers = len(self.recent) * self.options.batch, self.take_recent()  # which waits for the device
        values = torch.tensor(list(numbers.values()), device=self.world.device)
        distributed.average([values], self.world)
        seconds = max(1e-9, time.monotonic() - self.lap)
        shown = dict(zip(numbers, values.tolist(), strict=True)) | {
            "learning_rate": self.options.learning_rate_at(self.step - 1),
            "samples_per_second": samples / seconds, "waiting_for_data": self.waited / seconds,
            "epoch": self.step / self.epoch_steps, "memory_gib": memory_gib(self.world.device),
        }  # fmt: skip
        if self.world.is_main:
            self.run.log(self.step, shown, "train")
        self._say(f"step {self.step}  {_line(shown)}")

    def _note_signal(self, number: int, _: object) -> None:
        """The first signal lets the step end; a second one ends at once."""
        self.signal = signal.Signals(number)
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def _say(self, line: str) -> None:
        if self.world.is_main:
            with contextlib.suppress(OSError):  # a lost terminal is no reason to lose the run
                print(line, flush=True)


def train(build: Callable[[Config], Trainer], config: Config) -> None:
    """What both scripts do with what they `build`. Raises UserError as `Trainer` does, and for too little memory."""
    try:
        trainer = build(config)
        trainer.dry_run() if config.dry_run else trainer.fit()
        distributed.stop()
        if trainer.signal == signal.SIGINT:  # as other commands end: a script must not go on with its next line
            raise KeyboardInterrupt
        if trainer.signal:
            sys.exit(128 + trainer.signal)
    except BaseException as error:
        end_workers()
        if not isinstance(error, MemoryError | RuntimeError):
            raise
        if distributed.lost_another(error):
            raise UserError("another process of this training has ended; its own line says why") from error
        if "DataLoader worker" in str(error):  # killed: too little memory, or shared memory, for what it loads
            raise UserError(f"--workers: {error}; use fewer of them, or a smaller --batch") from error
        if out_of_memory(error):
            where = f"does not fit into the memory of {config.device.replace('auto', 'this machine')}"
            raise UserError(f"--batch {config.batch}: {where}; use a smaller one, cut it into parts by --accumulate, "
                            "or choose a smaller --model") from error  # fmt: skip
        raise


def end_workers() -> None:
    """Ends the processes that load data, which the end of this one would wait for as long as a traceback has them."""
    child = getattr(signal, "SIGCHLD", None)  # Windows has none
    handler = signal.signal(child, signal.SIG_DFL) if child else None  # PyTorch's raises what it thinks of their end
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    if child:
        signal.signal(child, handler)


def prepare_worker(_: int) -> None:
    """In a process that loads data: the main process decides when to stop."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on the device; names and such stay."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}


def _line(numbers: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
