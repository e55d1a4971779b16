"""A run's folder: config.json (settings of the last command, versions, git commit), metrics, checkpoints."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import filelock
import torch
from torch.utils.tensorboard import SummaryWriter

from runtime.command_line import PROJECT, SettingError, UserError, version, write_whole, writing
from training.config import TrainConfig, flatten

KEPT = 2  # checkpoints; the earlier one is used if the last is damaged


class RunFolder:
    """The files of a run. Every process has this object, but only the main process opens the folder and writes."""

    def __init__(self, config: TrainConfig):
        self.path = config.run
        self.checkpoints = self.path / "checkpoints"
        self._settings = flatten(config)
        self._fixed = {name: value for name, value in self._settings.items() if name not in config.CHANGEABLE}
        self._lock = filelock.FileLock(self.path / "lock")

    def open(self) -> dict[str, Any]:
        """Creates the folder and locks other trainings out until `close` or the end of this process, however it ends.

        Metrics logged after the last checkpoint are dropped. Returns that checkpoint; without one, {"step": 0}.

        Raises:
            SettingError: another training uses the folder, or a setting that may not change differs from the run's.
            UserError: the folder cannot be created or written, or none of its checkpoints can be read.
        """
        with writing(self.path):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except filelock.Timeout:
                raise SettingError(
                    "run", f"another training uses {self.path}; wait for it to end, or use another folder"
                ) from None
            state = load_latest(self.checkpoints) or {"step": 0}
            for name, value in state.get("settings", {}).items():
                if self._fixed.get(name, value) != value:
                    problem = f"{self.path} was started with {value}, not {self._fixed[name]}"
                    raise SettingError(name, f"{problem}; use that value or another folder")
            kept = [json.dumps(row) + "\n" for row in read_metrics(self.path) if row["step"] <= state["step"]]
            self._board = SummaryWriter(self.path / "tensorboard", purge_step=state["step"] + 1)
        has_failed, commit = subprocess.getstatusoutput(f'git -C "{PROJECT.parent}" describe --always --dirty')
        versions = {
            "ip-lap": version(),
            "torch": torch.__version__,
            "git": "" if has_failed else commit,
        }
        about = {"config": self._settings, "versions": versions, "command": sys.argv}
        write_whole(self.path / "config.json", json.dumps(about, indent=1))
        write_whole(self.path / "metrics.jsonl", "".join(kept))
        return state

    def save(self, state: dict[str, Any]) -> None:
        """Writes `state` as the checkpoint of its "step", and removes all but the last two.

        Checkpoints of later steps are removed too: they are unreadable, or training would have resumed from them.

        Raises:
            UserError: the disk is full or cannot be written; earlier checkpoints stay.
        """
        buffer = io.BytesIO()
        torch.save({"settings": self._fixed, **state}, buffer)
        path = self.checkpoints / f"step_{state['step']:09d}.pt"
        write_whole(path, buffer.getvalue())
        kept = sorted(other for other in self.checkpoints.glob("step_*.pt") if other <= path)[-KEPT:]
        for other in set(self.checkpoints.iterdir()).difference(kept):
            other.unlink()

    def close(self) -> None:
        self._board.close()
        self._lock.release()

    def log(self, step: int, group: str, numbers: dict[str, float], pictures: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl ({"step": 100, "group": "train", "L_1": ...}) and to the curves in TensorBoard.

        Pictures (3, H, W), uint8 or float in [0, 1], go to TensorBoard alone.
        """
        with writing(self.path):
            with open(self.path / "metrics.jsonl", "a") as file:
                file.write(json.dumps({"step": step, "group": group, **numbers}) + "\n")
            for name, value in numbers.items():
                self._board.add_scalar(f"{group}/{name}", value, step)
            for name, picture in pictures.items():
                self._board.add_image(name, picture, step)
            self._board.flush()


def load_latest(checkpoints: Path) -> dict[str, Any] | None:
    """Loads the newest readable checkpoint to the CPU; None if there is no checkpoint at all.

    Raises:
        UserError: there are checkpoints, but none can be read.
    """
    found = sorted(checkpoints.glob("step_*.pt"))
    for path in reversed(found):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # damaged files raise many kinds of errors
            print(f"{path} cannot be read ({type(error).__name__}); trying the checkpoint before it")
    if found:
        raise UserError(f"{checkpoints}: no checkpoint can be read; use another folder or delete this one")
    return None


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Reads the lines of RUN/metrics.jsonl; a half-written last line is left out."""
    rows = []
    with contextlib.suppress(FileNotFoundError, ValueError):
        for line in (run / "metrics.jsonl").read_text().splitlines():
            rows.append(json.loads(line))
    return rows
