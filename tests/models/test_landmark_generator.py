"""Properties of the landmark generator: sizes, tokens, both architectures."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from models.configs import LandmarkGeneratorConfig
from models.landmark_generator import LandmarkGenerator, sinusoidal_positions

TINY = LandmarkGeneratorConfig(width=16, layers=2, heads=2, feed_forward=32, audio_width=2, landmark_width=1)


def inputs(batch: int = 2, frames: int = 5, references: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = [(frames, 1, 80, 16), (frames, 74, 2), (references, 131, 2)]
    mel, pose, reference = (torch.rand(batch, *shape, generator=generator) for shape in shapes)
    return mel, pose, reference


def build(config: LandmarkGeneratorConfig) -> LandmarkGenerator:
    """Builds a network in eval mode with one batch's statistics: with a fresh BatchNorm's, deep encoders give zero."""
    torch.manual_seed(0)
    network = LandmarkGenerator(config)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(*inputs(batch=4))
    return network.eval()


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("architecture", ["transformer", "lstm"])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize(("frames", "references"), [(5, 15), (1, 1), (12, 3)])
@torch.inference_mode()
def test_any_number_of_frames_and_references(architecture, norm_first: bool, frames: int, references: int) -> None:
    network = build(replace(TINY, architecture=architecture, norm_first=norm_first))
    lip, jaw = network(*inputs(frames=frames, references=references))
    assert lip.shape == (2, frames, 40, 2) and jaw.shape == (2, frames, 17, 2)


def test_parameter_counts() -> None:
    paper = count(LandmarkGenerator(LandmarkGeneratorConfig()))
    lstm = count(LandmarkGenerator(LandmarkGeneratorConfig(architecture="lstm")))
    assert paper == pytest.approx(13.7e6, rel=0.005)
    assert lstm == pytest.approx(paper, rel=0.01)


@torch.inference_mode()
def test_reference_tokens_serve_a_whole_video() -> None:
    network = build(TINY)
    mel, pose, reference = inputs()
    same = reference[:1].expand(2, -1, -1, -1)
    tokens = network.encode_reference(reference[:1])
    shared = network.predict(network.encode_audio(mel), network.encode_pose(pose), tokens, pose, reference[:1])
    torch.testing.assert_close(shared, network(mel, pose, same))


@pytest.mark.parametrize("architecture", ["transformer", "lstm"])
@torch.inference_mode()
def test_references_are_a_set_and_frames_a_sequence(architecture) -> None:
    network = build(replace(TINY, architecture=architecture))
    mel, pose, reference = inputs()
    lip, jaw = network(mel, pose, reference)
    torch.testing.assert_close(network(mel, pose, reference.flip(1)), (lip, jaw), rtol=0, atol=1e-5)
    turned = network(mel.flip(1), pose.flip(1), reference)
    assert (turned.lip.flip(1) - lip).abs().max() > 1e-4
    for changed in [(mel + 1, pose, reference), (mel, pose.roll(1, -2), reference), (mel, pose, reference.roll(1, -2))]:
        assert (network(*changed).lip - lip).abs().max() > 1e-4
        assert (network(*changed).jaw - jaw).abs().max() > 1e-4


def test_every_parameter_is_trained() -> None:
    for architecture in ("transformer", "lstm"):
        network = build(replace(TINY, architecture=architecture)).train()
        lip, jaw = network(*inputs())
        (lip.square().sum() + jaw.square().sum()).backward()
        assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_pre_norm_ends_with_a_norm() -> None:
    layers = {norm_first: build(replace(TINY, norm_first=norm_first)).fusion.encoder for norm_first in (True, False)}
    assert isinstance(layers[True].norm, nn.LayerNorm) and layers[False].norm is None


def test_positions_are_sines_and_cosines() -> None:
    table = sinusoidal_positions(5, 8, torch.device("cpu"))
    for position in range(5):
        for pair in range(4):
            angle = position / 10000 ** (2 * pair / 8)
            assert table[position, 2 * pair] == pytest.approx(math.sin(angle), abs=1e-6)
            assert table[position, 2 * pair + 1] == pytest.approx(math.cos(angle), abs=1e-6)
