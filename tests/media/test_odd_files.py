"""Odd files of real users: variable rates with gaps, late starts, several streams, pictures of all kinds."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from media import ffmpeg
from media.video import MAX_PICTURE, Video, read_audio
from runtime.command_line import UserError
from tests.media.made_up import click_times, clicks, numbered, numbers, write

B_FRAMES = {"preset": "medium", "bf": "3", "x264-params": "b-adapt=0", "x265-params": "log-level=none"}


def write_streams(path: Path, sources: list[Path], defaults: list[bool]) -> Path:
    """Copies the first stream of each source into one file; `defaults` marks the streams that players choose."""
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
    assert clip.remarks == [f"shrunk to {clip.width} x {clip.height} pixels"]
    assert clip.width * clip.height <= MAX_PICTURE * 1.01
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


def speech(seconds: float = 2, rate: int = 48000) -> np.ndarray:
    """(samples,) noise that comes and goes, as syllables do."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(0).normal(0, 0.1, len(time))
    return (noise * (np.sin(2 * np.pi * 2 * time) > 0)).astype(np.float32)


def write_stereo(path: Path, left: np.ndarray, right: np.ndarray) -> Path:
    return write(path, [], sound=np.stack([left, right]), sound_codec="flac", sound_layout="stereo")


@pytest.mark.parametrize("gain", [1.0, 0.8])
def test_opposite_phase_does_not_cancel_out(tmp_path: Path, gain: float) -> None:
    left, remarks = speech(), []
    mono = read_audio(write(tmp_path / "mono.flac", [], sound=left[None], sound_codec="flac"))
    wav = read_audio(write_stereo(tmp_path / "a.flac", -gain * left, left), remarks=remarks)
    assert len(wav) == len(mono)
    assert min(np.abs(wav - mono).max(), np.abs(wav + mono).max()) < 1e-3
    assert len(remarks) == 1 and "opposite phase" in remarks[0]


def test_opposite_phase_in_a_part_is_found_there(tmp_path: Path) -> None:
    left = speech(6)
    right = np.concatenate([left[:144000], -left[144000:]])
    wav = read_audio(write_stereo(tmp_path / "a.flac", left, right))
    mono = read_audio(write(tmp_path / "mono.flac", [], sound=left[None], sound_codec="flac"))
    energies = [np.square(part).sum() for part in (wav[:16000], wav[-32000:-16000], mono[:16000])]
    assert min(energies) > 0.9 * max(energies)


def test_ordinary_stereo_is_mixed(tmp_path: Path) -> None:
    left, remarks = speech(), []
    right = np.random.default_rng(1).normal(0, 0.05, len(left)).astype(np.float32)
    wav = read_audio(write_stereo(tmp_path / "a.flac", left, right), remarks=remarks)
    mono = read_audio(write(tmp_path / "mono.flac", [], sound=(left + right)[None] / 2, sound_codec="flac"))
    assert np.abs(wav - mono).max() < 1e-3 and remarks == []


def test_silent_sound_and_the_chosen_track_are_said(tmp_path: Path) -> None:
    silent = write(tmp_path / "silent.m4a", [], sound=clicks(1, []))
    loud = write(tmp_path / "loud.m4a", [], sound=clicks(1, [0.5]))
    both = write_streams(tmp_path / "both.m4a", [silent, loud], [True, False])
    expected = {
        silent: ["its sound is silent throughout"],
        loud: [],
        both: ["sound track 1 of 2 was used", "its sound is silent throughout"],
        write_streams(tmp_path / "last.mkv", [silent, loud], [False, True]): ["sound track 2 of 2 was used"],
    }
    for path, lines in expected.items():
        remarks: list[str] = []
        read_audio(path, remarks=remarks)
        assert remarks == lines


def cut_out(width: int = 64, height: int = 48) -> np.ndarray:
    """(H, W, 4) RGBA: a grey left half; the right half is transparent, with red below."""
    picture = np.full((height, width, 4), 100, np.uint8)
    picture[..., 3] = 255
    picture[:, width // 2 :] = 255, 0, 0, 0
    return picture


def is_blended(picture: np.ndarray) -> bool:
    middle = picture.shape[1] // 2
    near_grey = np.abs(picture[:, : middle - 2].astype(int) - 100).max() < 12
    return bool(near_grey and picture[:, middle + 2 :].min() > 243)


@pytest.mark.parametrize("name", ["a.png", "a.webp", "palette.png", "a.gif", "a.avif", "a.tiff"])
def test_transparent_parts_of_pictures_are_white(tmp_path: Path, name: str) -> None:
    picture = Image.fromarray(cut_out())
    if "palette" in name:
        picture = picture.quantize(8, Image.Quantize.FASTOCTREE)
    picture.save(tmp_path / name)
    clip = Video(tmp_path / name)
    assert all(map(is_blended, clip))
    assert clip.remarks == ["its transparent parts were filled with white"]


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [("a.webm", "libvpx-vp9", "yuva420p"), ("a.webm", "libvpx", "yuva420p"), ("a.mov", "prores_ks", "yuva444p10le")],
)
def test_transparent_parts_of_videos_are_white(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, 25, {"auto-alt-ref": "0"} if "vpx" in codec else {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for index in range(10):
            frame = av.VideoFrame.from_ndarray(cut_out(), "rgba").reformat(format=pixels)
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    clip = Video(path)
    shown = list(clip)
    assert len(shown) == 10 and all(map(is_blended, shown)) and all(map(is_blended, clip.frames([7, 2])))
    assert clip.remarks == ["its transparent parts were filled with white"] and clip.damage is None


def test_opaque_pictures_with_an_alpha_channel_stay_as_they_are(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 4), np.uint8)
    picture[..., 3] = 255
    Image.fromarray(picture).save(tmp_path / "a.png")
    clip = Video(tmp_path / "a.png")
    np.testing.assert_array_equal(next(iter(clip)), picture[..., :3])
    assert clip.remarks == []


@pytest.mark.parametrize(("count", "duration"), [(5, 200), (10, 100)])
def test_animated_webp_keeps_its_times(tmp_path: Path, count: int, duration: int) -> None:
    frames = [Image.fromarray(numbered(k)) for k in range(count)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], duration=duration, lossless=True)
    clip = Video(tmp_path / "a.webp")
    shown = numbers(clip)
    assert len(shown) == 25 and clip.damage is None
    assert all(abs(index - k * 40 / duration) <= 1 for k, index in enumerate(shown))
    assert numbers(clip.frames([24, 0, 12])) == [shown[24], 0, shown[12]]


def test_tiff_compressed_as_jpeg_is_not_black(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (200, 100, 50)).save(tmp_path / "a.tiff", compression="jpeg")
    [picture] = Video(tmp_path / "a.tiff")
    assert np.abs(picture.astype(int) - [200, 100, 50]).max() < 8


def test_pictures_that_cannot_be_read_say_what_to_convert_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    with pytest.raises(UserError, match="convert it to JPEG or PNG"):
        Video(tmp_path / "cut.png")
    Image.new("RGB", (64, 48)).save(tmp_path / "tiles.avif")
    monkeypatch.setattr(ffmpeg.Source, "_picture", lambda _: None)  # as if all streams were tiles
    with pytest.raises(UserError, match=r"HEIC.*convert it to JPEG or PNG"):
        Video(tmp_path / "tiles.avif")


def test_png_with_a_damaged_chunk_is_one_error(tmp_path: Path) -> None:
    _, encoded = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8))
    start, *chunks = encoded.tobytes().split(b"IDAT")
    assert len(chunks) > 1
    path = tmp_path / "a.png"
    path.write_bytes(start + b"IDAT" + chunks[0] + b"\xb9\xb7\xbcy" + b"IDAT".join(chunks[1:]))
    with pytest.raises(UserError, match=r"a\.png"):
        list(Video(path))
