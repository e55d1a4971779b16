"""One person through a clip: picking, gaps, cuts, neighbours, and the same answer every time."""

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest

from face.crop import box_around, extent, overlap
from face.detector import FaceDetector
from face.landmarks import FULL
from face.tracking import HAND_CHECK, LOST, SURVEY, Tracker, parse_pick, track_faces
from media.video import Video
from runtime.command_line import UserError
from tests.face.conftest import grey, noise

Place = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def pair(place: Place) -> np.ndarray:
    """A smaller person at the left, and a larger one, mirrored, at the right."""
    return place(place(grey(480, 900), 20, 60), 400, 20, 1.3, flip=True)


@pytest.fixture(scope="module")
def left_box(mesh: np.ndarray) -> np.ndarray:
    return box_around(mesh[list(FULL)] + [20, 60], (900, 480))


def test_a_moving_face_with_a_gap(place: Place, mesh: np.ndarray) -> None:
    shifts = [(40 + 3 * i, 30 + 2 * i) for i in range(14)]
    frames = [place(grey(420, 640), *shift) for shift in shifts]
    for i in (5, 6, 7):
        frames[i] = noise(420, 640, i)
    track = track_faces(frames)
    assert track.frame_size == (640, 420)
    np.testing.assert_array_equal(np.flatnonzero(~track.found), [5, 6, 7])
    assert np.isnan(track.landmarks_in_frame[5:8]).all()
    assert (track.boxes[5:8] == 0).all()
    np.testing.assert_array_equal(np.flatnonzero(track.cuts), [5, 8])
    assert track.boxes.dtype == np.int32
    for i in np.flatnonzero(track.found):
        wanted = mesh[list(FULL)] + shifts[i]
        assert np.linalg.norm(track.landmarks_in_frame[i] - wanted, axis=1).mean() < 0.02 * 107
        assert overlap(track.boxes[i].astype(float), box_around(wanted, (640, 420))) > 0.85
    assert set(track.num_faces[track.found]) == {1}


@pytest.mark.parametrize(
    ("pick", "left"),
    [
        ("largest", False),
        ("left", True),
        ("right", False),
        ("0", True),
        ("1", False),
        ("170,180", True),
        ("680,190", False),
    ],
)
def test_the_picked_face_is_followed(pair: np.ndarray, left_box: np.ndarray, pick: str, left: bool) -> None:
    track = track_faces([pair] * 3, pick)
    assert track.found.all()
    assert (track.num_faces == 2).all()
    for box in track.boxes:
        assert (overlap(box.astype(float), left_box) > 0.85) == left


@pytest.mark.parametrize("pick", ["nonsense", "", "1,2,3", "-1", "nan,3", "left right"])
def test_unusable_picks_are_refused_at_once(pick: str, detector: FaceDetector) -> None:
    with pytest.raises(UserError, match="names no face"):
        Tracker(pick, detector)


@pytest.mark.parametrize(("pick", "hint"), [("2", "0 at "), ("450,20", "1 at "), ("5000,5000", "1 at ")])
def test_picks_that_are_not_there(pair: np.ndarray, pick: str, hint: str, detector: FaceDetector) -> None:
    tracker = Tracker(pick, detector)
    tracker.add(noise(480, 900))  # no face yet: nothing to complain about
    with pytest.raises(UserError, match=hint):
        tracker.add(pair)


def test_parse_pick() -> None:
    assert parse_pick(" Largest ") == "largest"
    assert parse_pick("3") == 3
    assert parse_pick("12.5, 40") == (12.5, 40.0)
    assert parse_pick("640x360") == (640.0, 360.0)


def test_a_lost_person_is_not_replaced_by_a_neighbour(pair: np.ndarray, left_box: np.ndarray) -> None:
    alone = pair.copy()
    alone[:, :390] = 90  # the followed person is hidden, the other stays
    track = track_faces([pair, pair, *[alone] * 4, pair], "left")
    np.testing.assert_array_equal(track.found, [1, 1, 0, 0, 0, 0, 1])
    assert all(overlap(box.astype(float), left_box) > 0.85 for box in track.boxes[track.found])
    assert not track.cuts.any()


@pytest.mark.slow
def test_after_a_long_loss_the_rule_applies_again(pair: np.ndarray) -> None:
    alone = pair.copy()
    alone[:, :390] = 90
    track = track_faces([pair, *[alone] * (LOST + 2)], "left")
    assert not track.found[1 : LOST + 1].any()
    assert track.found[LOST + 1 :].all()
    assert track.cuts.nonzero()[0].tolist() == [LOST + 1]
    assert (track.boxes[LOST + 1 :, 0] > 390).all()
    gone = track_faces([pair, *[alone] * (LOST + 2)], "120,200")
    assert gone.found.tolist() == [True] + [False] * (LOST + 2) and not gone.cuts.any(), "nobody is at that point"


def test_a_jump_of_the_camera_is_followed_and_marked(place: Place) -> None:
    before, after = place(grey(480, 900), 20, 60), place(grey(480, 900), 500, 20)
    track = track_faces([before, before, after, after])
    assert track.found.all()
    np.testing.assert_array_equal(track.cuts, [0, 0, 1, 0])
    np.testing.assert_array_equal(track.boxes[1], track.boxes[0])  # smoothing does not reach over the cut
    assert (track.boxes[2:, 0] > 500).all()


def test_shots_of_the_same_framing_are_told_apart(portrait: np.ndarray) -> None:
    """The face stays in place, but everything around it (or its light) changes; flat frames are one shot."""
    other = portrait[::-1].copy()
    other[60:190, 120:230] = portrait[60:190, 120:230]
    brighter = (portrait // 2 + 100).astype(np.uint8)
    track = track_faces([portrait, portrait, other, other, portrait, brighter])
    assert track.found.all()
    np.testing.assert_array_equal(track.cuts, [0, 0, 1, 0, 1, 0])
    np.testing.assert_array_equal(track.shots, [0, 0, 1, 1, 0, 0])  # one that comes back keeps its number
    flat = [np.full((60, 80, 3), value, np.uint8) for value in (0, 0, 1, 90, 91)]
    assert not track_faces(flat).cuts.any()


def test_another_face_in_the_same_place_is_another_shot(mesh: np.ndarray) -> None:
    """Everything around it stays; a face that is not found for a moment changes nothing."""
    scene, first, second = (cv2.resize(noise(8, 8, seed), (340, 320)) for seed in range(3))
    x0, y0, x1, y1 = box_around(mesh[list(FULL)]).astype(int)
    faces = []
    for picture in (first, second):
        faces.append(scene.copy())
        faces[-1][y0:y1, x0:x1] = picture[y0:y1, x0:x1]

    class Eyes:
        def forget(self) -> None: ...

        def detect(self, frame: np.ndarray, thorough: bool = True) -> list[np.ndarray]:
            return [] if frame is scene else [mesh]

        def follow(self, frame: np.ndarray, box: np.ndarray, alone: bool = True) -> np.ndarray | None:
            return None if frame is scene else mesh

        def covers(self, frame: np.ndarray, box: np.ndarray, lips: np.ndarray) -> bool:
            return False

    a, b = faces
    track = track_faces([a, a, b, b, scene, b, a], detector=cast(FaceDetector, Eyes()))
    np.testing.assert_array_equal(track.found, [1, 1, 1, 1, 0, 1, 1])
    np.testing.assert_array_equal(track.shots, [0, 0, 1, 1, 1, 1, 0])


@pytest.mark.parametrize("brightness", [60, 120, 180])
def test_a_hand_before_the_mouth_is_no_cut(place: Place, mesh: np.ndarray, brightness: int) -> None:
    frame = place(grey(360, 420), 40, 30)
    x0, y0, x1, y1 = (extent(mesh) + np.array([40, 30, 40, 30])).astype(int)
    covered = frame.copy()
    covered[y0 + 6 * (y1 - y0) // 10 : y1 + 20, x0:x1] = brightness
    track = track_faces([*[frame] * 3, *[covered] * 3, *[frame] * 3])
    assert not track.cuts.any()


def test_in_another_shot_the_rule_applies_where_nobody_stands_in_the_old_place(place: Place, pair: np.ndarray) -> None:
    alone = place(noise(480, 900), 560, 160, 0.7)
    for pick, side in (("left", 0), ("largest", 1)):
        track = track_faces([alone, alone, pair, pair], pick)
        assert track.found.all()
        np.testing.assert_array_equal(track.shots, [0, 0, 1, 1])
        assert ((track.boxes[2:, 0] > 390) == side).all()


def test_faces_are_counted_again_from_time_to_time(place: Place, pair: np.ndarray) -> None:
    alone = pair.copy()
    alone[:, :390] = 90
    track = track_faces([alone] * 3 + [pair] * (SURVEY - 1))
    assert (track.num_faces[:SURVEY] == 1).all()
    assert (track.num_faces[SURVEY:] == 2).all()
    assert track.found.all()


def test_nothing_and_no_face() -> None:
    empty = track_faces([])
    assert (len(empty.found), empty.landmarks_in_frame.shape, empty.boxes.shape) == (0, (0, 131, 2), (0, 4))
    faceless = track_faces([noise(50, 10, i) for i in range(3)])
    assert not faceless.found.any()
    assert (faceless.num_faces == 0).all()
    assert faceless.frame_size == (10, 50)


def test_the_same_clip_gives_the_same_answer(place: Place, pair: np.ndarray) -> None:
    frames = [place(grey(480, 900), 100 + 9 * i, 60) for i in range(4)] + [noise(480, 900), pair, pair]
    first = track_faces(frames)
    track_faces([pair] * 2, "right")
    for a, b in zip(astuple(first), astuple(track_faces(iter(frames))), strict=True):
        np.testing.assert_array_equal(a, b)


class _Hands(FaceDetector):
    """Sees hands in the given searches."""

    def __init__(self, *searches: int) -> None:
        super().__init__()
        self.searches = searches
        self.count = -1

    def covers(self, frame: np.ndarray, box: np.ndarray, lips: np.ndarray) -> bool:
        assert lips.shape == (40, 2)
        assert ((lips > box[:2]) & (lips < box[2:])).all()
        self.count += 1
        return self.count in self.searches


def test_frames_around_a_hand_count_as_without_the_face(place: Place) -> None:
    frames = [place(grey(420, 640), 40, 30)] * (4 * HAND_CHECK)
    track = track_faces(frames, detector=_Hands(2))
    covered = range(HAND_CHECK + 1, 3 * HAND_CHECK)  # from after the search before to before the one after
    np.testing.assert_array_equal(np.flatnonzero(~track.found), covered)
    assert not track.cuts.any()


def test_hand_in_all_frames_is_ignored(place: Place) -> None:
    frames = [place(grey(420, 640), 40, 30)] * (HAND_CHECK + 1)
    assert track_faces(frames, detector=_Hands(0, 1)).found.all()


@pytest.mark.slow
def test_real_hand_before_the_mouth_is_seen(shared: Path) -> None:
    clip = shared / "clips/more/fi/fi30/RlUuWWWFrhM_005.mp4"
    detector = FaceDetector(hands=True)
    frames = list(Video(clip))[190:265]  # he wipes his mouth
    track = track_faces(frames, detector=detector)
    assert track.found[:5].all() and track.found[-5:].all()
    assert not track.found[20:50].any()
    detector.close()


@pytest.mark.slow
def test_faces_without_hands_are_not_covered(shared: Path) -> None:
    detector = FaceDetector(hands=True)
    for name in ("vox_00098", "edtalk_obama_20s", "hdtf_katiehill"):
        frames = list(Video(next((shared / "clips").glob(f"{name}.*"))))[:75]
        assert track_faces(frames, detector=detector).found.all()
    detector.close()
