"""How like the real pictures the made ones are: PSNR, SSIM, LPIPS, FID.

Pictures are batches (n, 3, H, W), RGB, float in [0, 1]. Every score is one number a frame, but FID, which is one number
for a pool of frames.
"""

import io
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import linalg
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from checkpoints import registry

SSIM_SIDE = 256  # pixels; larger pictures are averaged down to about this shorter side first, as in the original code
PSNR_EPS = 1e-8  # identical frames give 80 dB, as in piq


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, (n,), of the mean square error over all pixels and channels of a frame."""
    error = (output.cpu().double() - target.cpu().double()).square().flatten(1).mean(1)  # Apple's GPU has no float64
    return -10 * torch.log10(error + PSNR_EPS)


def ssim(output: Tensor, target: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), (n,): the mean of the three channels.

    Only windows that lie inside the picture count. Above `SSIM_SIDE` pixels the pictures are box-averaged first.
    """
    factor = max(1, round(min(output.shape[-2:]) / SSIM_SIDE))
    pairs = zip(*(F.avg_pool2d(x.cpu().double(), factor).numpy() for x in (output, target)), strict=True)
    published = {"gaussian_weights": True, "sigma": 1.5, "K1": 0.01, "K2": 0.03, "use_sample_covariance": False}
    return torch.tensor([structural_similarity(*pair, channel_axis=0, data_range=1, **published) for pair in pairs])


class LPIPS(nn.Module):
    """Learned perceptual distance v0.1 (Zhang et al. 2018).

    The lpips package brings the linear layers; `path` is torchvision's AlexNet or VGG-16, whole or only its `features`.
    """

    def __init__(self, network: str, path: Path) -> None:
        """`network`: alex, vgg or squeeze. Raises UserError if the file holds another one."""
        import lpips

        super().__init__()
        with warnings.catch_warnings():  # the package asks torchvision for random weights in a deprecated way
            warnings.simplefilter("ignore")
            self.distance = lpips.LPIPS(net=network, pnet_rand=True, verbose=False)
        # The package's slices keep torchvision's layer numbers: slice2.3.weight is features.3.weight.
        with registry.reading(path, f"torchvision's {network} network"):
            found, backbone = torch.load(path, map_location="cpu", weights_only=True), self.distance.net
            renamed = {k: found["features." + k.partition(".")[2]].float() for k in backbone.state_dict()}
            backbone.load_state_dict(renamed)
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """-> (n,)."""
        return self.distance(output.float(), target.float(), normalize=True).flatten()


class Inception(nn.Module):
    """The Inception network of FID, with torch-fidelity's preprocessing (TensorFlow's bilinear resize to 299)."""

    def __init__(self, path: Path) -> None:
        """`path`: pt_inception-2015-12-05-6726825d.pth or torch-fidelity's copy of it. Raises UserError if it isn't."""
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        super().__init__()
        safe = io.BytesIO()
        with registry.reading(path, "FID's Inception"):  # the package would unpickle the file itself
            torch.save(torch.load(path, map_location="cpu", weights_only=True), safe)
            safe.seek(0)
            self.network = FeatureExtractorInceptionV3("fid", ["2048"], feature_extractor_weights_path=safe)  # pool3

    @torch.inference_mode()
    def forward(self, pictures: Tensor) -> Tensor:
        """-> (n, 2048), the pool3 features."""
        return self.network((pictures * 255).round().clamp(0, 255).to(torch.uint8))[0]


class FeaturePool:
    """Mean and covariance of one pool of features, in float64, without keeping the features."""

    def __init__(self) -> None:
        self.count, self.total, self.outer = 0, np.zeros(1), np.zeros(1)  # they take the features' size at the first

    def add(self, features: Tensor) -> None:
        """`features` (n, d)."""
        values = features.cpu().double().numpy()
        self.count += len(values)
        self.total = self.total + values.sum(0)  # (d,)
        self.outer = self.outer + values.T @ values  # (d, d)

    @property
    def mean(self) -> np.ndarray:
        """(d,)"""
        return self.total / self.count

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (d,) and unbiased covariance (d, d)."""
        return self.mean, (self.outer - self.count * np.outer(self.mean, self.mean)) / (self.count - 1)


def fid(first: FeaturePool, second: FeaturePool) -> float:
    """Frechet distance between two pools; NaN with fewer than two frames. Depends on the number of frames: say it."""
    if min(first.count, second.count) < 2:
        return float("nan")
    (mean_a, cov_a), (mean_b, cov_b) = first.statistics(), second.statistics()
    # trace(sqrt(A B)) sums the roots of the eigenvalues of A B, which are those of the symmetric sqrt(A) B sqrt(A).
    values, vectors = linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    return float(((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)
