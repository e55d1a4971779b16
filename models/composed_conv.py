"""Two 3x3 convolutions without an activation between them, as one 5x5 convolution: on CPU, for inference."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MIN_GAIN = 2.8  # fewer multiplications by this factor pay for the border


class ComposedConv:
    """second(first(x)), both zero-padded. The composed kernel is kept while the weights stay."""

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d):
        self.first = first
        self.second = second
        self.versions: list[tuple[int, int]] = []
        separate = 9 * first.out_channels * (first.in_channels + second.out_channels)
        composed = 25 * first.in_channels * second.out_channels
        self.is_cheaper = separate > MIN_GAIN * composed

    def __call__(self, x: Tensor) -> Tensor:
        """(B, M, H, W) -> (B, C, H, W)."""
        self._update()
        y = F.conv2d(x, self.weight, self.bias, padding=2)
        first, second = self.first.weight, self.second.weight
        self._write_outer_rows(y, x, first, second)
        self._write_outer_rows(y.mT, x.mT, first.mT, second.mT)
        return y

    def _update(self) -> None:
        layers = nn.ModuleList([self.first, self.second])
        versions = [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in layers.parameters()]
        if versions == self.versions:
            return
        first, second = self.first.weight, self.second.weight
        assert self.first.bias is not None
        with torch.autocast(first.device.type, enabled=False):
            weight = F.conv2d(first.transpose(0, 1), second.flip(2, 3), padding=2).transpose(0, 1)
            bias = F.conv2d(self.first.bias[:, None, None], second.sum((2, 3), keepdim=True), self.second.bias)
        self.weight = weight.contiguous(memory_format=torch.channels_last)
        self.bias = bias.flatten()
        self.versions = versions  # at last: other threads may be drawing

    def _write_outer_rows(self, y: Tensor, x: Tensor, first: Tensor, second: Tensor) -> None:
        """Corrects the first and last row of y, where the 5x5 kernel sees hidden values outside the picture."""
        strips = torch.cat([x[:, :, :3], x[:, :, -3:]])
        top, bottom = F.conv2d(strips, first, self.first.bias, padding=1).chunk(2)
        hidden = torch.cat([top[:, :, :2], bottom[:, :, 1:]])  # the third row sees too little
        top, bottom = F.conv2d(hidden, second, self.second.bias, padding=1).chunk(2)
        y[:, :, 0] = top[:, :, 0]
        y[:, :, -1] = bottom[:, :, 1]
