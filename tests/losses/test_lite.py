"""Terms of the lite preset: lip opening, pixels, lower half, initial motion."""

from dataclasses import replace

import pytest
import torch

from losses.landmark import LandmarkLossConfig, landmark_loss
from losses.lite import (
    LiteLandmarkLossConfig,
    LiteRenderLoss,
    LiteRenderLossConfig,
    initial_motion_loss,
    lite_landmark_loss,
)
from losses.perceptual import VGG19
from losses.render import RenderLoss
from tests.losses.test_render import NO_GAN, made_up_vgg, pictures

NO_TERMS = LiteLandmarkLossConfig(velocity=0.0, openness=0.0, closure=0.0, openness_speed=0.0, articulation=0.0)
ALL_TERMS = replace(NO_TERMS, velocity=1.0, openness=1.0, openness_speed=1.0, articulation=1.0)
VGG_TERMS = LiteRenderLossConfig(pixel=0, layers=(1, 2))


@pytest.fixture(scope="module")
def vgg() -> VGG19:
    return made_up_vgg()


def test_openness_by_hand() -> None:
    true_lip, jaw = torch.zeros(1, 3, 40, 2), torch.zeros(1, 3, 17, 2)
    lip = true_lip.clone()
    lip[0, :, 7] = torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 1.0]])  # from point 2 by 3, 0, 0 in the true direction
    true_lip[0, :, 7, 0] = 2.0
    config = replace(NO_TERMS, openness=10.0, openness_speed=100.0)
    terms = lite_landmark_loss(lip, jaw, true_lip, jaw, config, lip_pairs=[(2, 7)])
    assert terms["openness"].item() == pytest.approx((1 + 2 + 2) / 3)
    assert terms["openness_speed"].item() == pytest.approx((3 + 0) / 2)
    assert terms["L"].item() == pytest.approx(terms["L_1"].item() + 10 * 5 / 3 + 100 * 1.5)
    both = lite_landmark_loss(lip, jaw, true_lip, jaw, config, lip_pairs=[(2, 7), (2, 9)])  # the second never opens
    assert both["openness"].item() == pytest.approx(terms["openness"].item() / 2)
    assert both["openness_speed"].item() == pytest.approx(terms["openness_speed"].item() / 2)


def test_sheared_lips_are_not_opened() -> None:
    """The upper lip of a tilted mouth moves along the mouth: distances grow, the opening stays."""
    along, across = torch.tensor([0.8, 0.6]), torch.tensor([-0.6, 0.8])
    true_lip, jaw = torch.zeros(1, 2, 40, 2), torch.zeros(1, 2, 17, 2)
    true_lip[0, :, 7] = torch.tensor([[0.1], [0.2]]) * across
    lip = true_lip.clone()
    lip[0, :, 2] += 0.3 * along
    config = ALL_TERMS
    terms = lite_landmark_loss(lip, jaw, true_lip, jaw, config, lip_pairs=[(2, 7)])
    assert all(terms[name] < 1e-6 for name in ("openness", "openness_speed", "articulation"))
    opened = true_lip.clone()
    opened[0, :, 7] += 0.3 * across
    terms = lite_landmark_loss(opened, jaw, true_lip, jaw, config, lip_pairs=[(2, 7)])
    assert terms["openness"].item() == pytest.approx(0.3)


def test_touching_lips_weigh_more() -> None:
    true_lip, jaw = torch.zeros(1, 2, 40, 2), torch.zeros(1, 2, 17, 2)
    true_lip[0, 1, 7, 1] = 0.1  # they touch only in the first frame
    lip = true_lip.clone()
    lip[0, :, 7, 1] += 0.02
    for closure in (0.0, 3.0):
        config = replace(NO_TERMS, openness=1.0, closure=closure)
        terms = lite_landmark_loss(lip, jaw, true_lip, jaw, config, lip_pairs=[(2, 7)])
        assert terms["openness"].item() == pytest.approx((0.02 * (1 + closure) + 0.02) / 2)


def test_articulation_is_the_difference_in_standard_deviation() -> None:
    true_lip, jaw = torch.zeros(2, 4, 40, 2), torch.zeros(2, 4, 17, 2)
    true_lip[0, :, 7, 1] = torch.tensor([0.1, 0.3, 0.1, 0.3])  # standard deviation 0.1; the other window stays shut
    for factor, expected in ((1.0, 0.0), (0.5, 0.05), (-1.0, 0.0), (3.0, 0.2)):
        config = replace(NO_TERMS, articulation=2.0)
        terms = lite_landmark_loss(factor * true_lip, jaw, true_lip, jaw, config, lip_pairs=[(2, 7)])
        assert terms["articulation"].item() == pytest.approx(expected / 2, abs=1e-5)


def test_closed_lips_have_a_finite_gradient() -> None:
    lip, jaw = torch.zeros(1, 1, 40, 2, requires_grad=True), torch.zeros(1, 1, 17, 2)
    config = ALL_TERMS
    lite_landmark_loss(lip, jaw, torch.ones(1, 1, 40, 2), jaw, config, lip_pairs=[(5, 15)])["L"].backward()
    assert lip.grad is not None and torch.isfinite(lip.grad).all()


def test_paper_terms_are_the_papers() -> None:
    lip, jaw, true_lip, true_jaw = (torch.rand(2, 3, points, 2) for points in (40, 17, 40, 17))
    lite = lite_landmark_loss(lip, jaw, true_lip, true_jaw, NO_TERMS, lip_pairs=[(2, 7)])
    paper = landmark_loss(lip, jaw, true_lip, true_jaw, LandmarkLossConfig(velocity=0.0))
    assert {name: lite[name] for name in paper} == paper


@torch.no_grad()
def test_pixel_term_is_the_mean_absolute_difference(vgg: VGG19) -> None:
    face, warped, target = pictures()
    terms = LiteRenderLoss(replace(VGG_TERMS, pixel=3.0), vgg)(face, warped, target)
    assert set(terms) == {"L_w", "L_r", "L_s", "pixel", "L"}
    expected = 2.5 * terms["L_w"] + 4 * terms["L_r"] + 1000 * terms["L_s"] + 3 * terms["pixel"]
    torch.testing.assert_close(terms["L"], expected)
    torch.testing.assert_close(terms["pixel"], (face - target).abs().mean() + (warped - target).abs().mean())


def test_equal_pictures_have_no_pixel_loss(vgg: VGG19) -> None:
    face = pictures(1)[0]
    assert LiteRenderLoss(replace(VGG_TERMS, pixel=1.0), vgg)(face, face, face)["L"] == 0


def test_without_warping_only_the_face_has_a_pixel_term(vgg: VGG19) -> None:
    face, warped, target = pictures()
    terms = LiteRenderLoss(replace(VGG_TERMS, pixel=1.0), vgg, use_warping=False)(face, warped, target)
    assert "L_w" not in terms and "L_r" in terms
    torch.testing.assert_close(terms["pixel"], (face - target).abs().mean())


def test_vgg_terms_ignore_the_upper_half(vgg: VGG19) -> None:
    face, warped, target = pictures()
    lower, full = LiteRenderLoss(VGG_TERMS, vgg), RenderLoss(NO_GAN, vgg)
    other = face.clone()
    other[:, :, :16] = 0.5
    assert lower(face, warped, target)["L"] == lower(other, warped, target)["L"]
    assert full(face, warped, target)["L"] != full(other, warped, target)["L"]


def test_pixel_term_alone_needs_no_network() -> None:
    face, warped, target = pictures()
    config = LiteRenderLossConfig(warp=0, perceptual=0, style=0, pixel=1)
    assert set(LiteRenderLoss(config, None)(face, warped, target)) == {"pixel", "L"}


def test_initial_motion_loss_is_negative_psnr_and_penalty() -> None:
    target = torch.full((1, 3, 4, 8), 0.5)
    warped = target[:, None] + torch.tensor([0.1, -0.1]).view(1, 2, 1, 1, 1)
    weight = torch.tensor([0.75, 0.25]).view(1, 2, 1, 1, 1).expand(1, 2, 1, 4, 8)
    loss = initial_motion_loss(warped, weight, target, torch.full((10,), 2.0), decay=0.5)
    # Each reference is off by 0.1 (20 dB), their average by 0.05 (26.02 dB); the penalty is 0.5 * 10 * 2^2.
    assert loss.item() == pytest.approx(-20 - 26.02 + 20, abs=0.01)
