"""Pasting: nothing changes outside the box, no edge shows, an opened mouth is not cut off, tints are removed."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from face.compositing import EDGE, paste_face
from face.crop import box_around, crop_face, smooth_boxes, to_crop
from face.landmarks import FULL, INNER_LIPS, JAW_SLICE, LIP_SLICE, MIDDLE_LIPS
from tests.face.conftest import grey

Place = Callable[..., np.ndarray]


def paste(frame: np.ndarray, face: np.ndarray, box: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Pastes a face, given landmarks in the frame."""
    return paste_face(frame, face, box, to_crop(old, box), to_crop(new, box))


class Scene:
    """A frame with a face at some scale, its landmarks, its box, and the crop that the renderer would get."""

    def __init__(self, frame: np.ndarray, points: np.ndarray, size: int = 128) -> None:
        self.frame, self.points = frame, points
        box = box_around(points, (frame.shape[1], frame.shape[0]))
        self.box = smooth_boxes(box[None], np.array([True]))[0]
        self.face = crop_face(frame, self.box, size).astype(np.float32) / 255

    def paste(self, face: np.ndarray) -> np.ndarray:
        return paste(self.frame, face, self.box, self.points, self.points)

    def inside(self, picture: np.ndarray) -> np.ndarray:
        x0, y0, x1, y1 = self.box
        return picture[y0:y1, x0:x1].astype(int)

    def pixel(self, picture: np.ndarray, point: np.ndarray) -> np.ndarray:
        return picture[int(point[1]), int(point[0])].astype(int)


@pytest.fixture(params=[0.4, 1.0, 3.0])
def scene(request: pytest.FixtureRequest, place: Place, mesh: np.ndarray) -> Scene:
    frame = place(grey(1080, 1920), 100, 60, request.param)
    return Scene(frame, mesh[list(FULL)] * request.param + [100, 60])


def test_only_the_inside_of_the_box_changes(scene: Scene) -> None:
    before = scene.frame.copy()
    result = scene.paste(np.ones((128, 128, 3), np.float32))
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(scene.frame, before)
    change = np.abs(result.astype(int) - scene.frame).max(axis=2)
    x0, y0, x1, y1 = scene.box
    change_inside = change[y0:y1, x0:x1].copy()
    change[y0:y1, x0:x1] = 0
    assert change.max() == 0
    assert change_inside.max() > 20
    ring = np.concatenate([change_inside[[0, -1]].ravel(), change_inside[:, [0, -1]].ravel()])
    assert ring.max() == 0


def test_the_mask_rises_slowly_from_the_sides_of_the_box(scene: Scene) -> None:
    face = np.zeros((128, 128, 3), np.float32)
    flat = Scene(np.full_like(scene.frame, 200), scene.points)
    flat.box = scene.box
    result = flat.inside(flat.paste(face))[..., 0]
    result = result[round(0.7 * len(result)) :]  # below where the drawn half begins
    steps = max(np.abs(np.diff(result, axis=0)).max(), np.abs(np.diff(result, axis=1)).max())
    assert result.min() < 20
    assert steps < 200 * 1.5 / (EDGE * result.shape[1])  # nowhere steeper than that rise


def test_the_crop_itself_changes_nothing_visible(scene: Scene) -> None:
    sharp = Scene(scene.frame, scene.points, size=512)
    difference = np.abs(sharp.inside(sharp.paste(sharp.face)) - sharp.inside(sharp.frame))
    assert difference.mean() < 1.5


def test_the_upper_half_stays_the_frames_own(scene: Scene) -> None:
    noise = np.random.default_rng(0).uniform(size=(128, 128, 3)).astype(np.float32)
    difference = scene.inside(scene.paste(noise)) - scene.inside(scene.frame)
    rows = len(difference)
    assert (difference[: int(0.35 * rows)] == 0).all()
    assert np.abs(difference[int(0.55 * rows) : int(0.8 * rows)]).mean() > 5


def test_the_drawn_half_begins_without_a_step(scene: Scene) -> None:
    """If the renderer's lower half is brighter or darker than the frame, no line shows across nose and cheeks."""
    scene.frame[:] = 0
    face = np.zeros((128, 128, 3), np.float32)
    face[64:] = 1
    change = scene.inside(scene.paste(face))[..., 0]
    height, width = change.shape
    across = change[round(0.5 * height) : round(0.75 * height)]
    cheeks = np.diff(across[:, [width // 5, width - width // 5]], axis=0)
    assert across.max() > 120
    assert 0 < cheeks.max() < 2 * across.max() / (0.1 * height), "over the cheeks it rises slowly"
    assert np.diff(across, axis=0).max() < 2 * across.max() / (0.03 * height), "above a mouth it rises faster"


def test_an_opened_mouth_and_a_closed_one_are_not_cut(scene: Scene) -> None:
    """The mask contains both the drawn and the original jaw."""
    height = np.ptp(scene.points[:, 1])
    higher = scene.points.copy()
    chin = scene.points[JAW_SLICE][8]
    higher[JAW_SLICE] -= (chin - scene.points[MIDDLE_LIPS[0, 0]]) * 0.3  # a jaw drawn 30 % of the way to the upper lip
    higher[LIP_SLICE, 1] -= 0.02 * height
    face = np.full((128, 128, 3), 0.9, np.float32)
    flat = Scene(np.full_like(scene.frame, 60), scene.points)
    flat.box = scene.box
    just_inside = chin - [0, 0.06 * height]  # inside the old chin, outside the drawn one
    for old, new in ((scene.points, higher), (higher, scene.points)):
        result = paste(flat.frame, face, flat.box, old, new)
        cut = paste(flat.frame, face, flat.box, higher, higher)
        assert flat.pixel(result, just_inside)[0] > flat.pixel(cut, just_inside)[0] + 5


@pytest.mark.parametrize("tint", [(1.25, 1.0, 0.8), (0.8, 0.8, 0.8), (1.0, 1.15, 1.0)])
def test_a_tint_is_taken_off(scene: Scene, tint: tuple[float, ...]) -> None:
    tinted = np.clip(scene.face * np.array(tint, np.float32) * 0.8, 0, 1)
    clean = scene.inside(scene.paste(scene.face))
    rows = slice(int(0.55 * len(clean)), int(0.95 * len(clean)))
    left = np.abs(scene.inside(scene.paste(tinted)) - clean)[rows].mean()
    raw = np.abs(tinted - scene.face)[70:120].mean() * 255
    assert left < 0.25 * raw
    assert left < 5


def test_a_mouth_that_differs_is_not_taken_for_a_tint(scene: Scene) -> None:
    changed = scene.face.copy()
    left, top = (scene.points[LIP_SLICE].min(axis=0) - scene.box[:2]) / (scene.box[2:] - scene.box[:2]) * 128
    right, bottom = (scene.points[LIP_SLICE].max(axis=0) - scene.box[:2]) / (scene.box[2:] - scene.box[:2]) * 128
    changed[int(top) : int(bottom), int(left) : int(right)] = 0.02
    result, clean = scene.paste(changed), scene.paste(scene.face)
    assert scene.pixel(result, scene.points[INNER_LIPS[4, 1]]).max() < 40  # the new mouth is there, as dark as drawn
    cheek = (scene.points[MIDDLE_LIPS[0, 1]] + scene.points[JAW_SLICE][3]) / 2
    cheek[0] = (scene.points[JAW_SLICE][3, 0] + scene.points[LIP_SLICE, 0].min()) / 2
    assert np.abs(scene.pixel(result, cheek) - scene.pixel(clean, cheek)).max() <= 4


@pytest.mark.parametrize("box", [(0, 0, 2, 2), (5, 5, 8, 40), (0, 0, 64, 48), (62, 46, 64, 48)])
def test_odd_boxes_and_landmarks_anywhere(box: tuple[int, ...]) -> None:
    frame = grey(48, 64)
    points = np.random.default_rng(0).uniform(-1e4, 1e4, (131, 2)).astype(np.float32)
    result = paste(frame, np.zeros((128, 128, 3), np.float32), np.array(box), points, points)
    assert result.shape == frame.shape


def test_a_face_cut_by_the_frame_is_redrawn_up_to_the_border(portrait: np.ndarray, mesh: np.ndarray) -> None:
    frame = np.ascontiguousarray(portrait[:165])  # the chin is below the border
    scene = Scene(frame, mesh[list(FULL)])
    assert scene.box[3] == len(frame)
    result = scene.paste(np.zeros((128, 128, 3), np.float32))
    middle = (scene.box[0] + scene.box[2]) // 2
    assert result[-1, middle].max() < 0.5 * frame[-1, middle].max()


def test_other_face_sizes(scene: Scene) -> None:
    small, large = (cv2.resize(scene.face, (s, s), interpolation=cv2.INTER_AREA) for s in (64, 256))
    assert np.abs(scene.inside(scene.paste(small)) - scene.inside(scene.paste(large))).mean() < 6
