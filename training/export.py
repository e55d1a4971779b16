"""python -m training.export: the best or the last averaged weights of a run as a file that others load."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from safetensors import safe_open
from safetensors.torch import load_file, save

from runtime import command_line
from runtime.command_line import SettingError, write_whole
from training import checkpoint


@dataclass(frozen=True)
class ExportConfig:
    """Writes a run's averaged weights in half precision, with the settings they were trained with."""

    run: Path
    """Folder of a run that has been validated at least once."""
    output: Path
    """File to write, .safetensors."""
    which: Literal["best", "last"] = "best"
    """The best by validation, or the newest."""


def main(config: ExportConfig) -> None:
    """Raises UserError when the run has nothing to export or the file can't be written."""
    command_line.check_output(config.output, "--output", (".safetensors",))
    state = checkpoint.load_latest(config.run / "checkpoints")
    if state is None:
        raise SettingError("run", f"{config.run} holds no checkpoint")
    best = config.run / f"{next(iter(state['networks']))}.safetensors"
    if not best.exists():
        raise SettingError("run", f"{config.run} holds no validated weights yet; train on to the first validation")
    with safe_open(best, framework="pt") as file:
        metadata = file.metadata()
    weights = load_file(best)
    if config.which == "last":
        weights = {name: state["average"][name].to(value.dtype).contiguous() for name, value in weights.items()}
        metadata["extra"] = json.dumps({"step": state["step"], "best": False})
    write_whole(config.output, save(weights, metadata))
    print(f"{config.output}: step {json.loads(metadata['extra'])['step']} of {config.run}")


if __name__ == "__main__":
    command_line.run(main, ExportConfig, prog="python -m training.export")
