"""The terms that the paper has not: lip openness and its speed; and float32 where autocast would spoil a sum."""

import pytest
import torch

from losses.landmark import LandmarkLossConfig, landmark_loss
from losses.perceptual import gram, style


def test_openness_by_hand() -> None:
    true_lip, jaw = torch.zeros(1, 3, 40, 2), torch.zeros(1, 3, 17, 2)
    lip = true_lip.clone()
    lip[0, :, 7] = torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 1.0]])  # from point 2 by 3, 0, 0 in the true direction
    true_lip[0, :, 7, 0] = 2.0
    config = LandmarkLossConfig(velocity=0.0, openness=10.0, openness_speed=100.0)
    terms = landmark_loss(lip, jaw, true_lip, jaw, config, openings=[(2, 7)])
    assert terms["openness"].item() == pytest.approx((1 + 2 + 2) / 3)
    assert terms["openness_speed"].item() == pytest.approx((3 + 0) / 2)
    assert terms["L"].item() == pytest.approx(terms["L_1"].item() + 10 * 5 / 3 + 100 * 1.5)
    both = landmark_loss(lip, jaw, true_lip, jaw, config, openings=[(2, 7), (2, 9)])  # the second never opens
    assert both["openness"].item() == pytest.approx(terms["openness"].item() / 2)
    assert both["openness_speed"].item() == pytest.approx(terms["openness_speed"].item() / 2)


def test_sheared_lips_are_not_open() -> None:
    """Of a tilted mouth the upper lip is moved along the mouth: it is as far open, though its points are farther."""
    along, across = torch.tensor([0.8, 0.6]), torch.tensor([-0.6, 0.8])
    true_lip, jaw = torch.zeros(1, 2, 40, 2), torch.zeros(1, 2, 17, 2)
    true_lip[0, :, 7] = torch.tensor([[0.1], [0.2]]) * across
    lip = true_lip.clone()
    lip[0, :, 2] += 0.3 * along
    config = LandmarkLossConfig(openness=1.0, openness_speed=1.0, articulation=1.0)
    terms = landmark_loss(lip, jaw, true_lip, jaw, config, openings=[(2, 7)])
    assert all(terms[name] < 1e-6 for name in ("openness", "openness_speed", "articulation"))
    opened = true_lip.clone()
    opened[0, :, 7] += 0.3 * across
    assert landmark_loss(opened, jaw, true_lip, jaw, config, openings=[(2, 7)])["openness"].item() == pytest.approx(0.3)


def test_lips_that_touch_count_more() -> None:
    true_lip, jaw = torch.zeros(1, 2, 40, 2), torch.zeros(1, 2, 17, 2)
    true_lip[0, 1, 7, 1] = 0.1  # they touch in the first frame alone
    lip = true_lip.clone()
    lip[0, :, 7, 1] += 0.02
    for closure in (0.0, 3.0):
        config = LandmarkLossConfig(openness=1.0, closure=closure)
        terms = landmark_loss(lip, jaw, true_lip, jaw, config, openings=[(2, 7)])
        assert terms["openness"].item() == pytest.approx((0.02 * (1 + closure) + 0.02) / 2)


def test_articulation_is_the_difference_in_spread() -> None:
    true_lip, jaw = torch.zeros(2, 4, 40, 2), torch.zeros(2, 4, 17, 2)
    true_lip[0, :, 7, 1] = torch.tensor([0.1, 0.3, 0.1, 0.3])  # standard deviation 0.1; the other window stays shut
    for factor, expected in ((1.0, 0.0), (0.5, 0.05), (-1.0, 0.0), (3.0, 0.2)):
        config = LandmarkLossConfig(articulation=2.0)
        terms = landmark_loss(factor * true_lip, jaw, true_lip, jaw, config, openings=[(2, 7)])
        assert terms["articulation"].item() == pytest.approx(expected / 2, abs=1e-5)


def test_openness_of_closed_lips_has_a_gradient_that_is_a_number() -> None:
    lip, jaw = torch.zeros(1, 1, 40, 2, requires_grad=True), torch.zeros(1, 1, 17, 2)
    config = LandmarkLossConfig(openness=1.0, openness_speed=1.0, articulation=1.0)
    landmark_loss(lip, jaw, torch.ones(1, 1, 40, 2), jaw, config, openings=[(5, 15)])["L"].backward()
    assert lip.grad is not None and torch.isfinite(lip.grad).all()


def test_openness_is_off_by_default() -> None:
    lip, jaw = torch.rand(1, 3, 40, 2), torch.rand(1, 3, 17, 2)
    assert set(landmark_loss(lip, jaw, lip, jaw, LandmarkLossConfig())) == {"L_1", "L_c", "L"}


def test_gram_stays_in_float32_under_autocast() -> None:
    features = 1 + 0.01 * torch.randn(2, 8, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        inside, distance = gram(features), style([features], [features * 1.001])
    assert inside.dtype == distance.dtype == torch.float32
    torch.testing.assert_close(inside, gram(features))
    torch.testing.assert_close(distance, style([features], [features * 1.001]))
