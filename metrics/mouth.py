"""Realism and sharpness of drawn mouths, compared with real mouths of the same video; needs no ground truth.

Mouth crops are upright, centred on the lips and scaled by the distance between the eyes.
"""

from collections.abc import Callable, Iterable

import cv2
import numpy as np
import torch
from numpy import ndarray

from face.landmarks import EYES, LIP_SLICE
from media.audio import FPS
from media.timing import evenly_spaced
from metrics.image_quality import LPIPS

SIDE = 96  # pixels of a mouth crop
EXTENT = 1.2  # side of a mouth crop, relative to the distance between the eyes
MIN_GAP = FPS / 2  # frames; real mouths that are nearer in time are almost the same picture and are not compared
OUTLIER = 0.99  # quantile of the distances between real mouths; drawn mouths above it are implausible
MAX_REAL_MOUTHS = 250  # evenly spaced real mouths of a video that drawn mouths are compared with


def mouth_crop(frame: ndarray, landmarks: ndarray, side: int = SIDE) -> ndarray:
    """Crops the mouth (side, side, 3) from an image (H, W, 3) RGB uint8, given landmarks (131, 2) in pixels."""
    right_eye, left_eye = (landmarks[eye].mean(axis=0) for eye in EYES)
    eye_line = left_eye - right_eye
    extent = max(1.0, EXTENT * float(np.hypot(*eye_line)))  # pixels of the image
    size = side * max(1, round(extent / side))  # larger crops are averaged down to avoid aliasing
    angle = np.degrees(np.arctan2(eye_line[1], eye_line[0]))
    centre = landmarks[LIP_SLICE].mean(axis=0)
    transform = cv2.getRotationMatrix2D(centre.tolist(), angle, size / extent)
    transform[:, 2] += size / 2 - centre
    crop = cv2.warpAffine(frame, transform, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)


def laplacian_energy(crops: ndarray) -> ndarray:
    """Mean square of the Laplacian of each crop (n, H, W, 3) RGB uint8 in grey: (n,)."""
    energies = []
    for crop in crops:
        grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
        energies.append(np.square(cv2.Laplacian(grey, cv2.CV_32F)).mean())
    return np.array(energies)


class RealMouths:
    """The N real mouths of one video.

    Args:
        crops: (N, 96, 96, 3) from `mouth_crop`.
        frames: (N,) their frame numbers, at 25 fps.
        lpips: network that measures the distances.
    """

    def __init__(self, crops: ndarray, frames: ndarray, lpips: LPIPS):
        self.lpips = lpips
        self.vectors = self._embed(crops)
        self.energies = laplacian_energy(crops)
        distances = self.distances_to(crops)
        near = np.abs(frames[:, None] - frames) <= MIN_GAP
        distances[near] = np.inf
        nearest = distances.min(axis=1)
        self.distances = nearest[np.isfinite(nearest)]  # of each real mouth to the nearest other one

    @classmethod
    def read(
        cls,
        frames: ndarray,
        landmarks: ndarray,
        read_frames: Callable[[ndarray], Iterable[ndarray]],
        lpips: LPIPS | None,
    ) -> "RealMouths | None":
        """Reads the mouths in at most `MAX_REAL_MOUTHS` frames of a video; None without LPIPS or without a face.

        Args:
            frames: (n,) numbers of the frames with a face.
            landmarks: (n, 131, 2) in pixels of the pictures that are read.
            read_frames: reads the pictures of given frame numbers.
            lpips: network that measures the distances, or None.
        """
        if lpips is None or not len(frames):
            return None
        chosen = evenly_spaced(len(frames), MAX_REAL_MOUTHS)
        crops = map(mouth_crop, read_frames(frames[chosen]), landmarks[chosen])
        return cls(np.stack(list(crops)), frames[chosen], lpips)

    def _embed(self, crops: ndarray) -> torch.Tensor:
        device = next(self.lpips.parameters()).device
        images = torch.from_numpy(crops).permute(0, 3, 1, 2).to(device)
        return self.lpips.embed(images / 255)

    def distances_to(self, crops: ndarray) -> ndarray:
        """LPIPS (n, N) of mouths (n, 96, 96, 3) to the N real ones."""
        distances = torch.cdist(self._embed(crops), self.vectors)
        return distances.square().cpu().numpy()

    def compare(self, crops: ndarray) -> dict[str, ndarray]:
        """Compares drawn mouths (n, 96, 96, 3): table column -> a value for each.

        "mouth distance": LPIPS to the nearest real mouth of the video, divided by its mean from each real mouth to the
        nearest one more than half a second away; 1 is as different as real mouths are from each other.
        "mouth outliers": 1 if that LPIPS is above the 99th percentile of the real mouths, else 0.
        "mouth sharpness": Laplacian energy divided by that of the nearest real mouth; below 1 is softer.

        The first two are absent if the video is not longer than half a second.
        """
        distances = self.distances_to(crops)
        distance = distances.min(axis=1)
        nearest_energies = self.energies[distances.argmin(axis=1)]
        scores = {"mouth sharpness": laplacian_energy(crops) / nearest_energies.clip(1e-6)}
        if len(self.distances):
            scores["mouth distance"] = distance / self.distances.mean()
            scores["mouth outliers"] = distance > np.quantile(self.distances, OUTLIER)
        return scores
