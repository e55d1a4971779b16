"""A run's folder: config.json (settings of the last command, versions, git hash), metrics, checkpoints."""

import contextlib
import json
import platform
import subprocess
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from runtime.command_line import SettingError, UserError, write_whole, writing
from training.config import TrainConfig, flatten


class RunFolder:
    """Writes what happens. All processes have one, only the main one locks it, opens it and logs.

    Raises:
        UserError: the folder can't be made or written, or holds a run with another setting that matters.
    """

    def __init__(self, config: TrainConfig, held_out: Iterable[str] = ()) -> None:
        """`held_out`: names of what is not trained on, which may not change while a run is continued."""
        self.path = config.run
        self.checkpoints = self.path / "checkpoints"
        names = "\n".join(held_out).encode(errors="surrogateescape")
        self._settings = flatten(config) | {"held_out": f"{zlib.crc32(names):08x}"}
        self._lock = filelock.FileLock(self.path / "lock")
        self._check_settings(config.CHANGEABLE)

    def _check_settings(self, changeable: frozenset[str]) -> None:
        """Compares the settings with those of the run that is to be continued, if there is one."""
        file = self.path / "config.json"
        if not file.exists() or not any(self.checkpoints.glob("step_*.pt")):
            return
        try:
            saved = json.loads(file.read_text())["config"]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{file} cannot be read ({error}); use another folder for this run") from error
        common = saved.keys() & self._settings.keys()  # an older version's run lacks newer settings
        changed = [name for name in common - changeable if saved[name] != self._settings[name]]
        if "held_out" in changed:
            raise UserError(
                f"{self.path} was started with other clips held out for validation and test; name them in the "
                "validation and test lists, or use another folder for this run"
            )
        if changed:
            name = "preset" if "preset" in changed else min(changed)  # the preset explains the others
            raise SettingError(
                name,
                f"{self.path} was started with {saved[name]}, not {self._settings[name]}; use that value or another "
                "folder for this run",
            )

    def lock(self) -> None:
        """Keeps other trainings out until `close` or the end of this process, however it ends.

        Raises:
            UserError: one is at work here, or the folder can't be made or written.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except filelock.Timeout:
                message = f"another training is at work in {self.path}; wait for it to end, or use another folder"
                raise SettingError("run", message) from None

    def open(self, step: int) -> None:
        """Makes the folder and goes on after `step`: later lines of an interrupted run are dropped."""
        with writing(self.path):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            about = {"config": self._settings, "versions": versions(), "command": sys.argv}
            kept = [json.dumps(row) + "\n" for row in read_metrics(self.path) if row["step"] <= step]
            self._board = SummaryWriter(self.path / "tensorboard", purge_step=step + 1)
        write_whole(self.path / "config.json", json.dumps(about, indent=1))
        write_whole(self.path / "metrics.jsonl", "".join(kept))

    def close(self) -> None:
        self._board.close()
        self._lock.release()

    def log(self, step: int, numbers: dict[str, float], group: str) -> None:
        """One line of metrics.jsonl ({"step": 100, "group": "train", "L_1": ...}), and TensorBoard curves."""
        with writing(self.path / "metrics.jsonl"), open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"step": step, "group": group, **numbers}) + "\n")
        with writing(self.path / "tensorboard"):
            for name, value in numbers.items():
                self._board.add_scalar(f"{group}/{name}", value, step)
            self._board.flush()

    def show(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Pictures (H, W, 3) uint8 RGB for TensorBoard."""
        with writing(self.path / "tensorboard"):
            for name, picture in pictures.items():
                self._board.add_image(name, picture, step, dataformats="HWC")
            self._board.flush()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of RUN/metrics.jsonl; a half-written last line is left out."""
    file = run / "metrics.jsonl"
    if not file.exists():
        return []
    rows = []
    for line in file.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def versions() -> dict[str, str]:
    """Versions of Python, PyTorch and this code (its git commit) that made a run."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    commit = "unknown"
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return {"python": platform.python_version(), "torch": torch.__version__, "git": commit}
