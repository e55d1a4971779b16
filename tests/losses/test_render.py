"""Perceptual, style and combined loss of stage 2."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from losses import perceptual
from losses.perceptual import VGG19, gram, style
from losses.render import RenderLoss, RenderLossConfig
from tests.models.released import case, state_dict

NO_GAN = RenderLossConfig(adversarial=0, feature_matching=0)


def made_up_vgg(layers: tuple[int, ...] = (1, 2)) -> VGG19:
    generator = torch.Generator().manual_seed(0)
    shapes = {0: (64, 3), 2: (64, 64), 5: (128, 64), 7: (128, 128), 10: (256, 128)}
    state = {}
    for position, shape in shapes.items():
        state[f"features.{position}.weight"] = 0.05 * torch.randn(*shape, 3, 3, generator=generator)
        state[f"features.{position}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    return VGG19(state, layers)


@pytest.fixture(scope="module")
def vgg() -> VGG19:
    return made_up_vgg()


def pictures(count: int = 3, size: int = 32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, 3, size, size, generator=generator) for _ in range(count)]


@pytest.mark.slow
@torch.no_grad()
def test_parity(shared: Path) -> None:
    state = state_dict(shared / "reference", "renderer")
    # Released losses saw BGR; with the stored BGR pictures as they are, so does this VGG.
    network = VGG19({name.replace("perceptual.model.network", "features"): value for name, value in state.items()})
    z = case(shared / "reference", "renderer")
    loss = RenderLoss(NO_GAN, network)
    for name in ("n1", "b2"):
        terms = loss(z[f"{name}_out"], z[f"{name}_warped"], z[f"{name}_face"][:, 0])
        assert terms["L_w"].item() == pytest.approx(z[f"{name}_warp_loss"].item(), abs=1e-5)
        found = (terms["L_r"] + 250 * terms["L_s"]).item()
        assert found == pytest.approx(z[f"{name}_gen_loss"].item(), abs=1e-5)


@torch.no_grad()
def test_total_is_the_weighted_sum(vgg: VGG19) -> None:
    face, warped, target = pictures()
    terms = RenderLoss(NO_GAN, vgg)(face, warped, target)
    assert set(terms) == {"L_w", "L_r", "L_s", "L"}
    torch.testing.assert_close(terms["L"], 2.5 * terms["L_w"] + 4 * terms["L_r"] + 1000 * terms["L_s"])


def test_equal_pictures_have_no_loss(vgg: VGG19) -> None:
    face = pictures(1)[0]
    assert RenderLoss(NO_GAN, vgg)(face, face, face)["L"] == 0


def test_warming_up_trains_the_alignment_alone(vgg: VGG19) -> None:
    face, warped, target = (picture.requires_grad_() for picture in pictures())
    terms = RenderLoss(NO_GAN, vgg)(face, warped, target.detach(), warming_up=True)
    assert set(terms) == {"L_w", "L"}
    terms["L"].backward()
    assert face.grad is None and warped.grad is not None and warped.grad.abs().max() > 0


def test_without_warping_the_references_have_no_term(vgg: VGG19) -> None:
    face, warped, target = pictures()
    terms = RenderLoss(NO_GAN, vgg, use_warping=False)(face.requires_grad_(), warped, target)
    assert "L_w" not in terms and "L_r" in terms
    terms["L"].backward()
    assert face.grad is not None


def test_gradients_go_to_their_own_picture(vgg: VGG19) -> None:
    face, warped, target = (picture.requires_grad_() for picture in pictures())
    terms = RenderLoss(NO_GAN, vgg)(face, warped, target)
    (gradient,) = torch.autograd.grad(terms["L_w"], warped, retain_graph=True)
    assert gradient.abs().max() > 0
    assert torch.autograd.grad(terms["L_w"], face, retain_graph=True, allow_unused=True) == (None,)
    terms["L"].backward()
    assert target.grad is None and all(p.grad is None for p in vgg.parameters())


def test_terms_without_weight_are_left_out() -> None:
    face, warped, target = pictures()
    config = replace(NO_GAN, warp=0, style=0)
    assert set(RenderLoss(config, made_up_vgg())(face, warped, target)) == {"L_r", "L"}
    for loss in (RenderLoss(NO_GAN, None), RenderLoss(RenderLossConfig(), made_up_vgg())):  # no network for a term
        with pytest.raises((TypeError, AttributeError)):
            loss(face, warped, target)


def test_vgg_is_frozen(vgg: VGG19) -> None:
    assert not any(p.requires_grad for p in vgg.parameters())
    assert [tuple(f.shape) for f in vgg(pictures(1)[0])] == [(2, 64, 32, 32), (2, 128, 16, 16)]


def test_layers_can_be_chosen(vgg: VGG19) -> None:
    picture = pictures(1)[0]
    both, second = vgg(picture), made_up_vgg((2,))(picture)
    assert len(second) == 1
    torch.testing.assert_close(second[0], both[1])


def test_gram_by_hand() -> None:
    maps = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])  # 2 channels of 1 x 2 pixels
    torch.testing.assert_close(gram(maps), torch.tensor([[[5.0, 11.0], [11.0, 25.0]]]) / 4)


def test_gram_stays_in_float32_under_autocast() -> None:
    features = 1 + 0.01 * torch.randn(2, 8, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        inside, distance = gram(features), style([features], [features * 1.001])
    assert inside.dtype == distance.dtype == torch.float32
    torch.testing.assert_close(inside, gram(features))
    torch.testing.assert_close(distance, style([features], [features * 1.001]))


def test_vgg_file_of_any_precision(tmp_path: Path, vgg: VGG19) -> None:
    path = tmp_path / "vgg.pth"
    state = {f"features.{name}": value.half() for name, value in vgg.features.state_dict().items()}
    torch.save(state | {"classifier.0.weight": torch.zeros(1)}, path)
    picture = pictures(1)[0]
    loaded = VGG19(torch.load(path, weights_only=True), (1, 2))
    for a, b in zip(loaded(picture), vgg(picture), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)


@pytest.mark.slow
@torch.inference_mode()
def test_real_vgg_agrees_with_human_judgement(shared: Path) -> None:
    """A blurred picture is farther from the original than one that is a little darker."""
    from skimage.data import astronaut

    network = VGG19(torch.load(shared / "weights" / "vgg19_features.pth", weights_only=True))
    picture = torch.from_numpy(astronaut()[:256, 128:384]).permute(2, 0, 1)[None] / 255
    blurred = torch.nn.functional.avg_pool2d(picture, 5, stride=1, padding=2, count_include_pad=False)
    features, dark, soft = (network(x) for x in (picture, 0.95 * picture, blurred))
    assert 2 * perceptual.perceptual(dark, features) < perceptual.perceptual(soft, features)
