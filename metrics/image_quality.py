"""Image quality: PSNR, SSIM, LPIPS, FID.

Images are batches (n, 3, H, W), RGB, float in [0, 1]. Every metric gives one number per image, except FID, which
compares two pools of images.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from checkpoints import registry

SSIM_SIDE = 256  # pixels; larger images are first averaged down to about this shorter side, as in the original code
PSNR_EPS = 1e-8  # identical images give 80 dB, as in piq


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each image in dB, (n,), from the mean squared error over pixels and channels."""
    difference = output.cpu().double() - target.cpu().double()  # on the CPU: Apple's GPU has no float64
    error = difference.square().flatten(1).mean(1)
    return -10 * torch.log10(error + PSNR_EPS)


def ssim(output: Tensor, target: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), (n,): the mean of the three channels.

    The window is a Gaussian of 11 x 11 pixels (sigma 1.5), with K 0.01 and 0.03: scikit-image's defaults. Only windows
    inside the image count. Images much larger than `SSIM_SIDE` are averaged over blocks first.
    """
    factor = max(1, round(min(output.shape[-2:]) / SSIM_SIDE))
    scores = []
    for pair in zip(output.cpu().double(), target.cpu().double(), strict=True):
        images = [F.avg_pool2d(image, factor).numpy() for image in pair]
        score = structural_similarity(
            *images, channel_axis=0, data_range=1, gaussian_weights=True, use_sample_covariance=False
        )
        scores.append(score)
    return torch.tensor(scores)


class LPIPS(nn.Module):
    """Learned perceptual distance v0.1 (Zhang et al. 2018).

    The lpips package contains the linear layers; `path` holds torchvision's AlexNet or VGG-16, or its `features` alone.
    """

    def __init__(self, network: str, path: Path):
        """`network`: "alex" or "vgg". Raises UserError if the file holds another network."""
        import lpips

        super().__init__()
        with warnings.catch_warnings(action="ignore"):  # it asks torchvision for random weights in a deprecated way
            self.distance = lpips.LPIPS(net=network, pnet_rand=True, verbose=False)
        backbone = self.distance.net
        with registry.reading(path, f"torchvision's {network} network"):
            published = torch.load(path, map_location="cpu", weights_only=True)
            for name, parameter in backbone.named_parameters():  # slice2.3.weight is torchvision's features.3.weight
                _, layer = name.split(".", 1)
                parameter.data.copy_(published[f"features.{layer}"])
        self.requires_grad_(False).eval()

    @torch.inference_mode()
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Distances (n,)."""
        return self.distance(output.float(), target.float(), normalize=True).flatten()

    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """Vectors (n, D) whose squared Euclidean distances are the distances of the images."""
        scaled = self.distance.scaling_layer(2 * images - 1)
        vectors = []
        for features, linear in zip(self.distance.net(scaled), self.distance.lins, strict=True):
            directions = F.normalize(features, dim=1)
            weights = next(linear.parameters()) / features[0, 0].numel()  # a mean over the image's positions
            vectors.append((directions * weights.sqrt()).flatten(1))
        return torch.cat(vectors, dim=1)


class Inception(nn.Module):
    """FID's Inception network, with torch-fidelity's preprocessing (TensorFlow's bilinear resizing to 299 pixels)."""

    def __init__(self, path: Path):
        """`path`: pt_inception-2015-12-05-6726825d.pth or torch-fidelity's copy. Raises UserError for other files."""
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        super().__init__()
        with registry.reading(path, "FID's Inception"):
            torch.load(path, weights_only=True)  # rejects a file with code, which torch-fidelity would run
            self.network = FeatureExtractorInceptionV3("fid", ["2048"], feature_extractor_weights_path=path)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """The pool3 features (n, 2048)."""
        pixels = (images * 255).round().clamp(0, 255).to(torch.uint8)
        return self.network(pixels)[0]


class FeaturePool:
    """Means and covariances, in float64, of the features of outputs and originals; does not keep the features."""

    def __init__(self):
        self.count = 0
        self.sum = np.zeros(1)  # broadcasts to (2, d)
        self.products = np.zeros(1)  # broadcasts to (2, d, d)

    def add(self, features: np.ndarray) -> None:
        """`features`: (2, n, d), of outputs and of originals."""
        values = features.astype(np.float64)
        self.count += values.shape[1]
        self.sum = self.sum + values.sum(axis=1)
        self.products = self.products + values.swapaxes(1, 2) @ values

    def statistics(self) -> list[dict[str, np.ndarray]]:
        """Mean "mu" (d,) and unbiased covariance "sigma" (d, d) of outputs and of originals."""
        statistics = []
        for mean, products in zip(self.sum / self.count, self.products, strict=True):
            scatter = products - self.count * np.outer(mean, mean)
            statistics.append({"mu": mean, "sigma": scatter / (self.count - 1)})
        return statistics

    def fid(self) -> float:
        """Fréchet distance of outputs and originals; NaN with fewer than two. It depends on the number of images."""
        from torch_fidelity import metric_fid

        if self.count < 2:
            return np.nan
        return metric_fid.fid_statistics_to_metric(*self.statistics(), verbose=False)[metric_fid.KEY_METRIC_FID]
