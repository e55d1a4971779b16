"""A run's folder: config.json (settings of the last command, versions, git hash), metrics, checkpoints."""

import json
import os
import platform
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import summary

from runtime.command_line import UserError, write_whole, writing
from training.options import FREE, Options, flag, flatten

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "safetensors", "tensorboard")


class RunFolder:
    """Writes what happens. All processes have one, only the main one locks it, opens it and logs.

    Raises:
        UserError: the folder can't be made or written, or holds a run with another setting that matters.
    """

    def __init__(self, config: Options, held_out: Iterable[str] = ()) -> None:
        """`held_out`: names of what is not trained on, which may not change while a run is continued."""
        self.path = config.run
        self.checkpoints = self.path / "checkpoints"
        names = "\n".join(held_out).encode(errors="surrogateescape")
        self._config = flatten(config) | {"held_out": f"{zlib.crc32(names):08x}"}
        self._board = self.path / "tensorboard" / f"events.out.tfevents.{time.time_ns()}.{platform.node()}"
        file = self.path / "config.json"
        started = file.exists() and any(self.checkpoints.glob("step_*.pt"))  # else there is nothing to be continued
        try:
            saved = json.loads(file.read_text())["config"] if started else {}
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{file} cannot be read ({error}); use another --run folder") from error
        if saved.get("held_out", self._config["held_out"]) != self._config["held_out"]:
            raise UserError(f"--cache: {self.path} was started with other clips held out for validation and test; "
                            "name them in --val-list and --test-list, or use another --run folder")  # fmt: skip
        for name in sorted((saved.keys() & self._config.keys()) - FREE):  # an older version's run lacks newer settings
            if saved[name] != self._config[name]:
                raise UserError(
                    f"{flag(name)}: {self.path} was started with {saved[name]}, not {self._config[name]}; "
                    "use that value or another --run folder"
                )

    def lock(self) -> None:
        """Keeps other trainings out until this process ends, however it ends: the system then frees the lock.

        Raises:
            UserError: one is at work here, or the folder can't be made or written.
        """
        with writing(f"--run: {self.path}"):
            self.path.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR)  # never closed, which would free it
        try:
            if sys.platform == "win32":
                msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            else:  # not flock, whose lock the processes that load data would inherit and might keep
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UserError(f"--run: another training is at work in {self.path}; wait for it to end, or use another "
                            "folder") from None  # fmt: skip
        except OSError as error:
            print(f"{self.path} cannot be locked ({error.strerror}): start no second training there", file=sys.stderr)

    def open(self, step: int) -> None:
        """Makes the folder and goes on after `step`: later lines of an interrupted run are dropped."""
        with writing(f"--run: {self.path}"):
            for folder in (self.checkpoints, self._board.parent):
                folder.mkdir(parents=True, exist_ok=True)
            about = {"config": self._config, "versions": versions(), "command": sys.argv}
            kept = [json.dumps(row) + "\n" for row in read_metrics(self.path) if row["step"] <= step]
        write_whole(self.path / "config.json", json.dumps(about, indent=1))
        write_whole(self.path / "metrics.jsonl", "".join(kept))
        restart = {"session_log": {"status": "START"}}  # curves after `step` are dropped too
        self._add_events(step + 1, {"file_version": "brain.Event:2"}, restart)

    def log(self, step: int, numbers: dict[str, float], group: str) -> None:
        """One line of metrics.jsonl ({"step": 100, "group": "train", "L_1": ...}), and TensorBoard curves."""
        with writing(self.path / "metrics.jsonl"), open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"step": step, "group": group, **numbers}) + "\n")
        curves = (summary.scalar(f"{group}/{name}", value) for name, value in numbers.items())
        self._add_events(step, *({"summary": curve} for curve in curves))

    def show(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Pictures (H, W, 3) uint8 RGB for TensorBoard."""
        for name, picture in pictures.items():
            self._add_events(step, {"summary": summary.image(name, picture, dataformats="HWC")})

    def _add_events(self, step: int, *events: dict[str, Any]) -> None:
        """Appends to TensorBoard's file here and now, as SummaryWriter's thread would meet a full disk out of reach."""
        with writing(self._board), open(self._board, "ab") as file:
            for event in events:
                about: Any = Event(**{"wall_time": time.time(), "step": step, **event})
                RecordWriter(file).write(about.SerializeToString())

    def write_failure(self, step: int, rank: int, clips: list[str], losses: dict[str, float]) -> Path:
        """Writes down the clips of the step at which the loss was no longer a number."""
        text = json.dumps({"step": step, "losses": {k: str(v) for k, v in losses.items()}, "clips": clips}, indent=1)
        file = self.path / f"not_finite_step_{step}_process_{rank}.json"
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        write_whole(file, text)
        return file


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of RUN/metrics.jsonl; a half-written last line is left out."""
    file = run / "metrics.jsonl"
    rows = []
    for line in file.read_text().splitlines() if file.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def versions() -> dict[str, str]:
    """Python, platform, packages and the git commit that made a run."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = "unknown"
    packages = {d.name: d.version for d in metadata.distributions() if d.name in PACKAGES}
    return {"python": platform.python_version(), "platform": platform.platform(), "git": commit, **packages}
