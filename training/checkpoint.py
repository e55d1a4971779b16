"""Checkpoints that survive a kill at any moment: written under another name, synced, then renamed."""

import io
from pathlib import Path
from typing import Any

import torch

from runtime.command_line import UserError, write_whole

KEPT = 2  # the one before is there in case the last is damaged


def path_of(folder: Path, step: int) -> Path:
    return folder / f"step_{step:09d}.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Writes `state` as the checkpoint of its "step", and removes what is not one of the last two.

    Checkpoints newer than this step are unreadable (otherwise training would have resumed from them) and go, too.

    Raises:
        UserError: the disk is full or cannot be written; earlier checkpoints stay.
    """
    path = path_of(folder, state["step"])
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(path, buffer.getvalue())
    kept = sorted(other for other in folder.glob("step_*.pt") if other <= path)[-KEPT:]
    for other in set(folder.iterdir()).difference(kept):
        other.unlink()


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
        raise UserError(f"{folder}: no checkpoint there can be read; use another folder or delete this one")
    return None
