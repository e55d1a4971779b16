"""The landmark table against MediaPipe's own contours and against a mirrored face."""

import importlib
from itertools import pairwise

import numpy as np

from face import landmarks
from face.detector import FaceDetector


def test_counts_and_order() -> None:
    assert (landmarks.NUM_POSE, landmarks.NUM_JAW, landmarks.NUM_LIP, landmarks.NUM_FULL) == (74, 17, 40, 131)
    assert len(set(landmarks.FULL)) == 131
    assert landmarks.FULL[landmarks.JAW_SLICE] == landmarks.JAW
    assert landmarks.FULL[landmarks.LIP_SLICE] == landmarks.LIP
    assert landmarks.FULL[landmarks.POSE_SLICE] == landmarks.POSE
    for pairs, middle in ((landmarks.OUTER_LIPS, (0, 17)), (landmarks.INNER_LIPS, (13, 14))):
        upper, lower = np.array(landmarks.FULL)[pairs].T
        assert (upper[4], lower[4]) == middle
        # Mirrored, a pair becomes the pair as far from the other corner.
        np.testing.assert_array_equal(landmarks.FLIP[pairs], pairs[::-1])
    assert [landmarks.FULL[i] for i in landmarks.MIDDLE_LIPS[0]] == [0, 17]
    assert [landmarks.FULL[i] for i in landmarks.MOUTH_CORNERS] == [61, 291]


def test_edges_are_mediapipes_contours_and_the_nose() -> None:
    mesh = importlib.import_module("mediapipe.python.solutions.face_mesh")
    contours = [mesh.FACEMESH_LIPS, mesh.FACEMESH_LEFT_EYE, mesh.FACEMESH_RIGHT_EYE]
    contours += [mesh.FACEMESH_LEFT_EYEBROW, mesh.FACEMESH_RIGHT_EYEBROW, mesh.FACEMESH_FACE_OVAL]
    kept = {frozenset(e) for contour in contours for e in contour if set(e) <= set(landmarks.FULL)}
    noses = [(168, 6, 197, 195, 5, 4), (4, 45, 220, 115, 48), (4, 275, 440, 344, 278)]
    nose = {frozenset(e) for line in noses for e in pairwise(line)}
    ours = {frozenset(landmarks.FULL[i] for i in edge) for edge in landmarks.EDGES}
    assert landmarks.EDGES.shape == (125, 2)
    assert ours == kept | nose


def test_flip_is_an_involution() -> None:
    assert sorted(landmarks.FLIP) == list(range(131))
    assert (landmarks.FLIP[landmarks.FLIP] == np.arange(131)).all()
    for part in (landmarks.POSE_SLICE, landmarks.JAW_SLICE, landmarks.LIP_SLICE):
        assert ((landmarks.FLIP[part] >= part.start) & (landmarks.FLIP[part] < part.stop)).all()
    ours = {frozenset(edge) for edge in landmarks.EDGES.tolist()}
    assert {frozenset(edge) for edge in landmarks.FLIP[landmarks.EDGES].tolist()} == ours


def test_flip_matches_the_mirrored_face(detector: FaceDetector, portrait: np.ndarray, mesh: np.ndarray) -> None:
    (mirrored,) = detector.detect(np.ascontiguousarray(portrait[:, ::-1]))
    points = mesh[list(landmarks.FULL)]
    flipped = points[landmarks.FLIP] * [-1, 1] + [portrait.shape[1], 0]
    error = np.linalg.norm(flipped - mirrored[list(landmarks.FULL)], axis=1) / np.ptp(points[:, 1])
    assert error.mean() < 0.01  # the network is not exactly symmetric
    assert error.max() < 0.04


def test_oval_runs_once_around_the_face(mesh: np.ndarray) -> None:
    points = mesh[list(landmarks.FULL)]
    centre = points.mean(axis=0)
    angles = np.unwrap(np.arctan2(*(points[landmarks.OVAL] - centre).T[::-1]))
    assert abs(abs(angles[-1] - angles[0]) - 2 * np.pi) < 0.5
    assert set(range(landmarks.JAW_SLICE.start, landmarks.JAW_SLICE.stop)) <= set(landmarks.OVAL.tolist())


def test_settings_name_the_table() -> None:
    assert landmarks.settings() == {"landmarks.table": "2a1e7345"}  # a change here makes every cache and weight stale
