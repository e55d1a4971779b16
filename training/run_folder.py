"""A run's folder: config.json (settings, versions, git hash), metrics.jsonl, TensorBoard files, checkpoints."""

import dataclasses
import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from command_line import UserError
from training.checkpoint import writing
from training.options import FREE, Options

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "safetensors", "tensorboard")


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """A dataclass as {"model.width": 512, ...} of plain JSON values."""
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{field.name}.")
        else:
            flat[prefix + field.name] = json.loads(json.dumps(value, default=str))
    return flat


class RunFolder:
    """Writes what happens. Only the main process has one that writes (`writes=True`).

    Raises:
        UserError: the folder can't be made or written, or holds a run with another setting that matters.
    """

    def __init__(self, path: Path, config: Options, writes: bool = True) -> None:
        self.path = path
        self.config = config
        self.writes = writes
        self.checkpoints = path / "checkpoints"
        self._board = None
        saved, new = self._saved_config(), flatten(config)
        for name in sorted((saved.keys() & new.keys()) - FREE):  # an older version's run lacks newer settings
            if saved[name] != new[name]:
                raise UserError(
                    f"--{name.replace('_', '-')}: {path} was started with {saved[name]}, not {new[name]}; "
                    "use that value or another --run folder"
                )

    def _saved_config(self) -> dict[str, Any]:
        file = self.path / "config.json"
        try:
            return json.loads(file.read_text())["config"] if file.exists() else {}
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{file} cannot be read ({error}); use another --run folder") from error

    def open(self, step: int) -> None:
        """Makes the folder and goes on after `step`: later lines of an interrupted run are dropped."""
        if not self.writes:
            return
        from torch.utils.tensorboard import SummaryWriter

        with writing(f"--run: {self.path}"):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            about = {"config": flatten(self.config), "versions": versions(), "command": sys.argv}
            self._replace("config.json", json.dumps(about, indent=1))
            kept = [json.dumps(row) + "\n" for row in read_metrics(self.path) if row["step"] <= step]
            self._replace("metrics.jsonl", "".join(kept))
            self._board = SummaryWriter(str(self.path / "tensorboard"), purge_step=step + 1)

    def log(self, step: int, numbers: dict[str, float], group: str) -> None:
        """One line of metrics.jsonl ({"step": 100, "group": "train", "L_1": ...}), and TensorBoard curves."""
        if self._board is None:
            return
        with writing(self.path / "metrics.jsonl"):
            with open(self.path / "metrics.jsonl", "a") as file:
                file.write(json.dumps({"step": step, "group": group, **numbers}) + "\n")
            for name, value in numbers.items():
                self._board.add_scalar(f"{group}/{name}", value, step)

    def show(self, step: int, pictures: dict[str, np.ndarray]) -> None:
        """Pictures (H, W, 3) uint8 RGB for TensorBoard."""
        if self._board is not None:
            with writing(self.path / "tensorboard"):
                for name, picture in pictures.items():
                    self._board.add_image(name, picture, step, dataformats="HWC")
                self._board.flush()

    def write_failure(self, step: int, rank: int, clips: list[str], losses: dict[str, float]) -> Path:
        """Writes down the clips of the step at which the loss was no longer a number."""
        text = json.dumps({"step": step, "losses": {k: str(v) for k, v in losses.items()}, "clips": clips}, indent=1)
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            return self._replace(f"not_finite_step_{step}_process_{rank}.json", text)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def _replace(self, name: str, text: str) -> Path:
        temporary = self.path / (name + ".part")
        temporary.write_text(text)
        os.replace(temporary, self.path / name)
        return self.path / name


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
