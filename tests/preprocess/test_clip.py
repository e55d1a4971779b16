"""One video -> one clip: its contents; and every fault of a video becomes one line of the report."""

import functools
import os
import tempfile
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import torch

from checkpoints import registry
from datasets.clip_cache import ClipCache, read_metadata
from face import fingerprint
from face.crop import SIZE, crop_face
from face.tracking import Tracker, track_faces
from media.audio import log_mel
from media.video import Video, read_audio
from media.writer import VideoWriter
from metrics.syncnet import SyncNet
from preprocess import clip as clip_module
from preprocess.clip import make_clip
from preprocess.quality import Filters, sync_scorer
from preprocess.sources import Source, find_sources
from runtime.command_line import UserError
from tests.preprocess.made_up_video import (
    UNUSUAL,
    face_frame,
    tone,
    write_unusable_videos,
    write_video,
    write_wav,
)


def _make(path: Path, root: Path, shift: int = 0, **filters: Any) -> dict[str, Any]:
    return make_clip(Source(path.stem, path, shift), root / "cache", SIZE, Filters(**filters))


def _nothing_left(root: Path, but: tuple[str, ...] = ()) -> bool:
    return not [path for path in (root / "cache").rglob("*") if path.is_file() and path.name not in but]


def test_a_clip_contains_what_the_video_shows(tmp_path: Path) -> None:
    frames = [face_frame(k) for k in range(12)]
    frames[5] = np.full_like(frames[5], 90)  # nobody there
    video = write_video(tmp_path / "a.mp4", frames)
    record = _make(video, tmp_path)
    assert record["status"] == "cached" and record["frames"] == 12
    assert record["notes"] == []
    clip = ClipCache(tmp_path / "cache").open("a")
    track = track_faces(Video(video))
    assert clip.found.tolist() == [k != 5 for k in range(12)] == track.found.tolist()
    np.testing.assert_array_equal(clip.landmarks_in_frame, track.landmarks_in_frame)
    np.testing.assert_array_equal(clip.boxes, track.boxes)
    np.testing.assert_array_equal(clip.mel, log_mel(read_audio(video)))
    for frame in (0, 11):
        original = crop_face(list(Video(video))[frame], track.boxes[frame]).astype(float)
        assert 10 * np.log10(255**2 / np.mean((clip.face(frame) - original) ** 2)) > 40
    metadata = read_metadata(tmp_path / "cache", "a")
    assert metadata["settings"] == fingerprint.current() and metadata["frame_size"] == [160, 160]


def test_crops_are_those_of_the_whole_track(tmp_path: Path) -> None:
    frames = list(Video(write_video(tmp_path / "a.mp4", 14)))
    frames[3] = np.zeros_like(frames[3])
    for count in (0, 1, 2, 14):
        tracker = Tracker("largest", clip_module.shared_detector())
        crops = list(clip_module.crop_faces(frames[:count], tracker, 128))
        track = tracker.finish()
        assert len(crops) == count
        for frame, crop, box, found in zip(frames, crops, track.boxes, track.found, strict=False):
            assert (crop is not None) == found
            if crop is not None:
                np.testing.assert_array_equal(crop, crop_face(frame, box, 128))
        assert count < 14 or np.flatnonzero(~track.found).tolist() == [3]


@pytest.mark.slow
def test_sound_may_be_a_separate_file_and_shifted(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 5, sound=None)
    assert _make(video, tmp_path)["reason"] == "no sound"
    sound = tone(0.2)
    sound[:, :1600] = 0  # starts at 0.1 s
    write_wav(tmp_path / "a.wav", sound)
    starts = {}
    for shift in (-1, 0, 1):
        record = _make(video, tmp_path, shift)
        assert record["status"] == "cached"
        mel = ClipCache(tmp_path / "cache").open("a").mel
        starts[shift] = int(np.flatnonzero(mel.max(axis=0) > -2)[0])
    assert starts[1] - starts[0] == pytest.approx(3.2, abs=1) and starts[0] - starts[-1] == pytest.approx(3.2, abs=1)
    assert read_metadata(tmp_path / "cache", "a")["sound_shift"] == 1
    record = _make(video, tmp_path, -5)  # by all that there is
    assert (record["reason"], record["detail"]) == ("no sound", "none is left after a shift by -5 frames")


@pytest.mark.slow
def test_unusual_videos_become_clips(tmp_path: Path) -> None:
    lengths = {"60 fps": 10, "29.97 fps": 10, "variable rate": 18, "late sound": 12, "short sound": 13, "one frame": 1}
    for name, how in UNUSUAL.items():
        record = _make(write_video(tmp_path / f"{name}.mp4", **how), tmp_path)
        assert record["status"] == "cached", record
        clip = ClipCache(tmp_path / "cache").open(name)
        assert clip.num_found == clip.num_frames == record["frames"]
        assert abs(clip.num_frames - lengths.get(name, 6)) <= 1
        if name == "short sound":
            assert any(note.endswith("shorter than the video states: its sound ends early") for note in record["notes"])
        if name == "one frame":
            assert record["notes"] == []


@pytest.mark.slow
def test_a_flash_and_a_click_stay_together(tmp_path: Path) -> None:
    """At any frame rate, also a variable one, and however late the sound begins."""
    for name, times, start in (
        ("50", [k / 50 for k in range(50)], 0.0),
        ("vfr", [*np.arange(10) * 0.02, *(0.2 + np.arange(10) * 0.08)], 0.0),
        ("late", [k / 25 for k in range(25)], 0.3),
        ("early picture late", [0.2 + k / 25 for k in range(20)], 0.0),
    ):
        frames = [face_frame(k) // (1 if time < 0.52 - 1e-6 else 2) for k, time in enumerate(times)]
        sound = tone(1.0 - start)
        sound[:, : round((0.52 - start) * 16000)] = 0
        video = write_video(tmp_path / f"{name}.mkv", frames, 25, [*times], sound, sound_start=start)
        assert _make(video, tmp_path)["status"] == "cached"
        clip = ClipCache(tmp_path / "cache").open(name)
        light = [clip.face(frame).mean() for frame in range(clip.num_frames)]
        seen = int(np.argmin(np.diff(light))) + 1
        heard = int(np.argmax(clip.mel.max(axis=0) > -2))
        assert abs(seen / 25 - heard / 80) < 0.04, name
        assert abs(seen - 13) <= 1, name


@pytest.mark.slow
def test_a_truncated_video_is_used_and_the_loss_noted(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "tone.flac", tone(2.0)[0], 16000)
    with VideoWriter(tmp_path / "a.mp4", 25, (160, 160), [(tmp_path / "tone.flac", 0.0)]) as writer:  # index first
        for k in range(50):
            writer.write(face_frame(k))
    whole = (tmp_path / "a.mp4").read_bytes()
    with av.open(str(tmp_path / "a.mp4")) as container:  # in the middle of a piece of sound
        pieces = [(packet.pos or 0, packet.size) for packet in container.demux(audio=0)]
    start, size = next(piece for piece in pieces if piece[0] > len(whole) * 2 / 3)
    (tmp_path / "a.mp4").write_bytes(whole[: start + size // 2])
    record = _make(tmp_path / "a.mp4", tmp_path)
    assert record["status"] == "cached" and 20 < record["frames"] < 45
    assert "s shorter than the video states: its sound ends early" in record["notes"][0]
    assert "of its sound cannot be decoded" in record["notes"][1]


@pytest.mark.slow
def test_unusable_videos_are_one_line_each(tmp_path: Path) -> None:
    expected = write_unusable_videos(tmp_path)
    (tmp_path / "folder.mp4").mkdir()
    expected |= {"folder": "not a video", "absent": "not a video"}
    for name, reason in expected.items():
        record = _make(tmp_path / f"{name}.mp4", tmp_path)
        assert (record["status"], record["reason"]) == ("failed", reason), record
        assert record["detail"] and "\n" not in record["detail"] and str(tmp_path) not in record["detail"]
        assert _nothing_left(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_no_permission_is_not_a_bad_video(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    if os.geteuid() == 0:  # root may read everything, so become nobody for a while
        monkeypatch.setattr(os, "access", functools.partial(os.access, effective_ids=True))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_video(root / "file.mp4", 2).chmod(0)
        write_video(root / "closed/inside.mp4", 2).parent.chmod(0)
        root.chmod(0o777)
        user = os.geteuid()
        try:
            os.seteuid(65534 if user == 0 else user)
            records = [_make(root / name, root) for name in ("file.mp4", "closed/inside.mp4")]
            sources = find_sources(root)
        finally:
            os.seteuid(user)
            (root / "closed").chmod(0o700)
    assert [record["reason"] for record in records] == ["no permission"] * 2
    assert [source.name for source in sources] == ["file"]
    assert capsys.readouterr().err == f"{folder}/closed cannot be read: Permission denied\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_not_a_bad_video(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/a.faces.part").symlink_to("/dev/full")
    record = _make(write_video(tmp_path / "a.mp4", 4), tmp_path)
    assert (record["status"], record["reason"]) == ("failed", "disk full")
    assert _nothing_left(tmp_path) and not os.path.lexists(tmp_path / "cache/a.faces.part")


def test_an_unexpected_error_costs_one_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_module, "crop_face", lambda *_: 1 / 0)
    record = _make(write_video(tmp_path / "a.mp4", 4), tmp_path)
    assert record["reason"] == "unexpected error" and "division by zero" in record["detail"]
    assert _nothing_left(tmp_path)


@pytest.mark.slow
def test_each_filter_rejects_its_kind(tmp_path: Path) -> None:
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


@pytest.mark.slow
def test_offset_filter_asks_syncnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random weights; the tests of the metric use the public ones."""
    torch.manual_seed(0)
    torch.save(SyncNet().state_dict(), tmp_path / "syncnet_v2.model")
    monkeypatch.setattr(registry, "find", lambda _: tmp_path / "syncnet_v2.model")
    sync_scorer.cache_clear()
    video = write_video(tmp_path / "a.mp4", 12)
    record = _make(video, tmp_path, max_offset=15)
    assert record["status"] == "cached" and 0 <= record["measures"]["offset"] <= 15
    assert _make(video, tmp_path, max_offset=-1)["reason"] == "max_offset"
    short = _make(write_video(tmp_path / "b.mp4", 3), tmp_path, max_offset=0)
    assert short["measures"]["offset"] == 0, "no window fits"
    sync_scorer.cache_clear()


def test_offset_filter_needs_syncnets_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find", lambda _: None)
    sync_scorer.cache_clear()
    with pytest.raises(UserError, match=r"syncnet_v2\.model .* --download syncnet"):
        sync_scorer()
