"""Perceptual and style distance on VGG-19 features (paper, equations 16 to 18)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.vgg import cfgs, make_layers

from checkpoints import registry
from runtime.command_line import UserError

LAYERS = (1, 2, 3, 4, 5)  # relu1_1 .. relu5_1
_RELUS = ("1", "6", "11", "20", "29")  # their names among torchvision's layers


def load_vgg(path: Path | None = None, layers: Sequence[int] = LAYERS) -> "VGG19":
    """VGG-19 with the weights of torchvision's file (any precision): the one given, or that of the registry.

    Raises:
        UserError: it is not there (the message says where to get it and where to put it), or holds something else
    """
    found = path or registry.find("vgg19")
    if found is None or not found.is_file():
        where = f"{found} is not a file" if found else f"none in {' or '.join(map(str, registry.folders()))}"
        raise UserError(
            f"--vgg: the perceptual loss needs VGG-19's weights, and {where}; name the file that you have, or download "
            f"{registry.FILES['vgg19'].source} and put it into {registry.FOLDER}/ (python -m checkpoints --download "
            "vgg19 does both)"
        )
    with registry.reading(found, "VGG-19"):
        return VGG19(torch.load(found, map_location="cpu", weights_only=True), layers)


class VGG19(nn.Module):
    """ReLU features of ImageNet's VGG-19 up to the deepest layer asked for: frozen.

    Pictures are RGB in [0, 1]. They are mapped to (x + 1) / 2 before ImageNet's normalisation: that step was meant for
    pictures in [-1, 1], but the released losses have it and the published loss weights were tuned with it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, state: Mapping[str, Tensor], layers: Sequence[int] = LAYERS):
        """`state` is torchvision's state dict, `features.N.weight` and `.bias`; the classifier may be missing."""
        super().__init__()
        wanted = [_RELUS[layer - 1] for layer in sorted(layers)]
        self.features = create_feature_extractor(make_layers(cfgs["E"]), wanted)
        self.features.load_state_dict({name: state[f"features.{name}"] for name in self.features.state_dict()})
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)
        self.requires_grad_(False).to(memory_format=torch.channels_last)  # faster, on CPU and GPU

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> one feature map for each of the layers asked for, from shallow to deep."""
        return list(self.features(((images + 1) / 2 - self.mean) / self.std).values())


def perceptual(features: list[Tensor], target: list[Tensor]) -> Tensor:
    """Mean absolute difference, summed over the layers."""
    return torch.stack([F.l1_loss(f.float(), t.float()) for f, t in zip(features, target, strict=True)]).sum()


def style(features: list[Tensor], target: list[Tensor]) -> Tensor:
    """Mean absolute difference of the Gram matrices, summed over the layers."""
    return torch.stack([F.l1_loss(gram(f), gram(t)) for f, t in zip(features, target, strict=True)]).sum()


def gram(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, C): products of the channels, divided by C * H * W; in float32 whatever autocast says."""
    with torch.autocast(features.device.type, enabled=False):
        flat = features.float().flatten(2)
        return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])
