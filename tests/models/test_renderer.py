"""Properties of the renderer: sizes, sharing of work, each option, the motion field."""

from dataclasses import replace
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from models.configs import RendererConfig
from models.layers import Spade
from models.lite import LITE
from models.motion_field import RELEASED, Motion, ReferenceFeatures, Sampling, align
from models.renderer import Renderer

Network = TypeVar("Network", bound=Renderer)
TINY = RendererConfig(
    size=32, shallow=4, deep=16, alignment_deep=8, modulation=8, style_hidden=8, audio_width=2, kernel=3
)  # fmt: skip


def inputs(config: RendererConfig, batch: int = 2, references: int = 3) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    size = config.size
    shapes = [(3, size, size), (config.num_frames, 3, size, size), *[(references, 3, size, size)] * 2, (1, 80, 16)]
    values = [torch.rand(batch, *shape, generator=generator) for shape in shapes]
    values[0][:, :, size // 2 :] = 0
    return tuple(values)


def perturb(network: Network) -> Network:
    """Moves every parameter away from its initialisation."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def build(config: RendererConfig) -> Renderer:
    torch.manual_seed(0)
    return perturb(Renderer(config).eval())


@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize("num_frames", [3, 5])
@torch.inference_mode()
def test_sizes_by_config(size: int, num_frames: int) -> None:
    config = replace(TINY, size=size, num_frames=num_frames)
    output = build(config)(*inputs(config, batch=1, references=2))
    assert output.face.shape == output.warped_reference.shape == (1, 3, size, size)
    assert output.motion is not None and output.motion.flow.shape == (1, 2, 2, size, size)
    assert output.motion.weight.shape == (1, 2, 1, size, size)
    assert output.face.min() >= 0 and output.face.max() <= 1 and output.face.std() > 0.01


def test_parameter_count_is_the_papers() -> None:
    paper = sum(p.numel() for p in Renderer(RendererConfig()).parameters())
    assert paper == pytest.approx(19.0e6, rel=0.005)


@torch.inference_mode()
def test_references_of_one_video_serve_many_frames() -> None:
    network = build(TINY)
    masked, sketches, images, reference_sketches, mel = inputs(TINY, batch=3)
    features = network.encode_references(images[:1], reference_sketches[:1])
    together = network.render(masked, sketches, features, mel)
    for i in range(3):
        alone = network(masked[[i]], sketches[[i]], images[:1], reference_sketches[:1], mel[[i]])
        assert together.motion is not None
        for shared, own in zip((*together[:2], *together.motion), (*alone[:2], *alone.motion), strict=True):
            torch.testing.assert_close(shared[[i]], own, rtol=0, atol=2e-6)


@torch.inference_mode()
def test_batches_keep_their_references() -> None:
    network, values = build(TINY), inputs(TINY, batch=3)
    together = network(*values)
    alone = network(*(value[[1]] for value in values))
    torch.testing.assert_close(together.face[[1]], alone.face, rtol=0, atol=2e-6)
    assert not torch.allclose(together.warped_reference[0], together.warped_reference[1], atol=1e-2)


@torch.inference_mode()
def test_modulation_is_computed_once_for_all_references() -> None:
    network, batches = build(TINY), []
    for module in network.modules():
        if isinstance(module, Spade):
            module.register_forward_hook(lambda _, arguments, __: batches.append(len(arguments[0])))
    network(*inputs(TINY, batch=2, references=7))
    assert batches == [2] * 12  # 6 blocks of 2 layers, batch 2 whatever the number of references


@torch.inference_mode()
def test_order_of_references_does_not_matter() -> None:
    network = build(TINY)
    masked, sketches, images, reference_sketches, mel = inputs(TINY)
    reversed_order = network(masked, sketches, images.flip(1), reference_sketches.flip(1), mel)
    output = network(masked, sketches, images, reference_sketches, mel)
    torch.testing.assert_close(reversed_order.face, output.face, rtol=0, atol=2e-6)


def test_gradient_reaches_every_parameter() -> None:
    network = build(TINY).train()
    network(*inputs(TINY)).face.square().sum().backward()
    # BatchNorm subtracts the mean, so the bias before it has no effect.
    without = [n for n, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert without == []


@torch.inference_mode()
def test_without_warping_references_stay_where_they_are() -> None:
    network = build(replace(TINY, use_warping=False))
    masked, sketches, images, reference_sketches, mel = inputs(TINY)
    output = network(masked, sketches, images, reference_sketches, mel)
    assert output.motion is None
    torch.testing.assert_close(output.warped_reference, images.mean(1))
    features = network.encode_references(images[:1], reference_sketches[:1])
    assert network.render(masked, sketches, features, mel).face.shape == (2, 3, 32, 32)


@torch.inference_mode()
def test_audio_changes_the_face_unless_switched_off() -> None:
    *others, mel = inputs(TINY)
    network, deaf = build(TINY), build(replace(TINY, use_audio=False))
    assert (network(*others, mel).face - network(*others, -mel).face).abs().max() > 1e-4
    torch.testing.assert_close(deaf(*others, mel).face, deaf(*others, -mel).face, rtol=0, atol=0)
    assert not [name for name, _ in deaf.named_parameters() if ".audio." in name]


@torch.inference_mode()
def test_one_channel_of_grey_sketches_is_enough() -> None:
    config = replace(TINY, sketch_channels=1)
    masked, sketches, images, reference_sketches, mel = inputs(config)
    network = build(config)
    full = network(masked, sketches, images, reference_sketches, mel)
    sketches[:, :, 1:] = 0
    reference_sketches[:, :, 1:] = 0
    torch.testing.assert_close(network(masked, sketches, images, reference_sketches, mel).face, full.face)


@pytest.mark.parametrize("right", [-3, 0, 2])
@pytest.mark.parametrize("down", [-1, 4])
def test_flow_is_in_pixels(right: int, down: int) -> None:
    """Each target pixel takes the reference pixel that is `right` and `down` of it."""
    image = torch.rand(1, 3, 24, 20)
    flow = torch.tensor([right, down]).float()[:, None, None].expand(1, 2, 24, 20)
    grid = LITE.grid(flow).permute(0, 2, 3, 1)
    warped = torch.nn.functional.grid_sample(image, grid, align_corners=False)
    expected = image.roll((-down, -right), dims=(2, 3))[:, :, 5:-5, 4:-4]
    torch.testing.assert_close(warped[:, :, 5:-5, 4:-4], expected, rtol=0, atol=1e-4)


def test_released_grid_has_its_corners_at_one() -> None:
    grid = RELEASED.grid(torch.zeros(2, 16, 16))
    assert grid[:, 0, 0].tolist() == [-1, -1] and grid[:, -1, -1].tolist() == [1, 1]
    ramp = torch.arange(16.0).expand(1, 1, 1, 16, 16)
    steps = RELEASED.warp(ramp, grid[None, None])[..., 8, 1:-1].diff()
    torch.testing.assert_close(steps, torch.full_like(steps, 16 / 15))  # zero flow shrinks the picture


@pytest.mark.parametrize(("sampling", "outside"), [(LITE, 1), (RELEASED, 0)])
def test_outside_a_reference_is_its_edge_or_black(sampling: Sampling, outside: int) -> None:
    features = ReferenceFeatures(torch.ones(1, 2, 3, 16, 16), torch.ones(1, 2, 2, 16, 16), torch.ones(1, 2, 4, 8, 8))
    motion = Motion(torch.full((1, 2, 2, 16, 16), 12.0), torch.ones(1, 2, 1, 16, 16))  # most of it lies outside
    for aligned in align(features, motion, sampling):
        assert aligned[..., -1, -1].mean().item() == pytest.approx(outside, abs=1e-4)
        assert aligned[..., 0, 0].mean().item() == pytest.approx(1, abs=1e-4)
