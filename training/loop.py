"""The training loop of both stages: samples in order, steps, logs, validation, checkpoints, and when to stop."""

import itertools
import math
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset, Sampler

from command_line import UserError
from training import checkpoint, distributed
from training.distributed import World
from training.engine import Average, Engine
from training.options import Options
from training.run_folder import RunFolder

FP16_SKIPS = 20  # steps without a finite gradient that fp16's loss scaling may take to find its scale


class Stage(Protocol):
    """What a script gives to `fit`."""

    model: nn.Module  # the network that is averaged, validated and exported
    networks: dict[str, nn.Module]  # all that is trained
    optimisers: dict[str, Optimizer]
    engine: Engine

    def train_step(self, parts: list[dict[str, Any]], step: int, epoch: float) -> dict[str, Tensor]:
        """One optimiser step (0-based) on the parts of a batch; named scalars."""
        ...

    def validate(self, model: nn.Module) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Numbers, of which "selection" (lower is better) picks the best; pictures for TensorBoard."""
        ...

    def export(self, model: nn.Module, step: int, numbers: dict[str, float]) -> None:
        """Writes the weights that others load."""
        ...


class Stream(Sampler[list[int]]):
    """The endless order of samples as a function of the seed: epoch after epoch, each a permutation of the data.

    Step s takes the s-th `batch` of indices; each process its share, in `accumulate` parts. Indices go on counting from
    epoch to epoch (epoch = index // length). `overfit` takes the same few samples again and again.
    """

    def __init__(self, length: int, options: Options, rank: int, size: int, first_step: int) -> None:
        self.length, self.options, self.rank, self.size, self.first_step = length, options, rank, size, first_step

    def indices(self, step: int) -> list[int]:
        """The whole batch of a step."""
        positions = np.arange(step * self.options.batch, (step + 1) * self.options.batch)
        if self.options.overfit:
            return (positions % self.options.overfit).tolist()
        first, last = positions[0] // self.length, positions[-1] // self.length
        orders = [
            np.random.default_rng((self.options.seed, epoch)).permutation(self.length) + epoch * self.length
            for epoch in range(first, last + 1)
        ]
        return np.concatenate(orders)[positions - first * self.length].tolist()

    def __iter__(self) -> Iterator[list[int]]:
        part = self.options.batch // (self.size * self.options.accumulate)
        for step in itertools.count(self.first_step):
            mine = self.indices(step)[self.rank :: self.size]
            yield from (mine[i : i + part] for i in range(0, len(mine), part))


def check_sizes(length: int, options: Options, size: int) -> None:
    """Raises UserError when the data cannot fill a batch or the batch cannot be shared out."""
    if options.batch > length and not options.overfit:
        raise UserError(f"--batch: {options.batch} is more than the {length} training samples; use a smaller batch")
    if options.batch % (size * options.accumulate):
        shares = f"{size} processes and --accumulate {options.accumulate}"
        raise UserError(f"--batch: {options.batch} cannot be shared evenly by {shares}")


def batches(data: Dataset[dict[str, Any]], options: Options, world: World, first_step: int) -> Iterator[dict[str, Any]]:
    """This process's parts of the batches from a step on, without end."""

    def prepare_worker(_: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process decides when to stop
        torch.set_num_threads(1)

    stream = Stream(len(data), options, world.rank, world.size, first_step)  # type: ignore[arg-type]
    return iter(DataLoader(
        data, batch_sampler=stream, num_workers=options.workers, pin_memory=world.device.type == "cuda",
        worker_init_fn=prepare_worker,
    ))  # fmt: skip


class Trainer:
    """Trains a stage until the steps, the minutes or the patience are used up, from the run's last checkpoint on."""

    def __init__(self, stage: Stage, data: Dataset[dict[str, Any]], options: Options, run: RunFolder) -> None:
        self.stage, self.data, self.options, self.run = stage, data, options, run
        self.length = len(data)  # type: ignore[arg-type]
        self.engine, self.world = stage.engine, stage.engine.world
        check_sizes(self.length, options, self.world.size)
        self.average = Average(stage.model, options.ema)  # a copy: taken before the layers are joined over processes
        self.step, self.best, self.stale = 0, math.inf, 0
        self.skipped = 0  # steps in a row whose gradient fp16 had to throw away
        self.signal = ""

    def fit(self) -> None:
        """Raises UserError when the loss is no number or a checkpoint cannot be written."""
        self._restore()
        self.run.open(self.step)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_signal)
        steps = self._steps()
        began, clock = time.monotonic(), Clock(self.step)
        while self.step < self.options.steps:
            with clock.waiting():
                batch = next(steps)
            numbers = self.train_step(batch)
            late = self.options.minutes is not None and time.monotonic() - began > 60 * self.options.minutes
            interrupted = self._agree(bool(self.signal))
            ending = self._agree(late) or self.step >= self.options.steps
            if self.step % self.options.log_every == 0 or ending:
                self._log(numbers, clock)
            if self.step % self.options.validate_every == 0 or ending or interrupted:
                with clock.paused():
                    self._save(improved=not interrupted and self._validate())
                ending |= self._agree(0 < self.options.patience <= self.stale)
            if ending or interrupted:
                break
        self.run.close()
        why = f"stopped by {self.signal}" if self.signal else "done"
        self._say(f"{why} at step {self.step}, best {self.best:.5g}; the same command continues, see {self.run.path}")

    def train_step(self, batch: list[dict[str, Any]]) -> dict[str, float]:
        """One step whose randomness is a function of the seed, the step and the process."""
        key = (self.options.seed, self.step, self.world.rank)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        losses = self.stage.train_step(batch, self.step, self.step * self.options.batch / self.length)
        if self.engine.scaler.is_enabled():
            self.engine.scaler.update()
        numbers = dict(zip(losses, torch.stack([v.detach().float() for v in losses.values()]).tolist(), strict=True))
        self._check_finite(numbers, batch)
        self.step += 1
        self.average.update(self.step)
        return numbers

    def dry_run(self) -> None:
        """Prints sizes, and time and memory of a step; writes nothing."""
        for name, network in self.stage.networks.items():
            self._say(f"{name}: {sum(p.numel() for p in network.parameters()):,} parameters")
        epoch = self.length / self.options.batch
        epochs = self.options.steps / epoch
        self._say(f"{self.length} samples an epoch, {epoch:.1f} steps; {self.options.steps} steps, {epochs:.1f} epochs")
        for _, parts in zip(("first", "second"), self._steps(), strict=False):
            began = time.monotonic()
            numbers = self.train_step(parts)
            memory = memory_gib(self.world.device)
            self._say(f"a step of {time.monotonic() - began:.2f} s, {memory:.2f} GiB at most: {_line(numbers)}")

    def _restore(self) -> None:
        """Takes everything that the next step depends on from the last checkpoint, or from the main process."""
        state = checkpoint.load_latest(self.run.checkpoints)
        for name, network in self.stage.networks.items():
            if state:
                network.load_state_dict(state["networks"][name])
            distributed.copy_from_main(network, self.world)
            distributed.share_batch_norm(network, self.world)
            network.train()
        if not state:
            return
        for name, optimiser in self.stage.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self.average.module.load_state_dict(state["average"])
        self.engine.scaler.load_state_dict(state["scaler"])
        self.step, self.best, self.stale = state["step"], state["best"], state["stale"]
        self._say(f"continuing {self.run.path} after step {self.step}")

    def _save(self, improved: bool) -> None:
        if not self.world.is_main:
            return
        state = {
            "step": self.step, "best": self.best, "stale": self.stale,
            "networks": {k: v.state_dict() for k, v in self.stage.networks.items()},
            "optimisers": {k: v.state_dict() for k, v in self.stage.optimisers.items()},
            "average": self.average.module.state_dict(), "scaler": self.engine.scaler.state_dict(),
        }  # fmt: skip
        checkpoint.save(self.run.checkpoints, state, self.options.keep, improved)

    def _validate(self) -> bool:
        """True when the averaged weights are better than ever. They are then exported."""
        if not self.world.is_main:
            return False
        self.average.module.eval()
        with torch.no_grad():
            numbers, pictures = self.stage.validate(self.average.module)
        self.stage.model.train()
        self.run.log(self.step, numbers, "validation")
        self.run.show(self.step, pictures)
        self._say(f"step {self.step} validation  {_line(numbers)}")
        improved = numbers["selection"] < self.best
        self.best, self.stale = (numbers["selection"], 0) if improved else (self.best, self.stale + 1)
        if improved:
            self.stage.export(self.average.module, self.step, numbers)
        return improved

    def _log(self, numbers: dict[str, float], clock: "Clock") -> None:
        names, values = list(numbers), torch.tensor(list(numbers.values()), device=self.world.device)
        distributed.average([values], self.world)
        rate, waiting = clock.lap(self.step)
        shown = dict(zip(names, values.tolist(), strict=True)) | {
            "learning_rate": self.options.learning_rate_at(self.step - 1),
            "samples_per_second": rate * self.options.batch, "waiting_for_data": waiting,
            "epoch": self.step * self.options.batch / self.length, "memory_gib": memory_gib(self.world.device),
        }  # fmt: skip
        self.run.log(self.step, shown, "train")
        self._say(f"step {self.step}  {_line(shown)}")

    def _check_finite(self, numbers: dict[str, float], batch: list[dict[str, Any]]) -> None:
        fine = all(math.isfinite(value) for value in numbers.values())
        self.skipped = 0 if fine else self.skipped + 1
        if fine or (self.engine.scaler.is_enabled() and self.skipped <= FP16_SKIPS):
            return
        names = [name for part in batch for name in part.get("name", [])]
        file = self.run.write_failure(self.step, names, numbers)
        bad = ", ".join(name for name, value in numbers.items() if not math.isfinite(value))
        raise UserError(f"step {self.step}: {bad} is no longer a finite number; its clips are listed in {file}; "
                        "look at them, lower --learning-rate or set --clip-norm")  # fmt: skip

    def _agree(self, flag: bool) -> bool:
        return distributed.any_process(flag, self.world)

    def _steps(self) -> Iterator[list[dict[str, Any]]]:
        """The parts of each step's batch, on the device, from the current step on."""
        device, parts = self.world.device, batches(self.data, self.options, self.world, self.step)
        while True:
            step = itertools.islice(parts, self.options.accumulate)
            yield [to_device(part, device) for part in step]

    def _note_signal(self, number: int, _: object) -> None:
        """The first signal lets the step end; a second one ends at once."""
        self.signal = signal.Signals(number).name
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def _say(self, line: str) -> None:
        if self.world.is_main:
            print(line, flush=True)


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on the device; names and such stay."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}


class Clock:
    """Rate and waiting since the last lap, without the pauses for validation."""

    def __init__(self, step: int) -> None:
        self.step, self.start, self.waited = step, time.monotonic(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.waited += time.monotonic() - began

    @contextmanager
    def paused(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.start += time.monotonic() - began

    def lap(self, step: int) -> tuple[float, float]:
        """(steps a second, share of the time spent waiting for data)."""
        seconds = max(1e-9, time.monotonic() - self.start)
        result = (step - self.step) / seconds, self.waited / seconds
        self.step, self.start, self.waited = step, time.monotonic(), 0.0
        return result


def memory_gib(device: torch.device) -> float:
    """Most memory that this process has held: on the GPU, else in RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    import resource

    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _line(numbers: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
