"""Weight files: safetensors whose metadata say which network they hold, of which sizes, for which input settings."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, overload

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes

from models.landmark_generator import LandmarkGenerator, LandmarkGeneratorConfig
from models.renderer import Renderer, RendererConfig
from runtime.command_line import UserError, write_whole

Stage = Literal["landmark", "renderer"]

_STAGES = {"landmark": (LandmarkGenerator, LandmarkGeneratorConfig), "renderer": (Renderer, RendererConfig)}
NAMES = {"landmark": "a landmark generator (stage 1)", "renderer": "a renderer (stage 2)"}


def stage_of(module: LandmarkGenerator | Renderer) -> Stage:
    """Which of the two networks it is."""
    return "renderer" if isinstance(module, Renderer) else "landmark"


def save(
    module: LandmarkGenerator | Renderer, path: str | Path, settings: Mapping[str, str | int | float],
    extra: Mapping[str, Any] | None = None, half: bool = False,
) -> None:  # fmt: skip
    """Writes the weights under a temporary name in the same folder, then renames.

    Args:
        module: the network
        path: the file, `.safetensors`
        settings: landmark, mel and crop settings that it was trained with
        extra: what else to record, as JSON: step, losses, data, ...
        half: store half precision
    """
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    metadata = {
        "stage": stage_of(module),
        "config": json.dumps(asdict(module.config)),
        "settings": json.dumps(dict(settings)),
        "extra": json.dumps(dict(extra or {})),
    }
    write_whole(Path(path), to_bytes(state, metadata))  # not by save_file, whose files only their owner may read


@overload
def load(path: str | Path, stage: Literal["landmark"]) -> LandmarkGenerator: ...
@overload
def load(path: str | Path, stage: Literal["renderer"]) -> Renderer: ...
@overload
def load(path: str | Path, stage: None = None) -> LandmarkGenerator | Renderer: ...


def load(path: str | Path, stage: Stage | None = None) -> LandmarkGenerator | Renderer:
    """The network in a file of `save`: on the CPU, in float32, in eval mode, without gradients.

    It has the attributes `config`, `settings` (landmark, mel and crop settings it was trained with) and `extra`
    (whatever else was recorded).

    Raises:
        UserError: no such file, a damaged or foreign file, or, where `stage` is given, the other stage's weights
    """
    path = Path(path)
    metadata, state = _read(path)
    try:
        found = metadata["stage"]
        network, config = _STAGES[found]
        sizes, settings, extra = (json.loads(metadata[key]) for key in ("config", "settings", "extra"))
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{path} holds no weights of this project; released .pth files need python -m models.convert_official"
        ) from error
    if stage is not None and found != stage:
        raise UserError(f"{path} holds {NAMES[found]}, but {NAMES[stage]} is needed here")
    try:
        module = network(config(**sizes))
        module.load_state_dict(state)
    except (TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()[:200]  # not each of a hundred names
        raise UserError(f"{path} holds {NAMES[found]} that this version does not fit: {reason}") from error
    module.settings, module.extra = settings, extra
    return module.eval().requires_grad_(False)


def _read(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    if not path.is_file():
        raise UserError(f"weights: {path} does not exist" if not path.exists() else f"weights: {path} is not a file")
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except PermissionError as error:
        raise UserError(f"weights: {path} cannot be read; change its permissions") from error
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}); get or write it again") from error
