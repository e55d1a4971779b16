"""Weight files: safetensors whose metadata name the network, its sizes and the settings of its input."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

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
from runtime.command_line import UserError, check_input, write_whole

NAMES = {"landmark": "a landmark generator (stage 1)", "render": "a renderer (stage 2)"}

# Class of the config -> network, stage, family.
_NETWORKS: dict[type, Any] = {
    LandmarkGeneratorConfig: (LandmarkGenerator, "landmark", "paper"),
    LiteLandmarkGeneratorConfig: (LiteLandmarkGenerator, "landmark", "lite"),
    RendererConfig: (Renderer, "render", "paper"),
    LiteRendererConfig: (LiteRenderer, "render", "lite"),
}


def build(config: LandmarkGeneratorConfig | RendererConfig) -> Any:
    """Creates a new network; the class of the config decides which, and whether it is the paper's or lite."""
    network, *_ = _NETWORKS[type(config)]
    return network(config)


def input_settings(config: LandmarkGeneratorConfig | RendererConfig) -> dict[str, str | int | float]:
    """Returns the landmark, mel and crop settings of a network's input."""
    return fingerprint.current(getattr(config, "size", SIZE))  # stage 1 has no size: landmarks fit any crop


def save(network: LandmarkGenerator | Renderer, path: Path, about: Mapping[str, Any], half: bool = True) -> None:
    """Writes a weight file, under a temporary name first.

    Args:
        network: the network
        path: the file, `.safetensors`
        about: other JSON values to record: step, losses, data, ...
        half: store in half precision

    Raises:
        UserError: the file cannot be written
    """
    state = {}
    for name, value in network.state_dict().items():
        stored = value.half() if half and value.is_floating_point() else value
        state[name] = stored.contiguous()
    config = network.config
    _, stage, family = _NETWORKS[type(config)]
    metadata = {
        "stage": stage,
        "family": family,
        "config": json.dumps(asdict(config)),
        "settings": json.dumps(input_settings(config)),
        "extra": json.dumps(about),
    }
    write_whole(path, to_bytes(state, metadata))  # files of save_file are readable by their owner only


def load(path: str | Path, stage: str | None = None) -> Any:
    """Loads a network that `save` wrote: on the CPU, in float32 and eval mode.

    Its attributes `config` and `extra` hold what the file records.

    Raises:
        UserError: the file is missing, damaged or foreign, belongs to another stage than `stage`, or was made with
            other landmark, mel or crop settings
    """
    check_input(Path(path))
    configs = {tuple(kind): config_class for config_class, (_, *kind) in _NETWORKS.items()}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        state = load_file(path)
        found = metadata["stage"]
        config_class = configs[found, metadata["family"]]
        sizes, settings, extra = (json.loads(metadata[key]) for key in ("config", "settings", "extra"))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is damaged, or holds no weights of this project in the current format ({error}); "
            "the released code's PyTorch checkpoints need python -m models.convert_official"
        ) from error
    if stage and found != stage:
        raise UserError(f"{path} holds {NAMES[found]}, but {NAMES[stage]} is needed here")
    try:
        module = build(config_class(**sizes))
        module.load_state_dict(state)
    except (TypeError, RuntimeError) as error:
        raise UserError(f"{path} holds {NAMES[found]} that this version cannot load: {last_line(error)}") from error
    fingerprint.check(settings, input_settings(module.config), str(path))
    module.extra = extra
    return module.eval()


def last_line(error: Exception) -> str:
    """Returns the last line of an error; `load_state_dict` names up to a hundred tensors, one a line."""
    return str(error).strip().rpartition("\n")[2][:200]
