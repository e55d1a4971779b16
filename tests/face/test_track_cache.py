"""A track read from its file equals the one that was saved, for as many frames as requested."""

from pathlib import Path

import numpy as np
import pytest

from face.track_cache import load_track, save_track, track_path
from face.tracking import FaceTrack
from runtime.command_line import UserError


def make_track(frames: int) -> FaceTrack:
    random = np.random.default_rng(0)
    landmarks = 100 + 50 * random.random((12, 131, 2), np.float32) + np.arange(12, dtype=np.float32)[:, None, None]
    landmarks[4] = np.nan
    shots = np.repeat([0, 1], 6)
    return FaceTrack(landmarks[:frames], (320, 240), np.ones(frames, int), shots[:frames])


def assert_equal(track: FaceTrack | None, expected: FaceTrack) -> None:
    assert track is not None and track.frame_size == expected.frame_size
    for name in ("landmarks_in_frame", "found", "boxes", "num_faces", "shots"):
        np.testing.assert_array_equal(getattr(track, name), getattr(expected, name), err_msg=name)
        assert getattr(track, name).dtype == getattr(expected, name).dtype


def test_track_comes_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    path = track_path(tmp_path / "new", tmp_path / "a.mp4", 25, "largest")
    assert load_track(path, 12) is None
    save_track(path, make_track(12), complete=False)
    assert_equal(load_track(path, 12), make_track(12))
    assert list((tmp_path / "new").iterdir()) == [path]


def test_fewer_frames_are_as_if_tracked_alone(tmp_path: Path) -> None:
    save_track(tmp_path / "track.npz", make_track(12), complete=False)
    assert_equal(load_track(tmp_path / "track.npz", 7), make_track(7))


def test_more_frames_need_a_complete_track(tmp_path: Path) -> None:
    save_track(tmp_path / "track.npz", make_track(12), complete=False)
    assert load_track(tmp_path / "track.npz", 13) is None
    save_track(tmp_path / "track.npz", make_track(12), complete=True)
    assert_equal(load_track(tmp_path / "track.npz", 13), make_track(12))


def test_name_depends_on_content_and_settings(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    (tmp_path / "same.mp4").write_bytes(b"video")
    (tmp_path / "other.mp4").write_bytes(b"another")
    path = track_path(tmp_path, tmp_path / "a.mp4", 25, "largest")
    assert track_path(tmp_path, tmp_path / "same.mp4", 25, "largest") == path
    others = {
        path,
        track_path(tmp_path, tmp_path / "other.mp4", 25, "largest"),
        track_path(tmp_path, tmp_path / "a.mp4", 30, "largest"),
        track_path(tmp_path, tmp_path / "a.mp4", 25, "left"),
    }
    assert len(others) == 4


def test_folder_that_cannot_be_made_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="could not be written"):  # before the video is tracked
        track_path(tmp_path / "file", tmp_path / "a.mp4", 25, "largest")


@pytest.mark.parametrize("kept", [0, 10, 500])
def test_damaged_file_is_a_user_error(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "track.npz"
    save_track(path, make_track(12), complete=True)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"track\.npz is damaged; delete it"):
        load_track(path, 12)
