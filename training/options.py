"""The settings that both training scripts share: every flag that isn't about the network, its losses or its data."""

import argparse
import json
import sys
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from runtime.command_line import UserError

# Flags that may differ when a run is continued: what a step computes stays the same, but for rounding and for its size,
# which is what to change where a run has diverged.
FREE = frozenset((
    "cache", "run", "preset", "vgg", "lpips", "minutes", "steps", "patience", "workers", "device", "compile",
    "precision", "keep", "log_every", "validate_every", "dry_run", "learning_rate", "clip_norm",
))  # fmt: skip
# Numbers that may be 0, by how their names begin; others are more.
MAY_BE_0 = (
    "minutes", "warmup_steps", "clip_norm", "ema", "patience", "workers", "seed", "overfit", "initial_motion_",
    "model.dropout", "loss.", "sampling.augment.", "split.",
)  # fmt: skip
BELOW_1 = {"ema": "decay below 1 (usual: 0.999)", "model.dropout": "probability below 1"}


@dataclass(frozen=True, kw_only=True)
class Options:
    cache: Path
    """Folder of clips that `python -m preprocess` made."""
    run: Path
    """Folder of this run. The same command again continues it."""
    preset: Literal["lite", "paper"] = "lite"
    """Sizes and defaults: the small networks that ship, or the paper's."""
    init: Path | None = None
    """Weights to start from: shipped, converted or an earlier run's. The network's sizes are taken from the file."""
    steps: int = 100_000
    """Stop after this many optimiser steps in all."""
    minutes: float | None = None
    """Stop (save, exit) after this many minutes of this command."""
    batch: int = 32
    """Samples a step, over all processes and accumulated parts."""
    accumulate: int = 1
    """Parts that a process cuts its share of the batch into, one after the other, to save memory."""
    learning_rate: float = 1e-4
    """Adam's step size; it and --clip-norm may be others when a run is continued."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from nothing."""
    clip_norm: float = 0.0
    """Gradients longer than this are shortened to it; 0: never."""
    ema: float = 0.999
    """Decay of the averaged weights, which are validated and exported; 0: the raw weights are."""
    patience: int = 0
    """Stop when so many validations in a row brought nothing better; 0: never."""
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = "auto"
    """Number format of forward and backward passes; weights stay fp32. auto: bf16 where the GPU or CPU has it, else
    fp32. tf32: CUDA's rounded products."""
    compile: bool = False
    """Compile the networks (torch.compile): a slow start, faster steps."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where to compute."""
    workers: int = 2
    """Processes that load data, for each training process."""
    seed: int = 0
    """Weights, samples and dropout are functions of the seed and the step."""
    log_every: int = 50
    """Steps between lines of metrics, which are means over these steps."""
    validate_every: int = 1000
    """Steps between validations, each followed by a checkpoint."""
    keep: int = 2
    """Checkpoints that stay, besides the best."""
    overfit: int = 0
    """Train and validate on this many fixed samples: the loss must fall to almost nothing."""
    dry_run: bool = False
    """Print sizes, one step's time and memory, and stop without writing anything."""

    def __post_init__(self) -> None:
        """Raises UserError, which names the flag, for a number that can't be, in any of the settings' groups."""
        for name, value in flatten(self).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                if not value > 0 and not name.startswith(MAY_BE_0):
                    raise UserError(f"{flag(name)}: {value} is not more than 0")
                if not value >= 0:
                    raise UserError(f"{flag(name)}: {value} is less than 0, or no number")
                if isinstance(value, int) and value >= 2**63:
                    raise UserError(f"{flag(name)}: {value} is too large a number")
                if name in BELOW_1 and value >= 1:
                    raise UserError(f"{flag(name)}: {value} is not a {BELOW_1[name]}")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of a step (0-based): linear warm-up, then constant."""
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup_steps))

    def check_batch(self, values: int) -> None:
        """Raises UserError where batch statistics would be of a single value: an encoder gives `values` a sample."""
        if self.batch // self.accumulate * values < 2:
            raise UserError(f"--batch: {self.batch} in {self.accumulate} parts leaves fewer than 2 samples in each, "
                            "too few for batch statistics; raise it or lower --accumulate")  # fmt: skip

    def validation_clips(self, train: list[str], val: list[str]) -> list[str]:
        """The clips to validate on: `val`, or (fine-tuning) those trained on where there are no others.

        Raises:
            UserError: there is none to train on, or none for validation.
        """
        if not train:
            raise UserError("--cache: no clip is left to train on; add clips, or change --train-list or --test-share")
        if val or self.overfit:
            return val
        if self.init is None:
            raise UserError(
                f"--cache: {len(train)} clip to train on and none to validate on; add clips or name some in --val-list "
                "(with --init, a single clip may serve for both)"
            )
        print("no other clip: validating on what is trained on, so stop early (--steps)", file=sys.stderr)
        return train


def spread(length: int, count: int) -> list[int]:
    """At most `count` indices, evenly over `length`."""
    return sorted({i * length // count for i in range(count)} if length else ())


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """A dataclass as {"model.width": 512, ...} of plain JSON values."""
    flat: dict[str, Any] = {}
    for name, value in vars(config).items():
        if is_dataclass(value):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = json.loads(json.dumps(value, default=str))
    return flat


def flag(name: str) -> str:
    """The command line's name of a setting in `flatten`."""
    return "--" + name.removeprefix("split.").replace("_", "-")


Config = TypeVar("Config", bound=Options)


def with_preset(config: type[Config], presets: dict[str, dict[str, Any]]) -> type[Config]:
    """`config` with the defaults of the preset that the command line names (`--preset`, else the first one)."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", nargs="?", default=next(iter(presets)))
    name = parser.parse_known_args()[0].preset  # a wrong name is left to the real parser
    defaults = {f.name: f.default_factory() for f in fields(config) if f.default_factory is not MISSING}
    defaults |= {"preset": name, **presets[name]} if name in presets else {}
    return partial(config, **defaults)  # type: ignore[return-value]


def with_sizes_of(config: Any, default: Any, loaded: Any) -> Any:
    """`config` with the network's sizes as --init has them. Raises UserError if the command line asks for others."""
    for name, value in flatten(loaded).items():
        if hasattr(config.model, name) and getattr(config.model, name) not in (getattr(default, name), value):
            raise UserError(f"--model.{name.replace('_', '-')}: {config.init} has {value}; leave this flag out")
    return replace(config, model=loaded)
