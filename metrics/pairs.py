"""Scores of images against their originals, collected by table column."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy import ndarray
from torch import Tensor

from metrics.image_quality import psnr, ssim
from metrics.mouth import RealMouths, mouth_crop


class PairScorer:
    """Collects PSNR and SSIM and, where their networks are available, LPIPS and the realism of mouths.

    Args:
        networks: column -> network; only LPIPS networks are used.
        real_mouths: the real mouths of the video, or None.
    """

    def __init__(self, networks: dict[str, Any], real_mouths: RealMouths | None):
        self.metrics: dict[str, Any] = {"PSNR": psnr, "SSIM": ssim}
        for column, network in networks.items():
            if column.startswith("LPIPS"):
                self.metrics[column] = network
        self.values = defaultdict(list)
        self.real_mouths = real_mouths

    def add(self, output: Tensor, target: Tensor, suffix: str = "") -> None:
        """Scores images (n, 3, H, W) in [0, 1]. `suffix` is appended to the columns' names."""
        for column, metric in self.metrics.items():
            self.values[column + suffix] += metric(output, target).tolist()

    def add_mouths(self, frames: Iterable[ndarray], landmarks: ndarray) -> None:
        """Scores the mouths in n images, RGB uint8, with landmarks (n, 131, 2) in pixels."""
        if self.real_mouths:
            for crop in map(mouth_crop, frames, landmarks):
                for column, value in self.real_mouths.compare(crop[None]).items():
                    self.values[column].append(value.item())

    def scores(self) -> dict[str, float]:
        """Column -> mean over all images."""
        return {column: float(np.mean(values)) for column, values in self.values.items()}
