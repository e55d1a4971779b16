"""Settings that both training scripts share: all flags except those of the network, its losses and its data."""

import argparse
import json
import sys
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

from runtime.command_line import SettingError, fail


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a run. Raises SettingError for a number that is out of range."""

    # Settings that may change when a run is continued: they affect the rounding or length of a step, or no step at all.
    CHANGEABLE = frozenset(
        {"cache", "run", "config", "minutes", "steps", "workers", "device", "precision", "log_every"}
        | {"validate_every", "dry_run", "profile", "learning_rate", "clip_norm"}
    )
    # Integers that may be 0. Other integers may not; all floats may.
    MAY_BE_ZERO = frozenset({"warmup_steps", "workers", "seed", "sampling.overfit"})

    cache: Path = tyro.MISSING
    """Folder of clips that `python -m preprocess` made."""
    run: Path = tyro.MISSING
    """Folder of this run. The same command again continues it."""
    config: Path | None = None
    """config.json of an earlier run. The flags of its command apply first, then those given here."""
    preset: Literal["lite", "paper"] = "lite"
    """Sizes and defaults: the small networks that ship, or the paper's."""
    init: Path | None = None
    """Weights to start from: shipped, converted or from an earlier run. The network's sizes are taken from the file."""
    steps: int = 100_000
    """Total number of optimiser steps."""
    minutes: float | None = None
    """Save and exit when this command has run for this many minutes."""
    batch: int = 32
    """Samples per step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts into which a process splits its share of the batch, to save memory; gradients are accumulated."""
    learning_rate: float = 1e-4
    """Adam's learning rate. It and --clip-norm may change when a run is continued."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from 0."""
    clip_norm: float = 0.0
    """Maximum norm of the gradient; 0: no clipping."""
    ema: float = 0.999
    """Decay of the averaged weights, which are validated and exported; 0: the raw weights."""
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    """Number format of both passes; weights stay fp32. auto: bf16 where the device computes in it, else fp32."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device to train on."""
    workers: int = 2
    """Processes that load data, per training process."""
    seed: int = 0
    """Weights, samples and dropout are functions of the seed and the step."""
    log_every: int = 50
    """Steps between lines of metrics, which are means over these steps."""
    validate_every: int = 1000
    """Steps between validations, each followed by a checkpoint."""
    profile: bool = False
    """Write a trace of the first steps to RUN/trace.json, for Perfetto or chrome://tracing."""
    dry_run: bool = False
    """Print the sizes, time and memory of a step, then exit without writing anything."""

    def __post_init__(self) -> None:
        for name, value in flatten(self).items():
            if type(value) not in (int, float):
                continue
            least = 1 if type(value) is int and name not in self.MAY_BE_ZERO else 0
            if not value >= least:
                raise SettingError(name, f"must be at least {least}, not {value}")
        if self.ema >= 1:
            raise SettingError("ema", f"must be below 1, not {self.ema}")

    def learning_rate_at(self, step: int) -> float:
        """Returns the learning rate of a step (0-based): linear warm-up, then constant."""
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup_steps))

    def decay_at(self, step: int) -> float:
        """Returns the decay of the averaged weights after `step` steps.

        At first it is (1 + step) / (10 + step), so that the random initial weights are soon forgotten. With `init` it
        is (1 + step) / (2 + step): the average is the mean of all weights so far, with the initial ones counted twice.
        """
        delay = 2 if self.init else 10
        return min(self.ema, (1 + step) / (delay + step))


def flatten(config: Any, group: str = "") -> dict[str, Any]:
    """Flattens a dataclass to {"model.width": 512, ...} with plain JSON values."""
    flat = {}
    for name, value in vars(config).items():
        if is_dataclass(value):
            flat |= flatten(value, f"{group}{name}.")
        else:
            flat[group + name] = json.loads(json.dumps(value, default=str))
    return flat


def chosen_preset(presets: dict[str, Any]) -> Any:
    """Returns the preset that --preset names, else lite; the real parser refuses other names.

    With --config, puts the flags of that earlier command in front of those in `sys.argv`.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset")
    parser.add_argument("--config")
    file = parser.parse_known_args()[0].config
    if file:
        try:
            sys.argv[1:1] = json.loads(Path(file).read_text())["command"][1:]
        except (OSError, ValueError, KeyError, TypeError) as error:
            fail(f"--config: {file} is not the config.json of a run ({error})")
    return presets.get(parser.parse_known_args()[0].preset, presets["lite"])


def with_sizes_of(config: Any, preset: Any, loaded: Any) -> Any:
    """Returns `config` with a loaded network's sizes. Raises SettingError if `config.model` asks for other sizes."""
    if config.model not in (preset.model, loaded):
        raise SettingError("model", f"{config.init} already sets the network's sizes; leave these settings out")
    return replace(config, model=loaded)
