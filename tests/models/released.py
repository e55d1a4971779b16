"""Stored inputs and outputs of the released networks, and made-up checkpoints with their keys."""

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SEED = 7  # of the stored cases


def state_dict(folder: Path, name: str) -> dict[str, Tensor]:
    spec = importlib.util.spec_from_file_location("recipe", folder / "recipe.py")
    assert spec is not None and spec.loader is not None
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    return recipe.state_dict(folder / f"{name}.keys.tsv", SEED)


def case(folder: Path, name: str) -> dict[str, Tensor]:
    """Loads arrays as float32 tensors; bytes are divided by 255."""
    with np.load(folder / f"{name}.npz") as arrays:
        assert int(arrays.get("seed", SEED)) == SEED
        scales = {key: 255 if arrays[key].dtype == np.uint8 else 1 for key in arrays.files}
        return {key: torch.from_numpy(np.asarray(arrays[key], np.float32)) / scale for key, scale in scales.items()}


def rgb(images: Tensor) -> Tensor:
    return images.flip(-3)
