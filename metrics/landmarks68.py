"""The 68 landmarks of face-alignment (2DFAN4 on faces that S3FD finds), averaged with those of the mirror image."""

from pathlib import Path
from unittest.mock import patch

import numpy as np

from checkpoints import registry

LIPS, EYES = slice(48, 68), (slice(36, 42), slice(42, 48))
COUNT = 68


class Points68:
    """face-alignment's network from files on disk; the package itself would download them."""

    def __init__(self, fan: Path, s3fd: Path, device: str = "cpu") -> None:
        from face_alignment import api

        local = patch.object(api, "load_file_from_url", lambda _: str(fan))
        with registry.reading(f"{fan} or {s3fd}", "2DFAN4 and S3FD"), local:
            self.network = api.FaceAlignment(
                api.LandmarksType.TWO_D, device=device, flip_input=True, compile=False,
                face_detector_kwargs={"path_to_detector": str(s3fd)},
            )  # fmt: skip

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """(68, 2) points of the largest face of an RGB frame, in pixels; NaN where there is none."""
        faces = self.network.get_landmarks_from_image(frame)
        if not faces:
            return np.full((COUNT, 2), np.nan)
        return max(faces, key=lambda points: float(np.prod(np.ptp(points, axis=0))))  # pyright: ignore
