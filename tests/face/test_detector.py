"""Faces of every size and place are found, noise has none, and earlier frames make no difference."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing

import cv2
import numpy as np
import pytest

from face.crop import centre, extent, overlap, sides
from face.detector import FaceDetector
from face.tracking import track_faces
from tests.face.conftest import grey, noise

Place = Callable[..., np.ndarray]


def error(found: np.ndarray, wanted: np.ndarray) -> float:
    """Mean distance, relative to the height of the face."""
    return float(np.linalg.norm(found - wanted, axis=1).mean() / np.ptp(wanted[:, 1]))


def follow_still(detector: FaceDetector, frame: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(3, 478, 2) the meshes of three looks at the same frame."""
    faces = [detector.follow(frame, box) for _ in range(3)]
    return np.stack([face for face in faces if face is not None])


def test_mesh_is_in_pixels_of_the_frame(mesh: np.ndarray) -> None:
    assert mesh.shape == (478, 2)
    assert mesh.dtype == np.float32
    np.testing.assert_allclose(extent(mesh), [129, 71, 221, 177], atol=6)
    assert mesh[33, 0] < mesh[263, 0]  # the person's right eye is at the left
    assert mesh[10, 1] < mesh[1, 1] < mesh[13, 1] < mesh[152, 1]  # forehead, nose, mouth, chin


@pytest.mark.parametrize(("scale", "x", "y"), [(3.0, 700, 40), (1.3, 20, 600), (0.7, 1600, 30), (0.6, 900, 700)])
def test_faces_of_a_1080p_frame(
    detector: FaceDetector, place: Place, mesh: np.ndarray, scale: float, x: int, y: int
) -> None:
    faces = detector.detect(place(grey(1080, 1920), x, y, scale))
    assert len(faces) == 1
    assert error(faces[0], mesh * scale + [x, y]) < 0.02


def test_small_faces_need_the_thorough_search(detector: FaceDetector, place: Place) -> None:
    frame = place(grey(1080, 1920), 1500, 100, 0.6)
    assert detector.detect(frame, thorough=False) == []
    assert len(detector.detect(frame, thorough=True)) == 1


@pytest.mark.parametrize("share", [0.6, 0.7, 0.8, 0.9])
@pytest.mark.parametrize("scale", [1, 6])
def test_close_ups_that_cut_the_face_off(
    detector: FaceDetector, portrait: np.ndarray, mesh: np.ndarray, share: float, scale: int
) -> None:
    box = extent(mesh)
    half = share * sides(box) / 2
    x0, y0 = np.floor(centre(box) - half).astype(int)
    x1, y1 = np.ceil(centre(box) + half).astype(int)
    frame = cv2.resize(portrait[y0:y1, x0:x1], None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    faces = detector.detect(frame)
    assert len(faces) == 1
    assert error(faces[0], scale * (mesh - [x0, y0])) < 0.05
    track = track_faces([frame] * 3, detector=detector)
    assert track.found.all() and not track.cuts.any()


@pytest.mark.parametrize("angle", [-60, -30, 30, 60])
def test_turned_faces(detector: FaceDetector, portrait: np.ndarray, mesh: np.ndarray, angle: int) -> None:
    turn = cv2.getRotationMatrix2D((170.0, 130.0), angle, 1.0)
    frame = grey(480, 800)
    frame[80:400, 200:540] = cv2.warpAffine(portrait, turn, (340, 320), borderValue=(90, 90, 90))
    faces = detector.detect(frame)
    assert len(faces) == 1
    assert error(faces[0], cv2.transform(mesh[None], turn)[0] + [200, 80]) < 0.04


def test_two_faces_largest_first(detector: FaceDetector, place: Place, mesh: np.ndarray) -> None:
    frame = place(place(grey(700, 1280), 60, 100, 1.2), 700, 80, 1.6, flip=True)
    faces = detector.detect(frame)
    assert len(faces) == 2
    assert extent(faces[0])[0] > 700 > extent(faces[1])[2]
    assert error(faces[1], mesh * 1.2 + [60, 100]) < 0.02


@pytest.mark.parametrize("size", [(10, 10), (1, 1), (2, 500), (400, 10), (33, 57), (720, 1280)])
def test_nothing_is_found_in_noise_or_black_of_any_size(detector: FaceDetector, size: tuple[int, int]) -> None:
    assert detector.detect(noise(*size)) == []
    assert detector.detect(np.zeros((*size, 3), np.uint8)) == []


def test_earlier_frames_make_no_difference(detector: FaceDetector, place: Place, portrait: np.ndarray) -> None:
    box = extent(detector.detect(portrait)[0])
    first = detector.detect(portrait)
    detector.forget()
    followed = follow_still(detector, portrait, box)
    detector.detect(place(grey(500, 500), 100, 100))
    detector.forget()
    detector.follow(place(grey(500, 500), 100, 100), np.array([220, 160, 330, 290]))
    detector.forget()
    np.testing.assert_array_equal(detector.detect(portrait), first)
    np.testing.assert_array_equal(follow_still(detector, portrait, box), followed)
    with closing(FaceDetector()) as fresh:
        np.testing.assert_array_equal(fresh.detect(portrait), first)
        np.testing.assert_array_equal(follow_still(fresh, portrait, box), followed)


def test_a_followed_face_may_move_grow_and_vanish(detector: FaceDetector, place: Place, mesh: np.ndarray) -> None:
    detector.forget()
    box = extent(mesh + 100)
    frame = grey(1080, 1920)
    for step in range(12):
        scale, x = 1 + 0.12 * step, 100 + 20 * step
        frame = place(grey(1080, 1920), x, 100, scale)
        face = detector.follow(frame, box)
        assert face is not None
        assert error(face, mesh * scale + [x, 100]) < 0.025
        box = extent(face)
    assert detector.follow(grey(1080, 1920), box) is None
    assert detector.follow(frame, box) is not None  # back at once


def test_following_near_a_neighbour(detector: FaceDetector, place: Place) -> None:
    frame = place(place(grey(700, 1280), 100, 100, 1.5), 450, 100, 1.5, flip=True)
    faces = detector.detect(frame)
    assert len(faces) == 2
    for face in faces:
        detector.forget()
        for _ in range(3):
            followed = detector.follow(frame, extent(face), alone=False)
            assert followed is not None
            assert overlap(extent(followed), extent(face)) > 0.9


@pytest.mark.slow
def test_no_chatter_on_stderr() -> None:
    script = (
        "import numpy as np; from skimage import data\n"
        "from face.crop import extent; from face.detector import FaceDetector\n"
        "d = FaceDetector(); f = d.detect(data.astronaut()[:400]); d.follow(data.astronaut(), extent(f[0]))\n"
        "d.close(); print(len(f))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    assert done.stderr == ""


@pytest.mark.slow
def test_importing_is_cheap() -> None:
    script = "import sys, face.tracking, face.compositing; print('mediapipe' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
