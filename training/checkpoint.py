"""Checkpoints that survive a kill at any moment: written under another name, synced, then renamed."""

import os
from pathlib import Path
from typing import Any

import torch

from runtime.command_line import UserError, writing


def path_of(folder: Path, step: int) -> Path:
    return folder / f"step_{step:09d}.pt"


def save(folder: Path, state: dict[str, Any], keep: int) -> None:
    """Writes `state` as the checkpoint of its "step". Keeps the last `keep` checkpoints, and that of its "best_step".

    Checkpoints newer than this step are unreadable (otherwise training would have resumed from them) and do not count.

    Raises:
        UserError: the disk is full or cannot be written; earlier checkpoints stay.
    """
    path = path_of(folder, state["step"])
    temporary = path.with_suffix(".part")
    with writing(path):
        try:
            with open(temporary, "wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except RuntimeError as error:  # so `torch.save` reports a full disk
            raise OSError(str(error.__context__ or error)) from error
        finally:
            temporary.unlink(missing_ok=True)
    for old in sorted(other for other in folder.glob("step_*.pt") if other <= path)[:-keep]:
        if old != path_of(folder, state["best_step"]):
            old.unlink(missing_ok=True)


def load_latest(folder: Path) -> dict[str, Any] | None:
    """The newest readable checkpoint on CPU; None when there is none at all.

    Raises:
        UserError: there are some, and none can be read.
    """
    found = sorted(folder.glob("step_*.pt"))
    for path in reversed(found):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file makes the reader raise
            print(f"{path} cannot be read ({type(error).__name__}): going back to the one before")
    if found:
        raise UserError(f"{folder}: no checkpoint there can be read; give --run another folder or delete this one")
    return None
