"""One video -> one clip: what is in it, and that whatever is wrong with a video becomes one line of the report."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets import settings
from datasets.clip_cache import open_clip
from face.crop import crop_face
from face.tracking import track_faces
from media.audio import log_mel
from media.video import Video, read_audio
from preprocess import clip as clip_module
from preprocess.clip import Options, make_clip
from preprocess.quality import Filters
from preprocess.sources import Source
from tests.preprocess.made_up_video import face_frame, tone, write_video, write_wav


def _make(path: Path, root: Path, shift: int = 0, **filters: Any) -> dict[str, Any]:
    return make_clip(Source(path.stem, path, shift), Options(root / "cache", filters=Filters(**filters)))


def _nothing_left(root: Path, but: tuple[str, ...] = ()) -> bool:
    return not [path for path in (root / "cache").rglob("*") if path.is_file() and path.name not in but]


def test_a_clip_holds_what_the_video_shows(tmp_path: Path) -> None:
    frames = [face_frame(k) for k in range(12)]
    frames[5] = np.full_like(frames[5], 90)  # nobody there
    video = write_video(tmp_path / "a.mp4", frames)
    record = _make(video, tmp_path)
    assert record["status"] == "cached" and record["frames"] == 12
    assert record["notes"] == ["too short to train on: 11 frames with a face"]
    clip = open_clip(tmp_path / "cache", "a")
    track = track_faces(Video(video))
    assert clip.found.tolist() == [k != 5 for k in range(12)] == track.found.tolist()
    np.testing.assert_array_equal(clip.landmarks_in_frame, track.landmarks_in_frame)
    np.testing.assert_array_equal(clip.boxes, track.boxes)
    np.testing.assert_array_equal(clip.mel, log_mel(read_audio(video)))
    for frame in (0, 11):
        original = crop_face(list(Video(video))[frame], track.boxes[frame]).astype(float)
        assert 10 * np.log10(255**2 / np.mean((clip.face(frame) - original) ** 2)) > 40
    assert clip.metadata["settings"] == settings.current() and clip.metadata["frame_size"] == [160, 160]


@pytest.mark.slow
def test_a_long_video_is_decoded_twice_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_video(tmp_path / "a.mp4", 6)
    _make(video, tmp_path)
    before = (tmp_path / "cache/a.faces").read_bytes()
    monkeypatch.setattr(clip_module, "KEPT_BYTES", 0)
    _make(video, tmp_path)
    assert (tmp_path / "cache/a.faces").read_bytes() == before


@pytest.mark.slow
def test_sound_beside_and_sound_moved(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 5, sound=None)
    assert _make(video, tmp_path)["reason"] == "no sound"
    sound = tone(0.2)
    sound[:, :1600] = 0  # starts at 0.1 s
    write_wav(tmp_path / "a.wav", sound)
    starts = {}
    for shift in (-1, 0, 1):
        record = _make(video, tmp_path, shift)
        assert record["status"] == "cached"
        mel = open_clip(tmp_path / "cache", "a").mel
        starts[shift] = int(np.flatnonzero(mel.max(axis=0) > -2)[0])
    assert starts[1] - starts[0] == pytest.approx(3.2, abs=1) and starts[0] - starts[-1] == pytest.approx(3.2, abs=1)
    assert "sound moved by 1 frames" in record["notes"]


@pytest.mark.slow
def test_frames_after_the_end_of_the_sound_are_cut(tmp_path: Path) -> None:
    record = _make(write_video(tmp_path / "a.mkv", 20, sound=tone(0.5)), tmp_path)
    assert record["status"] == "cached" and 12 <= record["frames"] <= 15
    assert any(note.endswith("shorter than the video says: there its sound ends") for note in record["notes"])


ODD = {
    "60 fps": {"fps": 60, "frames": 24},
    "29.97 fps": {"fps": 30000 / 1001},
    "odd sizes": {"frames": [face_frame(k, (161, 163)) for k in range(6)], "codec": "libx264rgb", "pixels": "rgb24"},
    "10-bit HDR": {
        "pixels": "yuv420p10le",
        "options": {"x264-params": "colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"},
    },
    "8 kHz": {"rate": 8000},
    "5.1 sound": {"sound": tone(0.48, 48000, 6), "rate": 48000},
    "variable rate": {"times": [0.04 * k if k < 6 else 0.24 + 0.08 * (k - 6) for k in range(12)], "sound": tone(0.72)},
    "late sound": {"sound_start": 0.2},
    'it\'s "quoted" 話す': {},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_unusual_videos_become_clips(tmp_path: Path, name: str) -> None:
    record = _make(write_video(tmp_path / f"{name}.mp4", **{"frames": 12, **ODD[name]}), tmp_path)
    assert record["status"] == "cached", record
    clip = open_clip(tmp_path / "cache", name)
    assert clip.num_found == clip.num_frames == record["frames"]
    expected = {"60 fps": 10, "29.97 fps": 10, "odd sizes": 6, "variable rate": 18, "late sound": 12}.get(name, 12)
    assert abs(clip.num_frames - expected) <= 1


@pytest.mark.slow
def test_unusable_videos_are_one_line_each(tmp_path: Path) -> None:
    good = write_video(tmp_path / "good.mp4", 8)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    (tmp_path / "truncated.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    write_wav(tmp_path / "sound only.mp4", tone(1.0))
    write_video(tmp_path / "silent.mp4", 2, sound=None)
    write_video(tmp_path / "nobody.mp4", [np.full((160, 160, 3), 90, np.uint8)] * 5)
    write_video(tmp_path / "thin.mp4", [face_frame(0, (10, 40))] * 5)
    write_video(tmp_path / "tiny.mp4", [face_frame(0, (2, 2))] * 5)
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (tmp_path / "folder.mp4").mkdir()
    damaged = bytearray(write_video(tmp_path / "damaged.mp4", 25, options={"g": "5"}).read_bytes())
    damaged[len(damaged) // 4 : len(damaged) // 2] = bytes(len(damaged) // 2 - len(damaged) // 4)
    (tmp_path / "damaged.mp4").write_bytes(damaged)
    expected = {
        "empty": "not a video",
        "text": "not a video",
        "truncated": "not a video",
        "sound only": "not a video",
        "silent": "no sound",
        "nobody": "no face",
        "thin": "no face",
        "tiny": "no face",
        "loop": "not a video",
        "folder": "not a video",
        "absent": "not a video",
        "damaged": "damaged",
    }
    for name, reason in expected.items():
        path = next(tmp_path.glob(f"{name}.*"), tmp_path / f"{name}.mp4")
        record = _make(path, tmp_path)
        assert (record["status"], record["reason"]) == ("failed", reason), record
        assert record["detail"] and "\n" not in record["detail"]
        assert _nothing_left(tmp_path)


@pytest.mark.slow
def test_one_frame_is_a_clip_and_said_to_be_short(tmp_path: Path) -> None:
    record = _make(write_video(tmp_path / "a.mp4", 1, sound=tone(0.1)), tmp_path)
    assert record["status"] == "cached" and record["notes"] == ["too short to train on: 1 frames with a face"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told_from_a_bad_video(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/a.faces.part").symlink_to("/dev/full")
    record = _make(write_video(tmp_path / "a.mp4", 4), tmp_path)
    assert (record["status"], record["reason"]) == ("failed", "disk full")
    assert _nothing_left(tmp_path) and not os.path.lexists(tmp_path / "cache/a.faces.part")


def test_anything_unforeseen_costs_one_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_module, "crop_face", lambda *_: 1 / 0)
    record = _make(write_video(tmp_path / "a.mp4", 4), tmp_path)
    assert record["reason"] == "unexpected error" and "division by zero" in record["detail"]
    assert _nothing_left(tmp_path)


@pytest.mark.slow
def test_each_filter_rejects_what_it_is_for(tmp_path: Path) -> None:
    nobody = np.full((160, 160, 3), 90, np.uint8)
    cut = [face_frame(k) for k in range(4)] + [255 - face_frame(k)[::-1] for k in range(2)]
    pair = [np.concatenate([face_frame(k), face_frame(k)], axis=1) for k in range(4)]
    made = {
        "min_found": (write_video(tmp_path / "gaps.mp4", [face_frame(0), nobody, nobody, nobody]), 0.5),
        "max_cuts": (write_video(tmp_path / "cut.mp4", cut), 0),
        "max_several": (write_video(tmp_path / "pair.mp4", pair), 0.5),
        "min_face": (write_video(tmp_path / "small.mp4", 3), 200.0),
        "max_silence": (write_video(tmp_path / "quiet.mp4", 4, sound=np.zeros((1, 2560), np.float32)), 0.5),
        "min_sharpness": (write_video(tmp_path / "sharp.mp4", 3), 1e5),
    }
    for flag, (video, limit) in made.items():
        record = _make(video, tmp_path, **{flag: limit})
        assert (record["status"], record["reason"]) == ("rejected", flag), record
        assert _nothing_left(tmp_path)
    good = write_video(tmp_path / "good.mp4", 4)
    strict = {
        "min_found": 1.0,
        "max_cuts": 0,
        "max_several": 0.0,
        "min_face": 40.0,
        "max_silence": 0.3,
        "min_sharpness": 20.0,
    }
    assert _make(good, tmp_path, **strict)["status"] == "cached"
