"""A real face: the public-domain portrait that comes with scikit-image."""

from collections.abc import Callable, Iterator
from contextlib import closing

import cv2
import numpy as np
import pytest
from skimage import data

from face.detector import FaceDetector


@pytest.fixture(scope="session")
def detector() -> Iterator[FaceDetector]:
    with closing(FaceDetector()) as made:
        yield made


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """(320, 340, 3) the astronaut's head; the face is about 92 x 107 pixels."""
    return np.ascontiguousarray(data.astronaut()[:320, 50:390])


@pytest.fixture(scope="session")
def mesh(detector: FaceDetector, portrait: np.ndarray) -> np.ndarray:
    """(478, 2) the mesh of `portrait`."""
    faces = detector.detect(portrait)
    assert len(faces) == 1
    return faces[0]


@pytest.fixture(scope="session")
def place(portrait: np.ndarray) -> Callable[..., np.ndarray]:
    """place(frame, x, y, scale, flip) pastes the portrait into a copy of a frame."""

    def paste(frame: np.ndarray, x: int, y: int, scale: float = 1.0, flip: bool = False) -> np.ndarray:
        picture = portrait[:, ::-1] if flip else portrait
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        frame = frame.copy()
        frame[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
        return frame

    return paste


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)
