"""The cache returns what was written, reports what is wrong with a file, and never shows half a clip."""

import errno
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file

from datasets.clip_cache import ClipCache, ClipWriter, read_metadata
from face import fingerprint
from face.crop import to_frame
from runtime.command_line import UserError
from tests.datasets.made_up import write_clip


def test_a_clip_returns_what_was_written(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, "speaker/a clip's name", num_frames=30, missing=(4, 5))
    assert (clip.num_frames, clip.num_found, clip.longest_run) == (30, 28, 24)
    assert read_metadata(tmp_path, clip.name)["frame_size"] == [160, 200]
    assert np.isnan(clip.landmarks_in_frame[4]).all() and np.isfinite(clip.landmarks_in_frame[3]).all()
    assert clip.mel.shape == (80, 96) and clip.boxes.dtype == np.int32
    landmarks_in_crop = clip.crop_landmarks(np.arange(30))
    inside = landmarks_in_crop[clip.found]
    assert inside.min() >= 0 and inside.max() <= 1
    back = to_frame(landmarks_in_crop, clip.boxes)
    np.testing.assert_allclose(back[clip.found], clip.landmarks_in_frame[clip.found], atol=1e-3)
    face = clip.face(7)
    assert face.shape == (128, 128, 3) and face.dtype == np.uint8
    assert abs(face[100, 20].astype(int) - [200 * 20 / 127, 200 * 100 / 127, 35]).max() <= 3  # red grows to the right
    with pytest.raises(cv2.error):  # a frame without a face
        clip.face(4)


def test_a_damaged_picture_is_reported(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, "s/a")
    file = tmp_path / "s/a.faces"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(UserError, match=r"s/a.faces: the picture of frame 3 is damaged; remove it and run"):
        clip.face(3)


def test_other_tools_can_read_the_arrays(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, "a", missing=(4,))
    arrays = load_file(tmp_path / "a.safetensors")
    assert arrays.keys() == {"mel_columns", "offsets", "landmarks_in_frame", "boxes", "found"}
    np.testing.assert_array_equal(arrays["mel_columns"].T, clip.mel)
    np.testing.assert_array_equal(arrays["landmarks_in_frame"], clip.landmarks_in_frame)
    assert arrays["found"].sum() == 29 and arrays["offsets"][-1] == (tmp_path / "a.faces").stat().st_size


def test_clips_can_be_pickled(tmp_path: Path) -> None:
    clip = pickle.loads(pickle.dumps(write_clip(tmp_path, "a")))
    assert len(pickle.dumps(clip)) < 1000
    assert clip.landmarks_in_frame.shape == (30, 131, 2)


def test_equal_clips_have_equal_bytes(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_clip(tmp_path / folder, "a", seed=3)
    for suffix in (".faces", ".safetensors"):
        assert (tmp_path / "one" / f"a{suffix}").read_bytes() == (tmp_path / "two" / f"a{suffix}").read_bytes()


def test_others_may_read_a_clip(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        write_clip(tmp_path, "a")
    finally:
        os.umask(mask)
    assert {oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {"0o644"}


def test_an_interrupted_clip_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), ClipWriter(tmp_path, "s/a") as writer:
        writer.add(np.zeros((128, 128, 3), np.uint8))
        raise KeyboardInterrupt
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_clip(tmp_path, "s/a")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_full_of_faces_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.faces.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        write_clip(tmp_path, "a")
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="limits of file sizes exist on Unix only")
def test_arrays_that_cannot_be_written_leave_nothing(tmp_path: Path) -> None:
    code = """if True:
        import errno, pathlib, resource, sys
        from tests.datasets.made_up import write_clip
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            write_clip(pathlib.Path(sys.argv[1]), "a", 30, missing=tuple(range(30)))  # 30 KB of landmarks
        except OSError as error:
            sys.exit(3 if error.errno == errno.EFBIG else 4)
    """
    root = Path(__file__).resolve().parents[2]
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=False)
    assert process.returncode == 3
    assert not os.listdir(tmp_path)


def test_clips_of_earlier_versions_are_readable(tmp_path: Path) -> None:
    """Earlier versions wrote the header by hand: the mel first, and no alignment of what follows it."""
    clip = write_clip(tmp_path, "a", missing=(4,))
    arrays = load_file(tmp_path / "a.safetensors")
    names = {"mel_columns": "F32", "offsets": "I64", "landmarks_in_frame": "F32", "boxes": "I32", "found": "BOOL"}
    header: dict[str, object] = {"__metadata__": {"clip": json.dumps(read_metadata(tmp_path, "a"))}}
    end = 0
    for name, dtype in names.items():
        start, end = end, end + arrays[name].nbytes
        header[name] = {"dtype": dtype, "shape": arrays[name].shape, "data_offsets": [start, end]}
    packed = json.dumps(header).encode()
    packed += b" " * (-len(packed) % 8)
    data = b"".join(arrays[name].tobytes() for name in names)
    (tmp_path / "b.safetensors").write_bytes(len(packed).to_bytes(8, "little") + packed + data)
    (tmp_path / "b.faces").write_bytes((tmp_path / "a.faces").read_bytes())
    older = ClipCache(tmp_path).open("b")
    assert read_metadata(tmp_path, "b") == read_metadata(tmp_path, "a")
    for field in ("mel", "landmarks_in_frame", "boxes", "found"):
        np.testing.assert_array_equal(getattr(older, field), getattr(clip, field))
    np.testing.assert_array_equal(older.face(29), clip.face(29))


def test_arrays_are_files_and_read_only(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, "a")
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    assert not mapped
    for array in (clip.mel, clip.landmarks_in_frame, clip.boxes, clip.found):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert any(line.endswith("a.safetensors") for line in Path("/proc/self/maps").read_text().splitlines())


def test_names_with_dots_keep_them(tmp_path: Path) -> None:
    write_clip(tmp_path, "a.b.c")
    assert ClipCache(tmp_path).names == ["a.b.c"]


def test_clips_in_linked_folders_count(tmp_path: Path) -> None:
    write_clip(tmp_path / "other_disk", "s/a")
    write_clip(tmp_path / "cache", "b")
    (tmp_path / "cache" / "lrs2").symlink_to(tmp_path / "other_disk")
    cache = ClipCache(tmp_path / "cache")
    assert cache.names == ["b", "lrs2/s/a"]
    assert cache.open("lrs2/s/a").face(0).shape == (128, 128, 3)


def test_an_empty_or_missing_cache_is_reported(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match=r"^there is no clip .*python -m preprocess"):
            ClipCache(folder)


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    write_clip(tmp_path, "a", size=64)
    with pytest.raises(UserError, match=r"clip a .* crop\.size = 64, but 128"):
        ClipCache(tmp_path).open("a")
    assert len(ClipCache(tmp_path, 64).open("a").face(0)) == 64


@pytest.mark.parametrize("field", ["audio.hop", "crop.margin", "landmarks.table"])
def test_every_kind_of_setting_is_compared(field: str) -> None:
    wanted = fingerprint.current()
    fingerprint.check(dict(wanted), wanted, "it")
    with pytest.raises(UserError, match=f"it was made with {field} = 9"):
        fingerprint.check(wanted | {field: 9}, wanted, "it")
    with pytest.raises(UserError, match=f"{field} = nothing"):
        fingerprint.check({key: value for key, value in wanted.items() if key != field}, wanted, "it")


@pytest.mark.parametrize("suffix", [".faces", ".safetensors"])
@pytest.mark.parametrize("rest", [0, 5, 500])
def test_truncated_files_are_reported(tmp_path: Path, suffix: str, rest: int) -> None:
    write_clip(tmp_path, "a")
    file = tmp_path / f"a{suffix}"
    file.write_bytes(file.read_bytes()[:rest])
    with pytest.raises(UserError, match=r"a\.safetensors is not a complete clip"):
        ClipCache(tmp_path).open("a")
