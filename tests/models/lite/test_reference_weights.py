"""Initial weights of the references: the cues, training, and the shipped network."""

import torch
import torch.nn.functional as F
from torch import Tensor

import models
from models.lite import LITE
from models.lite.initial_motion import InitialMotion
from models.lite.reference_weights import CUES, GRID, ReferenceWeights, alignment_cues
from models.lite.renderer import LiteRenderer
from networks import SHIPPED_WEIGHTS


def example(count: int = 3, size: int = 128) -> dict[str, Tensor]:
    """A target, and references equal to it in picture and landmarks, with zero flow."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(1, 3, size, size, generator=generator)
    landmarks = torch.rand(1, 131, 2, generator=generator)
    return {
        "flow": torch.zeros(1, count, 2, size, size),
        "landmarks": landmarks,
        "reference_landmarks": landmarks[:, None].repeat(1, count, 1, 1),
        "images": target[:, None].repeat(1, count, 1, 1, 1),
        "masked_target": target,
        "off_mouth": torch.ones(1, 1, size, size),
    }


def no_decision(size: int) -> Tensor:
    return torch.zeros(1, 1, 1, size, size)


def test_references_equal_to_the_target_have_zero_cues() -> None:
    cues = alignment_cues(**example())
    assert cues.shape == (1, 3, CUES, GRID, GRID)
    error, relative_error, deviation, relative_deviation, detail, _, _, _, _, distance, lips, mouth = cues.unbind(2)
    for zero in (error, deviation, distance, lips, *cues[:, :, 5:9].unbind(2)):
        torch.testing.assert_close(zero, torch.zeros_like(zero))
    for relative in (relative_error, relative_deviation):  # zero over noise is zero
        torch.testing.assert_close(relative, -torch.ones_like(relative))
    assert (detail > 0.1).all() and (mouth == 1).all()


def test_each_cue_marks_the_reference_that_differs() -> None:
    equal, data = alignment_cues(**example()), example()
    data["images"][:, 0, :, 24:64, 96:] += 0.2  # another background in the upper half, right
    data["images"][:, 1, :, 96:, :32] = data["images"][:, 1, :, 96:, :32].mean()  # no detail in the lower half, left
    data["reference_landmarks"][:, 1, -1] += 0.3  # one lip point
    data["reference_landmarks"][:, 2] += 0.1  # all points equally
    cues = alignment_cues(**data)
    changed = (cues - equal).abs() > 1e-3  # (1, 3, 12, G, G)
    assert changed[0, 0, :2, :, 24:].all() and not changed[0, :, :1, :, :24].any()
    assert (cues[0, 1, 4, 25:, :7] < 0.2 * equal[0, 1, 4, 25:, :7]).all()
    assert cues[0, :, 9, 0, 0].argmax() == 2 and cues[0, :, 10, 0, 0].argmax() == 1 and cues[0, 2, 10, 0, 0] < 1e-4


def test_cues_ignore_the_lower_half_of_the_target() -> None:
    data = example()
    cues = alignment_cues(**data)
    data["masked_target"] = data["masked_target"].clone()
    data["masked_target"][:, :, 64:] = 0
    torch.testing.assert_close(alignment_cues(**data), cues, rtol=0, atol=0)


def test_weights_are_equal_at_first_then_learned_for_any_order() -> None:
    torch.manual_seed(0)
    network, cues = ReferenceWeights(), torch.randn(2, 3, CUES, GRID, GRID)
    torch.testing.assert_close(network(cues, no_decision(64)), torch.full((2, 3, 1, 64, 64), 1 / 3))
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):  # the reference with the largest cue 5 is right
        cues = torch.randn(2, 3, CUES, 1, 1).expand(-1, -1, -1, GRID, GRID)
        right = network(cues, no_decision(GRID)).gather(1, cues[:, :, 5:6].argmax(1, keepdim=True))
        optimiser.zero_grad()
        (-right.log().mean()).backward()
        optimiser.step()
    cues = torch.randn(1, 5, CUES, 1, 1).expand(-1, -1, -1, GRID, GRID)
    weight, order = network(cues, no_decision(64)), torch.tensor([4, 2, 0, 1, 3])
    assert weight.mean((2, 3, 4)).argmax() == cues[0, :, 5, 0, 0].argmax()
    torch.testing.assert_close(weight.sum(1), torch.ones(1, 1, 64, 64))
    torch.testing.assert_close(network(cues[:, order], no_decision(64)), weight[:, order])


@torch.no_grad()
def test_mouth_decision_favours_the_best_reference_in_the_mouth_only() -> None:
    torch.manual_seed(0)
    network, cues = ReferenceWeights(), 3 * torch.randn(1, 3, CUES, GRID, GRID)
    torch.nn.init.normal_(network.logits.weight)
    decision = no_decision(64)
    weight = network(cues, decision)
    decision[..., 32:] = 1.0  # inside the mouth
    decided = network(cues, decision)
    torch.testing.assert_close(decided[..., :32], weight[..., :32], rtol=0, atol=0)
    squared = weight[..., 32:] ** 2
    torch.testing.assert_close(decided[..., 32:], squared / squared.sum(1, keepdim=True))
    assert decided.amax(1).mean() > weight.amax(1).mean() + 0.02


def test_training_the_initial_motion_trains_the_weights() -> None:
    data = example(2)
    del data["flow"], data["off_mouth"]
    data["images"][:, 1] = 1 - data["images"][:, 1]
    initial_motion, target = InitialMotion(), data["masked_target"]
    data["masked_target"] = torch.cat([target[:, :, :64], torch.zeros_like(target[:, :, :64])], dim=2)
    optimiser = torch.optim.Adam(initial_motion.parameters(), 3e-3)
    for _ in range(20):
        motion = initial_motion(**data)
        average = (LITE.warp(data["images"], LITE.grid(motion.flow)) * motion.weight).sum(1)
        optimiser.zero_grad()
        (average - target).square().mean().backward()
        optimiser.step()
    assert initial_motion(**data).weight[:, 0].min() > 0.9


def shipped_weights(data: dict[str, Tensor]) -> Tensor:
    """Returns the shipped network's weights for the references of an example: (N, S, S)."""
    renderer = models.load(SHIPPED_WEIGHTS / "renderer.safetensors", "render")
    assert isinstance(renderer, LiteRenderer) and renderer.initial_motion is not None
    with torch.inference_mode():
        return renderer.initial_motion.reference_weights(alignment_cues(**data), no_decision(128))[0, :, 0]


def smooth_example(count: int) -> dict[str, Tensor]:
    data = example(count)
    data["masked_target"] = F.avg_pool2d(data["masked_target"], 9, 1, 4)
    return data | {"images": data["masked_target"][:, None].repeat(1, count, 1, 1, 1)}


def test_shipped_weights_follow_agreement_in_the_upper_half() -> None:
    data = smooth_example(2)
    data["images"][:, 0, :, :64, 96:] += 0.1  # another background at the right
    data["images"][:, 1, :, :64, :32] += 0.1  # and at the left
    error = 0.1 * (1 - shipped_weights(data))  # the other background's share
    assert max(error[0, 64:, :24].max(), error[1, 64:, -24:].max()) < 0.5 / 255  # less than rounds to a grey level


def test_shipped_weights_prefer_references_that_need_not_move() -> None:
    data = smooth_example(3)
    for name in ("images", "masked_target"):
        data[name].fill_(0.5)  # agrees whatever the flow
    data["flow"][:, :2, 0], data["flow"][:, 0, :, :, 96:] = 12.0, 24.0
    weight = shipped_weights(data)
    assert weight[2].mean() > 0.5 and (weight[2] > weight[:2]).all()  # on average more than both others together
    assert (weight[0, :, 104:] < weight[1, :, 104:]).all()


def test_shipped_weights_ignore_noise() -> None:
    data = smooth_example(2)
    data["images"][:, 1] += 1e-4
    torch.testing.assert_close(shipped_weights(data), torch.full((2, 128, 128), 0.5), rtol=0, atol=0.1)
