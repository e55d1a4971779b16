"""The renderer by its properties: sizes, sharing of work, what each switch does, how it starts."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from models.layers import Spade
from models.lite.initial_motion import landmark_flow
from models.motion_field import Motion, ReferenceFeatures, align, sampling_grid
from models.renderer import Renderer, RendererConfig, RendererOutput

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


def build(config: RendererConfig, shaken: bool = True) -> Renderer:
    """In eval mode; `shaken` away from any zero initialisation."""
    torch.manual_seed(0)
    network = Renderer(config).eval()
    if shaken:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize("num_frames", [3, 5])
@torch.inference_mode()
def test_sizes_by_config(size: int, num_frames: int) -> None:
    config = replace(RendererConfig.lite(), size=size, num_frames=num_frames)
    output = build(config)(*inputs(config, batch=1, references=2))
    assert output.face.shape == output.warped_reference.shape == (1, 3, size, size)
    assert output.motion is not None and output.motion.flow.shape == (1, 2, 2, size, size)
    assert output.motion.weight.shape == (1, 2, 1, size, size)
    assert output.face.min() >= 0 and output.face.max() <= 1 and output.face.std() > 0.01


def test_parameter_counts() -> None:
    paper = sum(p.numel() for p in Renderer(RendererConfig()).parameters())
    assert paper == pytest.approx(19.0e6, rel=0.005)
    assert sum(p.numel() for p in Renderer(RendererConfig.lite()).parameters()) < 4e6


@torch.inference_mode()
def test_references_of_one_video_serve_many_frames() -> None:
    network = build(TINY)
    masked, sketches, images, reference_sketches, mel = inputs(TINY, batch=3)
    features = network.encode_references(images[:1], reference_sketches[:1])
    together = network.render(masked, sketches, features, mel)
    for i in range(3):
        alone = network(masked[[i]], sketches[[i]], images[:1], reference_sketches[:1], mel[[i]])
        assert together.motion is not None
        for mine, its in zip((*together[:2], *together.motion), (*alone[:2], *alone.motion), strict=True):
            torch.testing.assert_close(mine[[i]], its, rtol=0, atol=2e-6)


@torch.inference_mode()
def test_batches_keep_their_references() -> None:
    network, given = build(TINY), inputs(TINY, batch=3)
    together = network(*given)
    alone = network(*(value[[1]] for value in given))
    torch.testing.assert_close(together.face[[1]], alone.face, rtol=0, atol=2e-6)
    assert not torch.allclose(together.warped_reference[0], together.warped_reference[1], atol=1e-2)


@torch.inference_mode()
def test_modulation_is_computed_once_for_all_references() -> None:
    network, seen = build(TINY), []
    for module in network.modules():
        if isinstance(module, Spade):
            module.register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    network(*inputs(TINY, batch=2, references=7))
    assert seen == [2] * 12  # 6 blocks of 2 layers, batch 2 whatever the number of references


@torch.inference_mode()
def test_order_of_references_does_not_matter() -> None:
    network = build(TINY)
    masked, sketches, images, reference_sketches, mel = inputs(TINY)
    turned = network(masked, sketches, images.flip(1), reference_sketches.flip(1), mel)
    straight = network(masked, sketches, images, reference_sketches, mel)
    torch.testing.assert_close(turned.face, straight.face, rtol=0, atol=2e-6)


@torch.inference_mode()
def test_output_skip_starts_at_the_references() -> None:
    config = replace(TINY, output_skip=True)
    given = inputs(config, references=1)
    output = build(config, shaken=False)(*given)
    masked, image = given[0], given[2][:, 0]
    # One reference: whatever its weight, the weighted mean is the reference itself.
    torch.testing.assert_close(output.warped_reference, image, rtol=0, atol=1e-4)
    start = torch.cat([masked[:, :, :16], image[:, :, 16:]], dim=2).clamp(0.01, 0.99)
    torch.testing.assert_close(output.face, start, rtol=0, atol=1e-4)


@pytest.mark.parametrize("output_skip", [False, True])
def test_gradient_reaches_every_parameter(output_skip: bool) -> None:
    config = replace(TINY, output_skip=output_skip)
    network = build(config).train()
    network(*inputs(config)).face.square().sum().backward()
    # BatchNorm takes away the mean, and so the use of the bias before it.
    without = [n for n, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert without == []


def test_skip_moves_the_flow_from_the_first_step() -> None:
    config = replace(TINY, output_skip=True)
    network = build(config, shaken=False).train()
    network(*inputs(config)).face.square().sum().backward()
    assert network.motion_field is not None
    gradient = network.motion_field.flow.weight.grad
    assert gradient is not None and gradient.abs().max() > 0


@torch.inference_mode()
def test_without_warping_references_stay_where_they_are() -> None:
    network = build(replace(TINY, use_warping=False))
    given = inputs(TINY)
    output = network(*given)
    assert output.motion is None
    torch.testing.assert_close(output.warped_reference, given[2].mean(1))
    features = network.encode_references(given[2][:1], given[3][:1])
    assert network.render(given[0], given[1], features, given[4]).face.shape == (2, 3, 32, 32)


@torch.inference_mode()
def test_audio_counts_unless_switched_off() -> None:
    *given, mel = inputs(TINY)
    hearing, deaf = build(TINY), build(replace(TINY, use_audio=False))
    assert (hearing(*given, mel).face - hearing(*given, -mel).face).abs().max() > 1e-4
    torch.testing.assert_close(deaf(*given, mel).face, deaf(*given, -mel).face, rtol=0, atol=0)
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
    """Each target pixel takes the reference's pixel that lies `right` and `down` of it."""
    image = torch.rand(1, 3, 24, 20)
    flow = torch.tensor([right, down]).float()[:, None, None].expand(1, 2, 24, 20)
    grid = sampling_grid(flow, identity_at_zero=True).permute(0, 2, 3, 1)
    moved = torch.nn.functional.grid_sample(image, grid, align_corners=False)
    expected = image.roll((-down, -right), dims=(2, 3))[:, :, 5:-5, 4:-4]
    torch.testing.assert_close(moved[:, :, 5:-5, 4:-4], expected, rtol=0, atol=1e-4)


def test_released_grid_has_its_corners_at_one() -> None:
    grid = sampling_grid(torch.zeros(2, 16, 16), identity_at_zero=False)
    assert grid[:, 0, 0].tolist() == [-1, -1] and grid[:, -1, -1].tolist() == [1, 1]


@pytest.mark.parametrize("identity_at_zero", [True, False])
def test_what_lies_outside_a_reference_is_its_edge_or_as_released_black(identity_at_zero: bool) -> None:
    features = ReferenceFeatures(torch.ones(1, 2, 5, 16, 16), torch.ones(1, 2, 4, 8, 8))
    motion = Motion(torch.full((1, 2, 2, 16, 16), 12.0), torch.ones(1, 2, 1, 16, 16))  # most of it comes from outside
    for moved in align(features, motion, identity_at_zero):
        assert moved[..., -1, -1].mean().item() == pytest.approx(float(identity_at_zero), abs=1e-4)
        assert moved[..., 0, 0].mean().item() == pytest.approx(1, abs=1e-4)


def test_moved_pictures_stay_sharp() -> None:
    """A wave of 4 pixels, moved by half a pixel: of its amplitude, 0.5, bilinear sampling would take 0.15."""
    wave = torch.arange(32) * torch.pi / 2 + torch.pi / 4
    features = ReferenceFeatures((0.5 + 0.5 * wave.cos()).expand(1, 1, 5, 32, 32), torch.zeros(1, 1, 4, 16, 16))
    flow = torch.zeros(1, 1, 2, 32, 32)
    flow[:, :, 0] = 0.5
    moved = align(features, Motion(flow, torch.ones(1, 1, 1, 32, 32)), identity_at_zero=True)[0]
    expected = 0.5 + 0.5 * (wave + torch.pi / 4).cos()
    torch.testing.assert_close(moved[0, :3, 16, 4:-4], expected[4:-4].expand(3, -1), rtol=0, atol=0.02)
    assert moved.min() >= 0 and moved.max() <= 1


@torch.inference_mode()
def test_flow_from_landmarks_is_as_exact_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    network, values = build(replace(TINY, landmark_start=True, output_skip=True), shaken=False), inputs(TINY)
    points, others = torch.rand(2, 131, 2), torch.rand(2, 3, 131, 2)
    cdist, modes = torch.cdist, []
    monkeypatch.setattr(torch, "cdist", lambda *a, **b: modes.append(b) or cdist(*a, **b))
    with torch.autocast("cpu", torch.bfloat16):
        flow = network(*values, points, others).motion.flow
    torch.testing.assert_close(flow, landmark_flow(points, others, TINY.size), rtol=0, atol=1e-6)
    assert {mode["compute_mode"] for mode in modes} == {"donot_use_mm_for_euclid_dist"}  # a product may be in TF32


@torch.inference_mode()
def test_start_from_landmarks_is_optional_and_aligns_an_untrained_network() -> None:
    config = replace(TINY, landmark_start=True, output_skip=True)
    network = build(config, shaken=False)
    values = inputs(config)
    points, others = torch.rand(2, 131, 2), torch.rand(2, 1, 131, 2)
    assert network(*values).motion.flow.abs().max() == 0
    target, sketches, images, lines, mel = values
    same = network(target, sketches, images[:, :1], lines[:, :1], mel, points, points[:, None]).warped_reference
    torch.testing.assert_close(same, images[:, 0], atol=1e-3, rtol=0)
    moved = network(target, sketches, images[:, :1], lines[:, :1], mel, points, others).warped_reference
    assert (moved - images[:, 0]).abs().mean() > 0.05
    assert network(*values, points, others.expand(-1, 3, -1, -1)).motion.flow.shape == (2, 3, 2, 32, 32)
    chosen = network.encode_references(images[:1], lines[:1], others[:1].expand(-1, 3, -1, -1))
    landmarks = chosen.choose(torch.tensor([[0, 2], [1, 0]])).landmarks
    assert landmarks is not None and landmarks.shape == (2, 2, 131, 2)


def test_larger_references_sharpen_the_lower_half() -> None:
    """Moved by two pixels and mixed 3 : 1, with the change that was drawn; the upper half is the small face's."""
    renderer = Renderer(replace(RendererConfig.lite(), size=8))
    pictures = torch.rand(1, 2, 3, 24, 24)
    flow, weight = torch.zeros(1, 2, 2, 8, 8), torch.full((1, 2, 1, 8, 8), 0.25)
    flow[:, :, 0], weight[:, 0] = 2, 0.75
    warped = torch.full((1, 3, 8, 8), 0.5)
    sharp = renderer.sharpen(RendererOutput(warped - 0.1, warped, Motion(flow, weight)), pictures)
    mixed = 0.75 * pictures[:, 0] + 0.25 * pictures[:, 1]
    assert torch.allclose(sharp[:, :, 12:, :18], (mixed[:, :, 12:, 6:] - 0.1).clamp(min=0), atol=1e-4)
    assert torch.allclose(sharp[:, :, :12], torch.tensor(0.4))
