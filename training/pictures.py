"""Pictures for TensorBoard out of tensors."""

import colorsys

import numpy as np
import torch
from torch import Tensor

FULL_COLOUR = 0.1  # of the picture's side: a motion this long has full colour


def flow_colours(flow: Tensor) -> Tensor:
    """Motion (2, H, W) in pixels, x then y, as colour (3, H, W) in [0, 1]: direction is hue, length is saturation."""
    table = torch.tensor([colorsys.hsv_to_rgb(i / 256, 1, 1) for i in range(256)], device=flow.device)
    hue = (torch.atan2(flow[1], flow[0]) / (2 * torch.pi) * 256).long() % 256
    length = (flow.norm(dim=0) / (FULL_COLOUR * flow.shape[-1])).clamp(max=1)
    return 1 + length * (table[hue].permute(2, 0, 1) - 1)


def row(images: list[Tensor]) -> np.ndarray:
    """Images (3, H, W) in [0, 1] side by side: (H, W * n, 3) uint8."""
    together = torch.cat([image.detach().float().cpu() for image in images], dim=2)
    return (together.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
