"""PSNR, SSIM, LPIPS and FID against other implementations, on random images and on a real one."""

from pathlib import Path
from typing import Any

import lpips
import numpy as np
import piq
import pytest
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from skimage import data, metrics
from torch import Tensor

from metrics.image_quality import LPIPS, FeaturePool, Inception, psnr, ssim

ROOT = Path(__file__).parents[2]


def pairs() -> dict[str, tuple[Tensor, Tensor]]:
    random = np.random.default_rng(0)
    noise = torch.from_numpy(random.random((3, 3, 128, 128), dtype=np.float32))
    astronaut = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 255
    blurred = torch.nn.functional.avg_pool2d(astronaut, 5, 1, 2, count_include_pad=False)
    small = [torch.nn.functional.interpolate(x, 128, mode="area") for x in (astronaut, blurred)]
    return {
        "random": (noise, noise.roll(1, 0)),
        "near": (noise, (noise + 0.05 * torch.from_numpy(random.standard_normal(noise.shape)).float()).clamp(0, 1)),
        "real 128": (small[0], small[1]),
        "real 512": (astronaut, blurred),
    }


@pytest.mark.parametrize("name", pairs())
def test_psnr_equals_piq_and_scikit_image(name: str) -> None:
    output, target = pairs()[name]
    ours = psnr(output, target)
    torch.testing.assert_close(ours.float(), piq.psnr(output, target, reduction="none"), atol=1e-4, rtol=0)
    theirs = [
        metrics.peak_signal_noise_ratio(t.double().numpy(), o.double().numpy(), data_range=1)
        for t, o in zip(target, output, strict=True)
    ]
    errors = 10 ** (-np.array(theirs) / 10)  # scikit-image adds no epsilon to the error
    np.testing.assert_allclose(ours, -10 * np.log10(errors + 1e-8), atol=1e-6)


@pytest.mark.parametrize("name", pairs())
def test_ssim_equals_piq(name: str) -> None:
    output, target = pairs()[name]
    torch.testing.assert_close(
        ssim(output, target).float(), piq.ssim(output, target, reduction="none"), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("name", ["random", "near", "real 128"])
def test_ssim_equals_scikit_image(name: str) -> None:
    output, target = pairs()[name]
    theirs = [
        metrics.structural_similarity(
            t.double().numpy(), o.double().numpy(), channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        for t, o in zip(target, output, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(ssim(output, target), theirs, atol=1e-4)


def test_constant_images_have_the_closed_forms() -> None:
    grey = torch.full((1, 3, 64, 64), 0.5)
    assert float(psnr(grey, grey)) == pytest.approx(80)
    assert float(psnr(grey + 0.1, grey)) == pytest.approx(20, abs=1e-4)  # -10 log10(0.01)
    assert float(ssim(grey, grey)) == pytest.approx(1)
    a, b = 0.5, 0.6  # flat pictures: only the luminance term is left
    assert float(ssim(grey, grey + 0.1)) == pytest.approx((2 * a * b + 1e-4) / (a * a + b * b + 1e-4), abs=1e-6)


def test_psnr_does_not_wrap_around_and_is_symmetric() -> None:
    black, white = torch.zeros(2, 3, 8, 8), torch.ones(2, 3, 8, 8)
    assert psnr(black, white).tolist() == pytest.approx([0, 0], abs=1e-6)
    mixed = torch.cat([black[:1], white[:1]])
    assert psnr(mixed, black).tolist() == pytest.approx([80, 0], abs=1e-6)


class AppleGpuTensor:
    """A tensor on a device without float64."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.shape, self.device = tensor, tensor.shape, torch.device("mps")

    def double(self) -> Tensor:
        raise TypeError("MPS has no float64")

    def cpu(self) -> Tensor:
        return self.tensor


def test_scores_need_no_float64_on_the_device() -> None:
    output, target = pairs()["near"]
    there: Any = [AppleGpuTensor(x) for x in (output, target)]
    for score in (psnr, ssim):
        torch.testing.assert_close(score(*there), score(output, target))


def reference_lpips(shared: Path) -> lpips.LPIPS:
    """The lpips package itself, with a backbone loaded by torchvision's layer numbers."""
    network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    weights = torch.load(shared / "weights" / "alexnet_features_torchvision.pth", map_location="cpu", weights_only=True)
    for number in (0, 3, 6, 8, 10):
        layer = next(m for n, m in network.net.named_modules() if n.endswith(f".{number}"))
        layer.weight.data = weights[f"features.{number}.weight"]
        layer.bias.data = weights[f"features.{number}.bias"]
    return network


def test_lpips_equals_the_package(shared: Path) -> None:
    ours = LPIPS("alex", shared / "weights" / "alexnet_features_torchvision.pth")
    theirs = reference_lpips(shared)
    for name in ("random", "real 128"):
        output, target = pairs()[name]
        with torch.no_grad():
            expected = theirs(output * 2 - 1, target * 2 - 1).flatten()
        torch.testing.assert_close(ours(output, target), expected, atol=1e-5, rtol=0)
        distances = (ours.embed(output) - ours.embed(target)).square().sum(1)
        torch.testing.assert_close(distances, expected, atol=1e-5, rtol=0)
    same = pairs()["random"][0]
    assert ours(same, same).abs().max() < 1e-6
    linear = torch.load(shared / "weights" / "lin_v0.1_alex.pth", map_location="cpu", weights_only=True)
    for name, weight in linear.items():
        torch.testing.assert_close(ours.distance.state_dict()[name], weight)


@pytest.mark.slow
def test_lpips_loads_whole_files_and_vgg(tmp_path: Path) -> None:
    """torchvision's files also contain the classifier, and VGG-16 has other layer numbers."""
    torch.manual_seed(0)
    made = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
    state = {"features." + k.split(".", 1)[1]: v for k, v in made.net.state_dict().items()} | {
        "classifier.0.bias": torch.zeros(1)
    }
    torch.save(state, tmp_path / "vgg16.pth")
    ours = LPIPS("vgg", tmp_path / "vgg16.pth")
    a, b = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(a, b), made.eval()(a * 2 - 1, b * 2 - 1).flatten(), atol=1e-6, rtol=1e-5)


def test_fid_equals_pytorch_fid() -> None:
    random = np.random.default_rng(1)
    first = random.standard_normal((300, 24)) @ random.standard_normal((24, 24))
    second = random.standard_normal((300, 24)) * 1.3 + 0.2
    pool = FeaturePool()
    for batch in np.array_split(np.stack([first, second]), 7, axis=1):
        pool.add(batch)
    for features, statistics in zip((first, second), pool.statistics(), strict=True):
        np.testing.assert_allclose(statistics["mu"], features.mean(0), atol=1e-12)
        np.testing.assert_allclose(statistics["sigma"], np.cov(features, rowvar=False), atol=1e-10)
    theirs = calculate_frechet_distance(
        first.mean(0), np.cov(first, rowvar=False), second.mean(0), np.cov(second, rowvar=False)
    )
    assert pool.fid() == pytest.approx(theirs, rel=1e-8)
    same = FeaturePool()
    same.add(np.stack([first, first]))
    assert same.fid() == pytest.approx(0, abs=1e-8)
    assert np.isnan(FeaturePool().fid())


def test_fid_works_with_fewer_images_than_dimensions() -> None:
    """Singular covariances, as in every small test set. A shift by d changes only the mean term, by d^2."""
    features = np.random.default_rng(2).standard_normal((20, 64))
    pool = FeaturePool()
    pool.add(np.stack([features, features + 0.5]))
    assert pool.fid() == pytest.approx(64 * 0.25, rel=1e-5)


@pytest.mark.slow
def test_inception_equals_pytorch_fid_and_torch_fidelity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A synthetic file of the published shapes gives the same features in all three.

    Images of 299 pixels are not resized. Pixels become (x - 128) / 128 in torch-fidelity, as in TensorFlow, and
    2 x / 255 - 1 in pytorch-fid, which gets x / 256 here.
    """
    from pytorch_fid import inception
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    torch.manual_seed(0)
    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        state = inception.fid_inception_v3().state_dict()
    path = tmp_path / "inception.pth"
    torch.save(state, path)
    monkeypatch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: state)
    theirs = inception.InceptionV3([inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]], resize_input=False).eval()
    ours = Inception(path)
    pictures = torch.randint(0, 256, (2, 3, 299, 299), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(ours(pictures / 255), theirs(pictures / 256)[0][..., 0, 0], atol=1e-5, rtol=1e-4)
    fidelity = FeatureExtractorInceptionV3(
        "x", ["2048"], feature_extractor_weights_path=str(tmp_path / "inception.pth")
    )
    small = pictures[..., :128, :128]
    with torch.no_grad():
        torch.testing.assert_close(ours(small / 255), fidelity(small)[0], atol=1e-6, rtol=1e-5)
    assert ours(small / 255).shape == (2, 2048)
