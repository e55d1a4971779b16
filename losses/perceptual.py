"""Perceptual and style distance on VGG-19 features (paper, equations 17 to 19)."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.vgg import cfgs, make_layers

LAYERS = (1, 2, 3, 4, 5)  # relu1_1 .. relu5_1
_RELUS = ("1", "6", "11", "20", "29")  # the names of these layers in torchvision


class VGG19(nn.Module):
    """ReLU features phi_i of ImageNet's VGG-19, frozen, up to the deepest of the chosen layers.

    Pictures are RGB in [0, 1]. Before ImageNet's normalisation they are mapped to (x + 1) / 2. That step is meant for
    pictures in [-1, 1], but the released losses have it, and the published loss weights were tuned with it.
    """

    statistics: Tensor  # (2, 3, 1, 1): mean and standard deviation of ImageNet's colours

    def __init__(self, state: Mapping[str, Tensor], layers: Sequence[int] = LAYERS):
        """`state` is torchvision's state dict (`features.N.weight` and `.bias`); the classifier may be missing."""
        super().__init__()
        names = [_RELUS[layer - 1] for layer in sorted(layers)]
        self.features = create_feature_extractor(make_layers(cfgs["E"]), names)
        self.features.load_state_dict({name: state[f"features.{name}"] for name in self.features.state_dict()})
        statistics = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
        self.register_buffer("statistics", statistics[..., None, None], persistent=False)
        self.requires_grad_(False).to(memory_format=torch.channels_last)  # faster, on CPU and GPU

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (B, 3, H, W) to the feature maps of the chosen layers, from shallow to deep."""
        mean, deviation = self.statistics
        return list(self.features(((images + 1) / 2 - mean) / deviation).values())


def perceptual(features: list[Tensor], target: list[Tensor]) -> Tensor:
    """Computes the mean absolute difference of the features, summed over the layers (equations 17 and 18)."""
    distances = [F.l1_loss(f.float(), t.float()) for f, t in zip(features, target, strict=True)]
    return torch.stack(distances).sum()


def style(features: list[Tensor], target: list[Tensor]) -> Tensor:
    """Computes the mean absolute difference of the Gram matrices, summed over the layers (equation 19)."""
    return perceptual([gram(f) for f in features], [gram(t) for t in target])


def gram(features: Tensor) -> Tensor:
    """Computes the Gram matrix divided by C * H * W, always in float32: (B, C, H, W) -> (B, C, C)."""
    with torch.autocast(features.device.type, enabled=False):
        flat = features.float().flatten(2)
        return flat @ flat.mT / flat[0].numel()
