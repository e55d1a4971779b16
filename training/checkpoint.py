"""Checkpoints that survive a kill at any moment: written under another name, synced, then renamed."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from command_line import UserError

NAME = re.compile(r"step_(\d+)\.pt")


def paths(folder: Path) -> list[Path]:
    """Checkpoints in a run folder, oldest first."""
    return sorted(path for path in folder.glob("step_*.pt") if NAME.fullmatch(path.name))


def save(folder: Path, state: dict[str, Any], keep: int, best: bool) -> Path:
    """Writes `state` (with its "step") as step_<n>.pt, and best.pt if it is the best; the last `keep` stay.

    Raises:
        UserError: the disk is full or cannot be written; what was there stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step_{state['step']:09d}.pt"
    temporary = path.with_suffix(".part")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if best:
            _link(path, folder / "best.pt")
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        temporary.unlink(missing_ok=True)
        older = paths(folder)
        kept = f"{older[-1].name} is kept" if older else "there is no older one"
        reason = error.__cause__ or error.__context__ or error
        raise UserError(f"{path} could not be written ({reason}); {kept}; free space and run again") from error
    for old in paths(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def load_latest(folder: Path) -> dict[str, Any] | None:
    """The newest readable checkpoint on CPU; None when there is none at all.

    Raises:
        UserError: there are some, and none can be read.
    """
    found = paths(folder)
    for path in reversed(found):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file makes the reader raise
            print(f"{path} cannot be read ({type(error).__name__}): going back to the one before")
    if found:
        raise UserError(f"{folder}: no checkpoint there can be read; give --run another folder or delete this one")
    return None


def _link(source: Path, target: Path) -> None:
    """Makes `target` the same file as `source`, or a copy where the file system has no links; atomic."""
    temporary = target.with_suffix(".part")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)


def _sync_folder(folder: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):  # not on Windows, which has no such thing to sync
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(descriptor)
        os.close(descriptor)
