"""The composition of two convolutions equals the two convolutions in turn."""

import pytest
import torch
from torch import nn

from models.composed_conv import WIDE, two_convolutions
from models.layers import Spade, instance_norm


def convs(inputs: int = 3, hidden: int = 32, outputs: int = 12) -> tuple[nn.Conv2d, nn.Conv2d]:
    torch.manual_seed(0)
    return nn.Conv2d(inputs, hidden, 3, padding=1), nn.Conv2d(hidden, outputs, 3, padding=1)


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 3, 9, 14), (1, 3, 3, 3)])
@torch.inference_mode()
def test_composition_is_exact_up_to_the_border(shape: tuple[int, ...]) -> None:
    first, second = convs()
    x = torch.randn(shape)
    assert first.out_channels >= WIDE * first.in_channels
    torch.testing.assert_close(two_convolutions(first, second, x), second(first(x)), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_composition_works_in_half_precision() -> None:
    first, second = convs()
    x = torch.randn(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = two_convolutions(first, second, x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), second(first(x)), rtol=0, atol=0.02)


def test_spade_is_the_same_with_and_without_gradient() -> None:
    torch.manual_seed(0)
    spade = Spade(channels=8, maps=3, hidden=64)
    maps = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        value = spade(maps)
    torch.testing.assert_close(value, spade(maps).detach(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [3, 8, 32])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_instance_norm_is_the_same_with_and_without_gradient(channels: int, memory_format: torch.memory_format) -> None:
    x = (3 + torch.randn(2, channels, 16, 16)).contiguous(memory_format=memory_format)
    expected = torch.nn.functional.instance_norm(x)
    torch.testing.assert_close(instance_norm(x), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(instance_norm(x.requires_grad_()).detach(), expected, rtol=0, atol=1e-5)
