"""Odd files that people really have: variable rates with gaps, late starts, several streams, pictures of all kinds."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from av.stream import Disposition
from PIL import Image

from media.video import MAX_PICTURE, Video, read_audio
from tests.media.made_up import click_times, clicks, numbered, numbers, write

B_FRAMES = {"preset": "medium", "bf": "3", "x264-params": "b-adapt=0", "x265-params": "log-level=none"}


def write_streams(path: Path, sources: list[Path], defaults: list[bool]) -> Path:
    """Copies the first stream of each source into one file; `defaults` are those that players take."""
    with av.open(str(path), "w") as container:
        inputs = [av.open(str(source)) for source in sources]
        streams: list[Any] = [container.add_stream_from_template(source.streams[0]) for source in inputs]
        for stream, is_default in zip(streams, defaults, strict=True):
            stream.disposition = Disposition.default if is_default else Disposition(0)
        for source, stream in zip(inputs, streams, strict=True):
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = stream
                    container.mux(packet)
            source.close()
    return path


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.mp4", "libx265")])
def test_gap_in_a_video_with_b_frames_holds_the_picture(tmp_path: Path, name: str, codec: str) -> None:
    times = [k / 25 for k in (*range(50), *range(125, 200))]
    sound = clicks(8, [1.0, 6.0])
    path = write(tmp_path / name, map(numbered, range(125)), codec=codec, times=times, options=B_FRAMES, sound=sound)
    clip = Video(path)
    expected = [*range(50), *[49] * 75, *range(50, 125)]
    assert numbers(clip) == expected and clip.damage is None
    assert numbers(clip.frames([199, 126, 60, 3])) == [expected[k] for k in (199, 126, 60, 3)]
    assert click_times(read_audio(path)) == pytest.approx([1.0, 6.0], abs=1e-3)


def test_gap_before_the_last_frames_does_not_lengthen_the_video(tmp_path: Path) -> None:
    times = [k / 25 for k in (*range(50), *range(125, 128))]
    clip = Video(write(tmp_path / "a.mp4", map(numbered, range(53)), times=times, options=B_FRAMES))
    assert numbers(clip) == [*range(50), *[49] * 75, 50, 51, 52]


@pytest.mark.parametrize("rate", [1, 2, 3])
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.mp4", "libx265")])
def test_a_few_frames_a_second_with_b_frames(tmp_path: Path, name: str, codec: str, rate: int) -> None:
    clip = Video(write(tmp_path / name, map(numbered, range(8)), rate, codec=codec, options=B_FRAMES))
    shown = numbers(clip)
    assert abs(len(shown) - 8 * 25 / rate) <= 1 and clip.damage is None
    assert shown == [min(7, int((k + 0.5 + 1e-9) * rate / 25)) for k in range(len(shown))]


def test_matroska_that_starts_late_is_whole(tmp_path: Path) -> None:
    start = 36000
    times = [start + k / 25 for k in range(50)]
    path = tmp_path / "a.mkv"
    write(path, map(numbered, range(50)), times=times, sound=clicks(2, [0.4]), sound_start=start)
    clip, damage = Video(path), []
    assert numbers(clip) == list(range(50)) and clip.num_frames == 50 and clip.damage is None
    assert click_times(read_audio(path, damage)) == pytest.approx([0.4], abs=1e-3) and damage == []


def test_matroska_that_starts_late_and_is_cut_off_is_damaged(tmp_path: Path) -> None:
    times = [36000 + k / 25 for k in range(100)]
    whole = write(tmp_path / "a.mkv", map(numbered, range(100)), times=times)
    (tmp_path / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    clip = Video(tmp_path / "cut.mkv")
    assert len(numbers(clip)) < 75 and clip.damage and "of 4.0 s" in clip.damage


@pytest.mark.parametrize("defaults", [(True, False), (False, True), (False, False), (True, True)])
def test_default_pictures_come_before_larger_ones(tmp_path: Path, defaults: tuple[bool, bool]) -> None:
    small = write(tmp_path / "small.mkv", [numbered(k, 64, 48) for k in range(10)])
    large = write(tmp_path / "large.mkv", [numbered(k, 128, 96) for k in range(10)])
    clip = Video(write_streams(tmp_path / "a.mkv", [small, large], list(defaults)))
    assert clip.width == (64 if defaults == (True, False) else 128)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tiff"])
def test_pixels_of_a_picture_are_square(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (320, 240), (9, 99, 199)).save(tmp_path / name, dpi=(72, 144))
    clip = Video(tmp_path / name)
    assert (clip.width, clip.height) == (320, 240)


@pytest.mark.parametrize("name", ["a.gif", "a.avif", "a.webp", "a.png"])
def test_large_pictures_of_every_format_are_shrunk(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (3000, 2000), (99, 99, 99)).save(tmp_path / name)
    clip = Video(tmp_path / name)
    assert clip.shrunk and clip.width * clip.height <= MAX_PICTURE * 1.01
    assert [picture.shape for picture in clip] == [(clip.height, clip.width, 3)], "a still picture is one frame"


def test_moving_gif_keeps_its_times(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gif", map(numbered, range(6)), 5, codec="gif", pixels="rgb8")
    assert numbers(Video(path)) == [k // 5 for k in range(30)]


@pytest.mark.parametrize("default", [0, 1])
def test_default_sound_track_is_taken(tmp_path: Path, default: int) -> None:
    tracks = [write(tmp_path / f"{k}.m4a", [], sound=clicks(1, [0.3 + 0.2 * k])) for k in range(2)]
    path = write_streams(tmp_path / "a.mkv", tracks, [k == default for k in range(2)])
    assert click_times(read_audio(path)) == pytest.approx([0.3 + 0.2 * default], abs=0.025)


def test_fields_of_interlaced_video_do_not_shorten_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.ts", map(numbered, range(20)), Fraction(25), options={"x264-params": "tff=1"})
    assert len(numbers(Video(path))) == 20
