"""Two 3x3 convolutions without an activation between them, computed as one 5x5 convolution; for inference."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GAIN = 2.8  # fewer multiplications by this factor: below, the borders cost more than is saved


class ComposedConv:
    """second(first(x)), both zero-padded, with the composed kernel kept for as long as the weights stay."""

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d):
        self.first = first
        self.second = second
        inputs, hidden, outputs = first.in_channels, first.out_channels, second.out_channels
        self.is_cheaper = GAIN * 25 * inputs * outputs < 9 * hidden * (inputs + outputs)
        self._key: list[tuple[int, int]] = []

    def halves(self, x: Tensor) -> list[Tensor]:
        """Both halves of the output's channels, as tensors of their own: halves of one are slow to read.

        Inside the picture the composition is exact. At the border a 5x5 convolution would see hidden values outside
        the picture, where zero padding has none, so the two convolutions compute one line at each side.
        """
        self._update()
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        kernels = zip(self._weight.chunk(2), self._bias.chunk(2), strict=True)
        outputs = [F.conv2d(x, weight, bias, padding=2) for weight, bias in kernels]
        rows = self._outer_rows(x, self.first.weight, self.second.weight)
        columns = self._outer_rows(x.transpose(2, 3), *self._transposed)
        for index, output in enumerate(outputs):
            output[:, :, 0], output[:, :, -1] = (row.chunk(2, dim=1)[index] for row in rows)
            output[..., 0], output[..., -1] = (column.chunk(2, dim=1)[index] for column in columns)
        return outputs

    def _outer_rows(self, x: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """The first and the last row (B, C, W) of the output, from the three outer rows of x and both weights."""
        batch = len(x)
        hidden = F.conv2d(torch.cat([x[:, :, :3], x[:, :, -3:]]), first, self.first.bias, padding=1)
        hidden = torch.cat([hidden[:batch, :, :2], hidden[batch:, :, 1:]])  # the third row sees too little
        output = F.conv2d(hidden, second, self.second.bias, padding=1)
        return output[:batch, :, 0], output[batch:, :, 1]

    def _update(self) -> None:
        """Composes weight (C, M, 5, 5) and bias (C,), if the weights have changed."""
        assert self.first.bias is not None and self.second.bias is not None
        weights = [self.first.weight, self.first.bias, self.second.weight, self.second.bias]
        key = [(weight.data_ptr(), 0 if weight.is_inference() else weight._version) for weight in weights]
        if key == self._key:
            return
        first, second = self.first.weight, self.second.weight
        with torch.autocast(first.device.type, enabled=False):
            weight = F.conv2d(first.transpose(0, 1), second.flip(2, 3), padding=2).transpose(0, 1)
            self._bias = self.second.bias + second.sum((2, 3)) @ self.first.bias
        self._weight = weight.contiguous(memory_format=torch.channels_last)
        self._transposed = [w.transpose(2, 3).contiguous(memory_format=torch.channels_last) for w in (first, second)]
        self._key = key  # at last: other threads may be drawing
