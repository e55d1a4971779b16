"""python -m training.export: the best or the last averaged weights of a run as a file that others load."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from models import weights
from runtime import command_line
from runtime.command_line import UserError
from training import checkpoint


@dataclass(frozen=True)
class Config:
    """Writes a run's averaged weights in half precision, with the settings they were trained with."""

    run: Path
    """Folder of a run that has been validated at least once."""
    output: Path
    """File to write, .safetensors."""
    which: Literal["best", "last"] = "best"
    """The best by validation, or the newest."""


def main(config: Config) -> None:
    """Raises UserError when the run has nothing to export or the file can't be written."""
    command_line.check_output(config.output, "--output", (".safetensors",))
    state = checkpoint.load_latest(config.run / "checkpoints")
    if state is None:
        raise UserError(f"--run: {config.run} holds no checkpoint")
    best = config.run / f"{next(iter(state['networks']))}.safetensors"  # other weights may lie beside it, for --weights
    if not best.exists():
        raise UserError(f"--run: {config.run} holds no validated weights yet; train on to the first validation")
    module = weights.load(best)
    if config.which == "last":
        module.load_state_dict(state["average"])
        module.extra = {"step": state["step"], "best": False}
    weights.save(module, config.output, module.settings, module.extra, half=True)
    print(f"{config.output}: step {module.extra['step']} of {config.run}")


if __name__ == "__main__":
    command_line.run(main, Config, prog="python -m training.export")
