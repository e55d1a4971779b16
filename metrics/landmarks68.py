"""The 68 landmarks of face-alignment: 2DFAN4 on faces found by S3FD, averaged with those of the mirrored image."""

from pathlib import Path
from unittest.mock import patch

import numpy as np

from checkpoints import registry

COUNT = 68
LIPS = slice(48, 68)


class Landmarks68:
    """face-alignment's network, read from local files (the package itself would download them)."""

    def __init__(self, fan: Path, s3fd: Path, device: str = "cpu") -> None:
        """Raises UserError if a file holds another network."""
        from face_alignment import api

        local_file = patch.object(api, "load_file_from_url", lambda _: str(fan))
        with registry.reading(f"{fan} or {s3fd}", "2DFAN4 and S3FD"), local_file:
            self.network = api.FaceAlignment(
                api.LandmarksType.TWO_D,
                device=device,
                flip_input=True,
                compile=False,
                face_detector_kwargs={"path_to_detector": str(s3fd)},
            )

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Landmarks (68, 2) of the largest face in an RGB frame, in pixels; NaN if there is no face."""
        faces = self.network.get_landmarks_from_image(frame)
        if not faces:
            return np.full((COUNT, 2), np.nan)
        areas = [np.prod(np.ptp(np.asarray(landmarks), axis=0)) for landmarks in faces]
        return np.asarray(faces[int(np.argmax(areas))])
