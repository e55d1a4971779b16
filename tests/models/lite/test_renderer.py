"""Properties of the lite renderer: initial motion, residual output, sharp references, detail."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.lite import LITE
from models.lite.initial_motion import landmark_flow
from models.lite.renderer import SHARPENING, LiteRenderer, LiteRendererConfig
from models.motion_field import Motion, ReferenceFeatures, align
from models.renderer import RendererOutput
from tests.models import test_renderer
from tests.models.test_renderer import perturb

TINY = LiteRendererConfig(
    size=32, sketch_channels=3, shallow=4, deep=16, alignment_deep=8, modulation=8, style_hidden=8, audio_width=2
)


def inputs(config: LiteRendererConfig, batch: int = 2, references: int = 3) -> tuple[Tensor, ...]:
    """Inputs of the paper's renderer, and the landmarks of target and references."""
    generator = torch.Generator().manual_seed(1)
    landmarks = torch.rand(batch, 131, 2, generator=generator)
    reference_landmarks = torch.rand(batch, references, 131, 2, generator=generator)
    return (*test_renderer.inputs(config, batch, references), landmarks, reference_landmarks)


def build(config: LiteRendererConfig) -> LiteRenderer:
    torch.manual_seed(0)
    return LiteRenderer(config).eval()


@pytest.mark.parametrize("size", [128, 256])
@pytest.mark.parametrize("num_frames", [3, 5])
@torch.inference_mode()
def test_sizes_by_config(size: int, num_frames: int) -> None:
    config = LiteRendererConfig(size=size, num_frames=num_frames)
    output = perturb(build(config))(*inputs(config, batch=1, references=2))
    assert output.face.shape == output.warped_reference.shape == (1, 3, size, size)
    assert output.motion is not None and output.motion.flow.shape == (1, 2, 2, size, size)
    assert output.motion.weight.shape == (1, 2, 1, size, size)
    assert output.face.min() >= 0 and output.face.max() <= 1 and output.face.std() > 0.01


def test_parameters_are_few() -> None:
    assert sum(p.numel() for p in LiteRenderer(LiteRendererConfig()).parameters()) < 4e6


@pytest.fixture
def one_thread() -> Iterator[None]:
    """The rounding of sums depends on how threads share them, and so on the number of frames: up to 2e-5."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@torch.inference_mode()
def test_references_of_one_video_serve_many_frames(one_thread: None) -> None:
    network = perturb(build(TINY))
    masked, sketches, images, reference_sketches, mel, landmarks, reference_landmarks = inputs(TINY, batch=3)
    features = network.encode_references(images[:1], reference_sketches[:1], reference_landmarks[:1])
    together = network.render(masked, sketches, features, mel, landmarks)
    assert together.motion is not None
    for i in range(3):
        own = (images[:1], reference_sketches[:1], mel[[i]], landmarks[[i]], reference_landmarks[:1])
        alone = network(masked[[i]], sketches[[i]], *own)
        torch.testing.assert_close(together.face[[i]], alone.face, rtol=0, atol=1e-5)
        torch.testing.assert_close(together.motion.flow[[i]], alone.motion.flow, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_untrained_network_draws_the_reference() -> None:
    """If the landmarks and the upper halves of target and reference are equal, the initial flow is zero."""
    masked, sketches, images, reference_sketches, mel, landmarks, _ = inputs(TINY, references=1)
    same = landmarks[:, None]
    output = build(TINY)(masked, sketches, images, reference_sketches, mel, landmarks, same)
    # Of one reference the weighted mean is the reference itself, whatever its weight.
    torch.testing.assert_close(output.warped_reference, images[:, 0], rtol=0, atol=1e-3)
    known = torch.cat([masked[:, :, :16], images[:, 0, :, 16:]], dim=2).clamp(0.01, 0.99)
    torch.testing.assert_close(output.face, known, rtol=0, atol=1e-3)


def test_gradient_reaches_every_parameter_but_the_initial_motions() -> None:
    network = perturb(build(TINY)).train()
    network(*inputs(TINY)).face.square().sum().backward()
    # BatchNorm subtracts the mean, so the bias before it has no effect.
    without = [n for n, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert without == [n for n, _ in network.named_parameters() if n.startswith("initial_motion.")]


def test_first_step_moves_the_flow() -> None:
    network = build(TINY).train()
    network(*inputs(TINY)).face.square().sum().backward()
    assert network.motion_field is not None
    gradient = network.motion_field.flow.weight.grad
    assert gradient is not None and gradient.abs().max() > 0


@torch.inference_mode()
def test_without_warping_references_stay_where_they_are() -> None:
    network = build(replace(TINY, use_warping=False))
    values = inputs(TINY)
    output = network(*values)
    assert output.motion is None and network.initial_motion is None
    torch.testing.assert_close(output.warped_reference, values[2].mean(1))


@pytest.mark.parametrize("dropped", [5, 6])
def test_landmarks_are_required(dropped: int) -> None:
    values: list[Any] = list(inputs(TINY))
    values[dropped] = None
    with pytest.raises(ValueError, match=r"needs the .*landmarks"):
        build(TINY)(*values)


@torch.inference_mode()
def test_landmarks_move_the_references_of_an_untrained_network() -> None:
    network, values = build(TINY), inputs(TINY, references=1)
    output = network(*values)
    assert output.motion is not None
    assert (output.warped_reference - values[2][:, 0]).abs().mean() > 0.05
    assert output.motion.flow.shape == (2, 1, 2, 32, 32)


@torch.inference_mode()
def test_chosen_references_keep_their_landmarks() -> None:
    _, _, images, sketches, _, _, landmarks = inputs(TINY)
    features = build(TINY).encode_references(images[:1], sketches[:1], landmarks[:1])
    chosen = features.choose(torch.tensor([[0, 2], [1, 0]]))
    assert chosen.landmarks is not None
    torch.testing.assert_close(chosen.landmarks[1], landmarks[0, [1, 0]])
    torch.testing.assert_close(chosen.images[0], images[0, [0, 2]])


@torch.inference_mode()
def test_initial_motion_is_exact_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    network, values = build(TINY), inputs(TINY)
    cdist, modes = torch.cdist, []
    monkeypatch.setattr(torch, "cdist", lambda *a, **b: modes.append(b) or cdist(*a, **b))
    with torch.autocast("cpu", torch.bfloat16):
        flow = network(*values).motion.flow
    torch.testing.assert_close(flow, landmark_flow(values[5], values[6], TINY.size), rtol=0, atol=1e-6)
    assert {mode["compute_mode"] for mode in modes} == {"donot_use_mm_for_euclid_dist"}  # a product may be in TF32


def test_warped_images_stay_sharp() -> None:
    """Moves a wave of 4 pixels by half a pixel: bilinear sampling would take 0.15 of its amplitude of 0.5."""
    wave = torch.arange(32) * torch.pi / 2 + torch.pi / 4
    images = (0.5 + 0.5 * wave.cos()).expand(1, 1, 3, 32, 32)
    features = ReferenceFeatures(images, torch.zeros(1, 1, 2, 32, 32), torch.zeros(1, 1, 4, 16, 16))
    flow = torch.zeros(1, 1, 2, 32, 32)
    flow[:, :, 0] = 0.5
    warped = align(features, Motion(flow, torch.ones(1, 1, 1, 32, 32)), LITE).image
    expected = 0.5 + 0.5 * (wave + torch.pi / 4).cos()
    torch.testing.assert_close(warped[0, :, 16, 4:-4], expected[4:-4].expand(3, -1), rtol=0, atol=0.02)
    assert warped.min() >= 0 and warped.max() <= 1


def test_larger_references_sharpen_the_lower_half() -> None:
    """References are moved by two pixels, averaged 3 : 1, sharpened and changed; the upper half is the small face's."""
    network = build(replace(TINY, size=8))
    pictures = torch.rand(1, 2, 3, 24, 24)
    flow, weight = torch.zeros(1, 2, 2, 8, 8), torch.full((1, 2, 1, 8, 8), 0.25)
    flow[:, :, 0], weight[:, 0] = 2, 0.75
    warped = torch.full((1, 3, 8, 8), 0.5)
    sharp = network.sharpen(RendererOutput(warped - 0.1, warped, Motion(flow, weight)), pictures)
    averaged = (0.75 * pictures[:, 0] + 0.25 * pictures[:, 1])[:, :, 12:, 6:]
    padded = F.pad(averaged, (1, 1, 1, 1), value=torch.nan)
    blurred = padded.unfold(2, 3, 1).unfold(3, 3, 1).nanmean((-2, -1))  # of the 3 x 3 neighbours that exist
    expected = (averaged + SHARPENING * (averaged - blurred) - 0.1).clamp(0, 1)
    assert torch.allclose(sharp[:, :, 12:, :17], expected[..., :17], atol=1e-4)
    assert torch.allclose(sharp[:, :, :12], torch.tensor(0.4))
