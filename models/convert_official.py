"""Converts a checkpoint of the released IP-LAP code into a weight file of this project: our names, RGB instead of BGR.

python -m models.convert_official IN.pth OUT.safetensors
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor

from models import weights
from models.configs import LandmarkGeneratorConfig, RendererConfig
from models.landmark_generator import LandmarkGenerator
from models.renderer import Renderer
from runtime.command_line import UserError, check_input, check_output, naming, run

# Regular expressions from released names to ours, applied in order: both networks, then stage 1, then stage 2.
_NAMES = {
    r"^module\.": "",
    r"\.conv_block\.0\.": ".conv.",
    r"\.conv_block\.1\.": ".norm.",
    r"^mel_encoder": "audio_encoder",
    r"^ref_encoder": "reference_encoder",
    r"^Norm\.": "token_norm.",
    r"^fusion_transformer\.transformer_encoder": "fusion.encoder",
    r"^fusion_transformer\.modality\.weight": "fusion.type_embedding",
    r"^mouse_keypoint_map": "lip_head",
    r"^jaw_keypoint_map": "jaw_head",
    r"^flow_module\.conv([12])": r"reference_encoder.conv\1",
    r"\.conv1_bn\.": ".shallow.norm.",
    r"\.conv2_bn\.": ".deep.norm.",
    r"^(reference_encoder|translation)\.conv1\.": r"\1.shallow.conv.",
    r"^(reference_encoder|translation)\.conv2\.": r"\1.deep.conv.",
    r"^flow_module\.conv_4\.": "motion_field.flow.",
    r"^flow_module\.conv_5\.": "motion_field.weight.",
    r"^flow_module\.spade_layer_1\.": "motion_field.coarse.0.",
    r"^flow_module\.spade_layer_2\.": "motion_field.coarse.1.",
    r"^flow_module\.spade_layer_4\.": "motion_field.fine.",
    r"^translation\.audio_encoder\.": "translation.audio.",
    r"^translation\.conv_last\.": "translation.to_rgb.",
    r"^translation\.(spade|adain)_1\.": r"translation.\1_half.",
    r"^translation\.(spade|adain)_2\.": r"translation.\1_full.",
    r"^translation\.spade_4\.": "translation.spade_image.",
    r"\.(?:spade|adain)_layer_1\.": ".norms.0.",
    r"\.(?:spade|adain)_layer_2\.": ".norms.1.",
    r"\.conv_1\.": ".convs.0.",
    r"\.conv_2\.": ".convs.1.",
    r"(\.norms\.\d)\.(?:conv1|mlp_shared\.0)\.": r"\1.hidden.",
    r"\.mlp_(gamma|beta)\.": r".\1.",
}
_UNUSED = re.compile(r"perceptual\.|\.pe$")  # a copy of VGG-19 and the tables of positional encodings
# Layers that read a picture: the first three channels are its colours, any others belong to grey sketches.
_SEES_PICTURE = re.compile(r"\.shallow\.conv\.weight|\.spade_image\.norms\.\d\.hidden\.weight")


def convert(state: Mapping[str, Tensor]) -> LandmarkGenerator | Renderer:
    """Builds the network of a released state dict, which is recognised by its keys. The renderer is converted to RGB.

    Raises:
        UserError: the keys belong to neither network
        RuntimeError: tensors are missing, unknown or of another size
    """
    renamed = {_rename(name): value for name, value in state.items() if not _UNUSED.search(name)}
    if "fusion.type_embedding" in renamed:
        module = LandmarkGenerator(LandmarkGeneratorConfig())
        renamed["fusion.type_embedding"] = renamed["fusion.type_embedding"][1:]  # row 0 is padding
    elif "reference_encoder.shallow.conv.weight" in renamed.keys() - state:  # converted files have this name already
        module = Renderer(RendererConfig())
        _join_affine(renamed)
        _swap_colours(renamed)
    else:
        raise UserError("its keys match neither the released landmark generator nor the released renderer")
    module.load_state_dict(renamed)
    return module.eval()


def _rename(name: str) -> str:
    for pattern, replacement in _NAMES.items():
        name = re.sub(pattern, replacement, name)
    return name


def _join_affine(state: dict[str, Tensor]) -> None:
    """Concatenates the layers of gamma and beta, in place."""
    for name in list(state):
        if ".gamma." in name:
            pair = [state.pop(name), state.pop(name.replace(".gamma.", ".beta."))]
            state[name.replace(".gamma.", ".affine.")] = torch.cat(pair)


def _swap_colours(state: dict[str, Tensor]) -> None:
    """Converts the renderer from BGR to RGB, in place."""
    for name, value in state.items():
        if _SEES_PICTURE.search(name):
            state[name] = torch.cat([value[:, :3].flip(1), value[:, 3:]], dim=1)
    state["translation.to_rgb.weight"] = state["translation.to_rgb.weight"].flip(0)


@dataclass(frozen=True)
class ConvertConfig:
    """Converts a checkpoint of the released IP-LAP code. Either network will do; it is recognised by its keys."""

    source: tyro.conf.Positional[Path]
    """Released checkpoint, .pth"""
    output: tyro.conf.Positional[Path]
    """File to write, .safetensors"""


def main(config: ConvertConfig) -> None:
    check_output(config.output, "OUTPUT", (".safetensors",))
    with naming("SOURCE"):
        check_input(config.source)
        try:
            checkpoint = torch.load(config.source, map_location="cpu", weights_only=True)
            module = convert(checkpoint.get("state_dict", checkpoint))
        except Exception as error:  # damaged files raise many kinds of errors in torch
            raise UserError(
                f"{config.source} is damaged, or not a released checkpoint ({weights.last_line(error)})"
            ) from error
    step = checkpoint.get("global_step") or 0
    # `save` records this project's landmark, mel and crop settings, which are those of the released code.
    weights.save(module, config.output, {"step": step, "source": "released IP-LAP weights, converted"}, half=False)
    print(f"{config.output}: {type(module).__name__}, from step {step}")


if __name__ == "__main__":
    run(main, ConvertConfig, prog="python -m models.convert_official")
