"""Perceptual and style distance on VGG-19 features (paper, equations 16 to 18)."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from checkpoints import registry
from command_line import UserError

# Positions of the convolutions in torchvision's `features`, block by block; a pooling layer lies between blocks.
_BLOCKS = ((0, 2), (5, 7), (10, 12, 14, 16), (19, 21, 23, 25), (28, 30, 32, 34))
_CHANNELS = (64, 128, 256, 512, 512)
LAYERS = (1, 2, 3, 4, 5)  # relu1_1 .. relu5_1

_GET_IT = (
    f"download {registry.FILES['vgg19'].source} and put it into {registry.FOLDER}/ (python -m checkpoints --download "
    "vgg19 does both), or name the file that you have by --vgg"
)


def find_vgg(path: Path | None = None) -> Path:
    """The file with VGG-19's weights: the one given, or that of the registry.

    Raises:
        UserError: it is not there; the message says where to get it and where to put it
    """
    found = path or registry.find("vgg19")
    if found is None:
        raise UserError(f"VGG-19 weights, which the perceptual loss needs, are not in {registry.FOLDER}/; {_GET_IT}")
    if not found.is_file():
        raise UserError(f"VGG-19 weights: {found} is not a file; {_GET_IT}")
    return found


class VGG19(nn.Module):
    """ReLU features of ImageNet's VGG-19 up to the deepest layer asked for: frozen, always in eval mode.

    Pictures are RGB in [0, 1]. They are mapped to (x + 1) / 2 before ImageNet's normalisation: that step was meant for
    pictures in [-1, 1], but the released losses have it and the published loss weights were tuned with it.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path | dict[str, Tensor], layers: Sequence[int] = LAYERS):
        """Weights are torchvision's file (any precision) or its state dict, `features.N.weight` and `.bias`.

        Raises:
            UserError: the file is damaged or holds something else
        """
        super().__init__()
        self.layers = tuple(layers)
        state = _read(weights) if isinstance(weights, Path) else weights
        self.convs = nn.ModuleDict()
        previous = 3
        for block in range(max(self.layers)):
            # After the first convolution of the deepest block nothing is asked for.
            positions = _BLOCKS[block][:1] if block + 1 == max(self.layers) else _BLOCKS[block]
            for position in positions:
                conv = nn.Conv2d(previous, _CHANNELS[block], 3, padding=1)
                try:
                    conv.load_state_dict({k: state[f"features.{position}.{k}"] for k in ("weight", "bias")})
                except (KeyError, RuntimeError) as error:
                    raise UserError(f"VGG-19 weights: {weights} does not hold VGG-19; {_GET_IT}") from error
                self.convs[str(position)] = conv
                previous = _CHANNELS[block]
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)
        self.requires_grad_(False).eval().to(memory_format=torch.channels_last)  # faster, on CPU and GPU

    def train(self, mode: bool = True) -> "VGG19":
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> one feature map for each of the layers asked for, from shallow to deep."""
        x = ((images + 1) / 2 - self.mean) / self.std
        features = []
        for block, positions in enumerate(_BLOCKS[: max(self.layers)], start=1):
            if block > 1:
                x = F.max_pool2d(x, 2)
            for position in positions:
                if str(position) not in self.convs:
                    break
                x = F.relu(self.convs[str(position)](x), inplace=True)
                if position == positions[0] and block in self.layers:
                    features.append(x)
        return features


def _read(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch has no common class for damaged files
        raise UserError(f"VGG-19 weights: {path} cannot be read ({type(error).__name__}); {_GET_IT}") from error
    if not isinstance(state, dict):
        raise UserError(f"VGG-19 weights: {path} does not hold VGG-19; {_GET_IT}")
    return state


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
