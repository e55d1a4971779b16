"""Weight files: safetensors whose metadata name the network, its sizes and the settings of its input."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes

from face import fingerprint
from face.crop import SIZE
from models.configs import LandmarkGeneratorConfig, RendererConfig
from models.landmark_generator import LandmarkGenerator
from models.lite.landmark_generator import LiteLandmarkGenerator, LiteLandmarkGeneratorConfig
from models.lite.renderer import LiteRenderer, LiteRendererConfig
from models.renderer import Renderer
from runtime.command_line import UserError, write_whole

Stage = Literal["landmark", "render"]
CONVERT = "the released code's PyTorch checkpoints need python -m models.convert_official"
NAMES = {"landmark": "a landmark generator (stage 1)", "render": "a renderer (stage 2)"}

_NETWORKS: dict[tuple[str, str], Any] = {
    ("landmark", "paper"): (LandmarkGenerator, LandmarkGeneratorConfig),
    ("landmark", "lite"): (LiteLandmarkGenerator, LiteLandmarkGeneratorConfig),
    ("render", "paper"): (Renderer, RendererConfig),
    ("render", "lite"): (LiteRenderer, LiteRendererConfig),
}


def build(config: LandmarkGeneratorConfig | RendererConfig) -> Any:
    """A new network, of the paper or lite by the class of its config."""
    networks = {config_class: network for network, config_class in _NETWORKS.values()}
    return networks[type(config)](config)


def save(
    module: LandmarkGenerator | Renderer,
    path: Path,
    settings: Mapping[str, str | int | float],
    extra: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Writes a weight file, under a temporary name first.

    Args:
        module: the network
        path: the file, `.safetensors`
        settings: landmark, mel and crop settings of its training
        extra: what else to record, as JSON: step, losses, data, ...
        half: store in half precision

    Raises:
        UserError: the file cannot be written
    """
    state = {}
    for name, value in module.state_dict().items():
        stored = value.half() if half and value.is_floating_point() else value
        state[name] = stored.contiguous()
    [(stage, family)] = [key for key, (network, _) in _NETWORKS.items() if network is type(module)]
    metadata = {
        "stage": stage,
        "family": family,
        "config": json.dumps(asdict(module.config)),
        "settings": json.dumps(settings),
        "extra": json.dumps(extra or {}),
    }
    write_whole(path, to_bytes(state, metadata))  # not by save_file, whose files only their owner may read


def load(path: str | Path, stage: Stage | None = None) -> Any:
    """Loads a network from a file of `save`: on the CPU, in float32, in eval mode, without gradients.

    Its attributes `config` and `extra` hold what the file records.

    Raises:
        UserError: the file is missing, damaged or foreign, holds the weights of another stage than `stage`, or was made
            with other landmark, mel or crop settings
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"weights: {path} does not exist, or is not a file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}); {CONVERT}") from error
    try:
        found = metadata["stage"]
        network, config_class = _NETWORKS[found, metadata["family"]]
        sizes, settings, extra = (json.loads(metadata[key]) for key in ("config", "settings", "extra"))
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} holds no weights of this project, or an earlier version's; {CONVERT}") from error
    if stage is not None and found != stage:
        raise UserError(f"{path} holds {NAMES[found]}, but {NAMES[stage]} is needed here")
    try:
        module = network(config_class(**sizes))
        module.load_state_dict(state)
    except (TypeError, RuntimeError) as error:
        raise UserError(f"{path} holds {NAMES[found]} which this version cannot load: {last_line(error)}") from error
    size = sizes.get("size", SIZE)  # landmarks fit crops of any size
    fingerprint.check(settings, fingerprint.current(size), str(path))
    module.extra = extra
    return module.eval().requires_grad_(False)


def last_line(error: Exception) -> str:
    """What an error of `load_state_dict` says last; it names up to a hundred tensors, each in a line."""
    return str(error).splitlines()[-1].strip()[:200]
