"""How far references are trusted: what tells it, and that it is learned."""

import torch
import torch.nn.functional as F
from torch import Tensor

import models
from models.lite.initial_motion import LandmarkStart
from models.lite.reference_weights import CLUES, GRID, Trust, clues
from models.motion_field import sampling_grid, warp
from networks import SHIPPED_WEIGHTS


def example(count: int = 3, size: int = 128) -> dict[str, Tensor]:
    """A target and references that are its picture, moved nowhere, with its landmarks."""
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(1, 3, size, size, generator=generator)
    landmarks = torch.rand(1, 131, 2, generator=generator)
    return {
        "flow": torch.zeros(1, count, 2, size, size), "landmarks": landmarks,
        "references": landmarks[:, None].repeat(1, count, 1, 1), "pictures": target[:, None].repeat(1, count, 1, 1, 1),
        "masked_target": target, "elsewhere": torch.ones(1, 1, size, size),
    }  # fmt: skip


def test_references_that_are_the_target_itself_are_not_off_not_unlike_not_moved_not_apart() -> None:
    told = clues(**example())
    assert told.shape == (1, 3, CLUES, GRID, GRID)
    off, off_more, unlike, unlike_more, detail, _, _, _, _, apart, lips, mouth = told.unbind(2)
    for nothing in (off, unlike, apart, lips, *told[:, :, 5:9].unbind(2)):
        torch.testing.assert_close(nothing, torch.zeros_like(nothing))
    for relative in (off_more, unlike_more):  # nothing over next to nothing is not much
        torch.testing.assert_close(relative, -torch.ones_like(relative))
    assert (detail > 0.1).all() and (mouth == 1).all()


def test_each_clue_tells_the_reference_that_differs() -> None:
    still, data = clues(**example()), example()
    data["pictures"][:, 0, :, 24:64, 96:] += 0.2  # another background at the right of the upper half
    data["pictures"][:, 1, :, 96:, :32] = data["pictures"][:, 1, :, 96:, :32].mean()  # no detail below, at the left
    data["references"][:, 1, -1] += 0.3  # one point of the lips
    data["references"][:, 2] += 0.1  # all alike
    told = clues(**data)
    changed = (told - still).abs() > 1e-3  # (1, 3, 12, G, G)
    assert changed[0, 0, :2, :, 24:].all() and not changed[0, :, :1, :, :24].any()
    assert (told[0, 1, 4, 25:, :7] < 0.2 * still[0, 1, 4, 25:, :7]).all()
    assert told[0, :, 9, 0, 0].argmax() == 2 and told[0, :, 10, 0, 0].argmax() == 1 and told[0, 2, 10, 0, 0] < 1e-4


def test_the_lower_half_of_the_target_tells_nothing() -> None:
    data = example()
    told = clues(**data)
    data["masked_target"] = data["masked_target"].clone()
    data["masked_target"][:, :, 64:] = 0
    torch.testing.assert_close(clues(**data), told, rtol=0, atol=0)


def test_all_alike_at_first_then_learned_in_any_order_and_number() -> None:
    torch.manual_seed(0)
    trust, told = Trust(), torch.randn(2, 3, CLUES, GRID, GRID)
    torch.testing.assert_close(trust(told, (64, 64)), torch.full((2, 3, 1, 64, 64), 1 / 3))
    optimiser = torch.optim.Adam(trust.parameters(), 1e-2)
    for _ in range(60):  # that reference is right of which clue 5 is the largest
        told = torch.randn(2, 3, CLUES, 1, 1).expand(-1, -1, -1, GRID, GRID)
        right = trust(told, (GRID, GRID)).gather(1, told[:, :, 5:6].argmax(1, keepdim=True))
        optimiser.zero_grad()
        (-right.log().mean()).backward()
        optimiser.step()
    told = torch.randn(1, 5, CLUES, 1, 1).expand(-1, -1, -1, GRID, GRID)
    weight, order = trust(told, (64, 64)), torch.tensor([4, 2, 0, 1, 3])
    assert weight.mean((2, 3, 4)).argmax() == told[0, :, 5, 0, 0].argmax()
    torch.testing.assert_close(weight.sum(1), torch.ones(1, 1, 64, 64))
    torch.testing.assert_close(trust(told[:, order], (64, 64)), weight[:, order])


def test_the_start_trains_both_the_flow_and_the_trust() -> None:
    data = example(2)
    del data["flow"], data["elsewhere"]
    data["pictures"][:, 1] = 1 - data["pictures"][:, 1]
    start, target = LandmarkStart(), data["masked_target"]
    data["masked_target"] = torch.cat([target[:, :, :64], torch.zeros_like(target[:, :, :64])], dim=2)
    optimiser = torch.optim.Adam(start.parameters(), 3e-3)
    for _ in range(20):
        motion = start(**data)
        drawn = (warp(data["pictures"], sampling_grid(motion.flow, True), True) * motion.weight).sum(1)
        optimiser.zero_grad()
        (drawn - target).square().mean().backward()
        optimiser.step()
    assert start(**data).weight[:, 0].min() > 0.9


def shipped_trust(data: dict[str, Tensor]) -> Tensor:
    """The shipped network's weights of the references of an example: (N, S, S)."""
    start = models.load(SHIPPED_WEIGHTS / "renderer.safetensors", "renderer").start
    assert start is not None
    with torch.inference_mode():
        return start.trust(clues(**data), (128, 128))[0, :, 0]


def smooth_example(count: int) -> dict[str, Tensor]:
    data = example(count)
    data["masked_target"] = F.avg_pool2d(data["masked_target"], 9, 1, 4)
    return data | {"pictures": data["masked_target"][:, None].repeat(1, count, 1, 1, 1)}


def test_shipped_references_that_agree_with_the_upper_half_are_trusted_below_it() -> None:
    data = smooth_example(2)
    data["pictures"][:, 0, :, :64, 96:] += 0.1  # another background at the right
    data["pictures"][:, 1, :, :64, :32] += 0.1  # and at the left
    seen = 0.1 * (1 - shipped_trust(data))  # of the other background
    assert max(seen[0, 64:, :24].max(), seen[1, 64:, -24:].max()) < 0.5 / 255  # less than rounds to a grey level


def test_shipped_what_need_not_move_is_trusted_most() -> None:
    data = smooth_example(3)
    for name in ("pictures", "masked_target"):
        data[name].fill_(0.5)  # agrees, wherever it is moved from
    data["flow"][:, :2, 0], data["flow"][:, 0, :, :, 96:] = 12.0, 24.0
    weight = shipped_trust(data)
    assert weight[2].mean() > 0.5 and (weight[2] > weight[:2]).all()  # on the whole more than both others together
    assert (weight[0, :, 104:] < weight[1, :, 104:]).all()


def test_shipped_differences_as_small_as_noise_decide_nothing() -> None:
    data = smooth_example(2)
    data["pictures"][:, 1] += 1e-4
    torch.testing.assert_close(shipped_trust(data), torch.full((2, 128, 128), 0.5), rtol=0, atol=0.05)
