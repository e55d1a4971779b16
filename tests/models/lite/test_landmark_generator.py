"""Properties of the lite landmark generator: resting lips, and their shift with the head's turn."""

import torch
from torch import Tensor, nn

from models.lite.landmark_generator import LiteLandmarkGenerator, LiteLandmarkGeneratorConfig, move_with_pose
from tests.models.test_landmark_generator import count, inputs

TINY = LiteLandmarkGeneratorConfig(
    num_frames=5, width=16, layers=2, heads=2, feed_forward=32, audio_width=2, landmark_width=1
)


def build() -> LiteLandmarkGenerator:
    torch.manual_seed(0)
    return LiteLandmarkGenerator(TINY).eval()


def test_weights_are_small() -> None:
    lite = LiteLandmarkGenerator(LiteLandmarkGeneratorConfig())
    assert 2 * count(lite) < 4e6  # bytes in half precision


@torch.inference_mode()
def test_reference_tokens_serve_a_whole_video() -> None:
    network = build()
    for head in (network.lip_head, network.jaw_head, network.turn):
        nn.init.normal_(head.weight)
    mel, pose, reference = inputs()
    same = reference[:1].expand(2, -1, -1, -1)
    tokens = network.encode_reference(reference[:1])
    shared = network.predict(network.encode_audio(mel), network.encode_pose(pose), tokens, pose, reference[:1])
    torch.testing.assert_close(shared, network(mel, pose, same))


def test_move_with_pose_follows_any_affine_map() -> None:
    """References that are affine images of one face equal the frame after they are moved to its pose."""
    torch.manual_seed(0)
    face = torch.rand(131, 2)
    maps, shifts = torch.eye(2) + 0.2 * torch.randn(7, 2, 2), 0.1 * torch.randn(7, 1, 2)
    faces = face @ maps + shifts
    reference, frames = faces[None, :5], faces[None, 5:]
    moved = move_with_pose(reference, frames[:, :, :74])
    torch.testing.assert_close(moved, frames, rtol=0, atol=1e-3)


def content_of(network: LiteLandmarkGenerator, mel: Tensor, pose: Tensor, reference: Tensor) -> Tensor:
    """Jaw and lip, (B, T, 57, 2)."""
    output = network(mel, pose, reference)
    return torch.cat([output.jaw, output.lip], dim=-2)


@torch.inference_mode()
def test_untrained_network_predicts_resting_lips() -> None:
    mel, pose, reference = inputs()
    resting = move_with_pose(reference, pose)[:, :, 74:]
    torch.testing.assert_close(content_of(build(), mel, pose, reference), resting, rtol=0, atol=0)


@torch.inference_mode()
def test_turned_head_shifts_resting_lips_horizontally_only() -> None:
    """No affine map of the upper face explains the head's turn; its vertical part must not reach the mouth."""
    network = build()
    mel, pose, reference = inputs()
    nn.init.normal_(network.turn.weight)
    content = content_of(network, mel, pose, reference)
    resting = move_with_pose(reference, pose)[:, :, 74:]
    assert (content[..., 0] - resting[..., 0]).abs().max() > 1e-3
    torch.testing.assert_close(content[..., 1], resting[..., 1], rtol=0, atol=0)
    affine_pose = reference[:, :1, :74].expand(-1, pose.shape[1], -1, -1) * 0.9 + 0.02  # nothing is unexplained
    content = content_of(network, mel, affine_pose, reference[:, :1])
    expected = reference[:, :1, 74:] * 0.9 + 0.02
    torch.testing.assert_close(content, expected.expand_as(content), rtol=0, atol=2e-3)
