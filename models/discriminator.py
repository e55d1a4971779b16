"""Multi-scale patch discriminator of stage 2 (paper, section 3.2.3; the PatchGAN of pix2pixHD)."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import instance_norm

SCALES = 2  # each half the size of the one before


class PatchDiscriminator(nn.Module):
    """Maps pictures (B, 3, H, W) to the feature maps after each LeakyReLU, followed by the logits of the patches."""

    def __init__(self, width: int):
        super().__init__()
        channels = (3, width, 2 * width, 4 * width, 8 * width, 1)
        strides = (2, 2, 2, 1, 1)
        self.convs = nn.ModuleList()
        for (in_channels, out_channels), stride in zip(pairwise(channels), strides, strict=True):
            self.convs.append(nn.Conv2d(in_channels, out_channels, 4, stride, padding=2))

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for conv in self.convs[:-1]:
            x = conv(x)
            if features:  # all but the first and the last layer are normalised
                x = instance_norm(x)
            x = F.leaky_relu(x, 0.2)
            features.append(x)
        return [*features, self.convs[-1](x)]


class Discriminator(nn.Module):
    """One patch discriminator for each scale."""

    def __init__(self, width: int):
        """`width`: channels of the first layer, doubled three times."""
        super().__init__()
        self.scales = nn.ModuleList(PatchDiscriminator(width) for _ in range(SCALES))

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """Maps (B, 3, H, W), RGB in [0, 1], to feature maps and logits for each scale, full size first."""
        outputs = []
        for scale in self.scales:
            outputs.append(scale(x))
            x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        return outputs
