"""Initial motion of made-up pictures that are moved by known distances."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from face.landmarks import FLIP
from models.lite.initial_motion import InitialMotion, landmark_flow, mirror, residual_motion


def waves(right: float = 0.0, down: float = 0.0, size: int = 128) -> Tensor:
    """A pattern without edges, moved by `right` and `down` pixels: (3, S, S) in [0, 1]."""
    y, x = torch.meshgrid(torch.arange(size) - down, torch.arange(size) - right, indexing="ij")
    pattern = (x / 3).sin() * (y / 4).cos() + (x / 5 - y / 3).sin()
    return (0.5 + 0.24 * pattern).expand(3, -1, -1)


def test_landmark_flow_takes_each_reference_to_the_target() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 131, 2, generator=generator)
    shifts = torch.tensor([[0.1, 0.0], [0.0, -0.05], [0.0, 0.0]])  # of the crop's side
    flow = landmark_flow(target, target[:, None] + shifts[:, None], size=32)
    assert flow.shape == (2, 3, 2, 32, 32)
    torch.testing.assert_close(flow, (shifts * 32)[..., None, None].expand_as(flow))


def test_landmark_flow_is_exact_at_a_lone_landmark() -> None:
    target = torch.full((1, 131, 2), 0.9)
    target[0, 0] = 0.25
    reference = target.clone()[:, None]
    reference[0, 0, 0] += torch.tensor([0.125, 0.0])
    flow = landmark_flow(target, reference, size=64)[0, 0]
    assert flow[0, 15:17, 15:17].mean().item() == pytest.approx(8, rel=0.1)
    assert flow[0, 56:60, 56:60].abs().max().item() < 0.1


def test_residual_motion_is_measured_in_the_upper_half() -> None:
    moves = [(0.0, 0.0), (3.0, 0.0), (-2.5, 1.5), (0.4, -2.0)]
    pictures = torch.stack([waves(*move) for move in moves])[None]  # (1, 4, 3, 128, 128)
    target = torch.stack([waves(), 0.8 * waves() + 0.1])  # under another exposure
    target[:, :, 64:] = 0.3  # not read
    residual = residual_motion(torch.zeros(2, 4, 2, 128, 128), pictures, target)
    assert residual.shape == (2, 4, 2, 4, 16)
    expected = torch.tensor(moves)[None, :, :, None, None].expand_as(residual)
    error = (residual - expected).abs().mean((2, 3, 4))  # (2, 4)
    assert error[0].max() < 0.14 and error[1].max() < 0.46  # as exact as half-size images allow


def test_residual_motion_excludes_the_flow() -> None:
    flow = torch.zeros(1, 1, 2, 128, 128)
    flow[:, :, 0] = 3
    residual = residual_motion(flow, waves(4.0)[None, None], waves()[None])
    assert (residual - torch.tensor([1.0, 0.0])[:, None, None]).abs().mean() < 0.1


def test_images_without_structure_do_not_move() -> None:
    pictures = torch.full((1, 1, 3, 128, 128), 0.4) + 0.002 * torch.rand(3, 128, 128)
    target = torch.full((1, 3, 128, 128), 0.6)
    assert residual_motion(torch.zeros(1, 1, 2, 128, 128), pictures, target).abs().max() < 0.5


def test_correction_is_learned_except_at_the_mouth() -> None:
    points = torch.full((1, 131, 2), 0.2)
    points[:, -40:] = torch.tensor([0.5, 0.75])  # lips
    initial_motion, pictures, target = InitialMotion(), waves(2.0)[None, None], waves()[None]
    untrained = initial_motion(points, points[:, None], pictures, target)
    assert untrained.flow.abs().max() == 0
    optimiser = torch.optim.Adam(initial_motion.parameters(), 1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        flow = initial_motion(points, points[:, None], pictures, target).flow
        F.mse_loss(flow[:, :, 0, 100:, 100:], torch.full((1, 1, 28, 28), 2.0)).backward()
        optimiser.step()
    moved = initial_motion(points, points[:, None], pictures, target).flow
    torch.testing.assert_close(moved[:, :, 0, 104:, 104:], torch.full((1, 1, 24, 24), 2.0), rtol=0, atol=0.3)
    with torch.no_grad():
        initial_motion.correction.bias.fill_(1.0)
        initial_motion.correction.bias.view(2, 16, 16)[0, :, 8:] = -1.0  # mirror-equivariant: opposite signs
    moved = initial_motion(points, points[:, None], pictures, target).flow
    assert moved[0, 0, :, 96, 64].abs().max() < 0.3 and moved[0, 0, :, 120, 8].min() > 4


@torch.inference_mode()
def test_initial_motion_is_mirror_equivariant() -> None:
    generator = torch.Generator().manual_seed(0)
    points, others = torch.rand(1, 131, 2, generator=generator), torch.rand(1, 2, 131, 2, generator=generator)
    pictures, target = torch.stack([waves(1.0), waves(-1.0, 2.0)])[None], waves()[None]
    initial_motion = InitialMotion()
    torch.nn.init.normal_(initial_motion.correction.weight, std=0.1)
    torch.nn.init.normal_(initial_motion.correction.bias)
    flow = initial_motion(points, others, pictures, target).flow
    points, others = (torch.stack([1 - x, y], dim=-1)[..., FLIP, :] for x, y in (points.unbind(-1), others.unbind(-1)))
    flipped = initial_motion(points, others, pictures.flip(-1), target.flip(-1)).flow
    assert flow.std() > 1 and (flow + flipped).std() > 1
    torch.testing.assert_close(flipped, mirror(flow), rtol=0, atol=0.02)


@torch.inference_mode()
def test_initial_motion_is_exact_under_autocast() -> None:
    points, others = torch.rand(1, 131, 2), torch.rand(1, 2, 131, 2)
    initial_motion, pictures, target = InitialMotion(), torch.stack([waves(1.0), waves(-1.0)])[None], waves()[None]
    torch.nn.init.normal_(initial_motion.correction.weight, std=0.1)
    exact = initial_motion(points, others, pictures, target)
    with torch.autocast("cpu", torch.bfloat16):
        half = initial_motion(points, others, pictures, target)
    assert exact.flow.std() > 1
    torch.testing.assert_close(half, exact, rtol=0, atol=0)
