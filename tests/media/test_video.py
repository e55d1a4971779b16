"""Frames have the right times, in any order of reading, and come out upright and in the right colours."""

import itertools
import os
from collections import Counter, deque
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from media import ffmpeg, video
from media.audio import SAMPLE_RATE
from media.timing import Timeline
from media.video import Video, read_audio
from media.writer import VideoWriter
from runtime.command_line import UserError
from tests.media.made_up import HEIGHT, WIDTH, click_times, clicks, number, numbered, numbers, write


def nearest(times, rate, count):
    """For each output frame, the last of the source frames nearest to its time; none is later than half a frame."""
    allowed = min(0.5 / rate, 0.5 * (times[-1] - times[0]) / (len(times) - 1))
    return [max(i for i, t in enumerate(times) if i == 0 or t <= k / rate + allowed + 1e-9) for k in range(count)]


@pytest.mark.parametrize("rate", [25, 30, Fraction(30000, 1001), 24, 10, 60, 50, Fraction(22131, 1000)])
def test_constant_rate_is_brought_to_25_without_drift(tmp_path, rate):
    count = 200
    clip = Video(write(tmp_path / "a.mp4", map(numbered, range(count)), rate))
    shown = numbers(clip)
    times = [i / float(rate) for i in range(count)]
    assert shown == nearest(times, 25, len(shown))
    assert abs(len(shown) - count / float(rate) * 25) < 1
    assert clip.num_frames == len(shown)
    assert clip.damage is None
    if rate == 25:
        assert shown == list(range(count))


def test_own_rate_is_kept(tmp_path):
    clip = Video(write(tmp_path / "a.mp4", map(numbered, range(40)), Fraction(30000, 1001)), fps=None)
    assert clip.fps == pytest.approx(29.97, abs=1e-3)
    assert numbers(clip) == list(range(40))


def test_milliseconds_of_matroska_do_not_disturb_the_own_rate(tmp_path):
    clip = Video(write(tmp_path / "a.mkv", map(numbered, range(120)), Fraction(30000, 1001)), fps=None)
    assert numbers(clip) == list(range(120))


def test_variable_rate(tmp_path):
    steps = np.random.default_rng(0).choice([0.02, 0.033, 0.05, 0.2, 1.0], 60, p=[0.3, 0.3, 0.2, 0.15, 0.05])
    times = np.concatenate([[0], np.cumsum(steps)[:-1]]).round(4)
    clip = Video(write(tmp_path / "a.mp4", map(numbered, range(60)), 25, times=times))
    shown = numbers(clip)
    late = [k / 25 - times[i] for k, i in enumerate(shown)]
    following = [times[i + 1] - k / 25 for k, i in enumerate(shown) if i + 1 < 60]
    assert min(late) >= -0.02 - 1e-4 and min(following) > 0  # never early by more than half a frame, never overdue
    assert len(shown) >= times[-1] * 25 and set(np.flatnonzero(steps > 0.05)) <= set(shown)


@pytest.mark.parametrize("container", ["mp4", "mov", "mkv", "ts", "mpg", "flv"])
def test_sound_and_picture_keep_their_places_in_every_container(tmp_path, container):
    codec, sound_codec = ("mpeg1video", "mp2") if container == "mpg" else ("libx264", "aac")
    path = tmp_path / f"a.{container}"
    write(path, map(numbered, range(50)), codec=codec, sound=clicks(2, [0.4, 1.2, 1.6]), sound_codec=sound_codec)
    assert numbers(Video(path)) == list(range(50))
    assert click_times(read_audio(path)) == pytest.approx([0.4, 1.2, 1.6], abs=1e-3)


def test_picture_that_starts_late_is_held_from_the_start(tmp_path):
    times = [0.48 + k / 25 for k in range(25)]
    path = write(tmp_path / "a.mp4", map(numbered, range(25)), times=times, sound=clicks(1.5, [0.1, 0.88]))
    clip = Video(path)
    assert numbers(clip) == [0] * 12 + list(range(25))
    assert numbers(clip.frames([0, 11, 12, 13, 36])) == [0, 0, 0, 1, 24]
    assert click_times(read_audio(path)) == pytest.approx([0.1, 0.88], abs=1e-3)  # 0.88 s: with frame 10


def test_sound_that_starts_late_is_padded(tmp_path):
    path = write(tmp_path / "a.mkv", map(numbered, range(50)), sound=clicks(1, [0.5]), sound_start=0.3)
    assert numbers(Video(path)) == list(range(50))
    assert click_times(read_audio(path)) == pytest.approx([0.8], abs=1e-3)


def test_sound_a_little_ahead_does_not_make_pictures_late(tmp_path):
    times = [0.013 + k / 25 for k in range(25)]
    path = write(tmp_path / "a.mkv", map(numbered, range(25)), times=times, sound=clicks(1, [0.413]))
    assert numbers(Video(path)) == list(range(25))
    assert click_times(read_audio(path)) == pytest.approx([0.4], abs=1e-3)


def test_damaged_timestamp_does_not_ask_for_hours(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mkv", map(numbered, range(20)), times=[*(k / 25 for k in range(19)), 90000.0])
    monkeypatch.setattr(ffmpeg.Source, "duration", lambda source: 0.8)
    monkeypatch.setattr(ffmpeg.Source, "latest", lambda source: 2.0)
    assert numbers(Video(path)) == list(range(20))


def test_timestamps_that_go_backward_continue_regularly():
    rate = Fraction(25)
    hundredths = Timeline(Fraction(1, 100), rate, shortest=1 / rate, rate=rate, zero=Fraction(0))
    for ticks in (0, 4, 4, None, 0, 30, None):
        hundredths.append(ticks, is_key=False, duration=0)
    assert list(hundredths.ticks) == [0, 4, 8, 12, 16, 30, 34]


FORMATS = [
    ("a.mp4", "libx264", {}),
    ("a.mp4", "libx264", {"preset": "medium", "g": "12", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}),
    ("a.mpg", "mpeg1video", {"g": "12", "bf": "2"}),
    ("a.ts", "mpeg2video", {"g": "12", "bf": "2"}),
    ("a.mkv", "ffv1", {}),
    ("a.avi", "mjpeg", {}),
]


@pytest.mark.parametrize(("name", "codec", "options"), FORMATS, ids=[f"{c}-{len(o)}" for _, c, o in FORMATS])
def test_frames_in_any_order_equal_those_in_order(tmp_path, monkeypatch, name, codec, options):
    monkeypatch.setattr(video, "_BUFFER_BYTES", 0)  # keep the minimum
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write(tmp_path / name, map(numbered, range(100)), codec=codec, pixels=pixels, options=options)
    expected = list(Video(path))
    assert numbers(expected) == list(range(100))
    clip = Video(path)
    order = [*np.random.default_rng(0).integers(0, 100, 30), *range(90, 100), *range(99, 60, -1), 0, 0, 99]
    for index, picture in zip(order, clip.frames(order), strict=True):
        np.testing.assert_array_equal(picture, expected[index])


def test_backward_decodes_each_group_a_few_times_only(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", map(numbered, range(200)), options={"g": "50"})
    monkeypatch.setattr(video, "_BUFFER_BYTES", 30 * WIDTH * HEIGHT * 3 // 2)
    clip = Video(path)
    assert sum(1 for _ in clip) == 200
    decoded, kept = Counter(), []
    original = ffmpeg.Source.decode

    def counting(*args):
        for frame in original(*args):
            decoded["frames"] += 1
            yield frame

    monkeypatch.setattr(ffmpeg.Source, "decode", counting)

    class Deque(deque):
        def append(self, item):
            super().append(item)
            kept.append(len(self))

    monkeypatch.setattr(video, "deque", Deque)
    back_and_forth = [*range(200), *range(199, -1, -1), *range(200)]
    assert numbers(clip.frames(back_and_forth)) == back_and_forth
    assert decoded["frames"] < 3 * len(back_and_forth) and max(kept) <= 31


def test_a_held_frame_is_converted_once_and_cannot_be_written_to(tmp_path):
    first, *others, last = itertools.islice(Video(write(tmp_path / "a.mp4", map(numbered, range(4)), 5)), 6)
    assert all(picture is first for picture in others) and last is not first and (number(first), number(last)) == (0, 1)
    with pytest.raises(ValueError, match="read-only"):
        first[:] = 255


@pytest.mark.parametrize("index", [-1, 10])
def test_frames_outside_the_video_are_an_error(tmp_path, index):
    clip = Video(write(tmp_path / "a.mp4", map(numbered, range(10))))
    with pytest.raises(IndexError, match="0 to 9"):
        list(clip.frames([3, index]))


def test_two_iterations_at_once(tmp_path):
    clip = Video(write(tmp_path / "a.mp4", map(numbered, range(30))))
    assert [(number(a), number(b)) for a, b in zip(clip, clip, strict=True)] == [(k, k) for k in range(30)]


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
def test_rotation_flags_are_applied(tmp_path, degrees, flips):
    stored = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stored[: HEIGHT // 2, : WIDTH // 4] = 255, 0, 0  # red at the top left
    stored[HEIGHT // 2 :, WIDTH // 4 :] = 0, 0, 255  # blue at the bottom right
    path = write(tmp_path / "a.mp4", [stored] * 3, rotation=(degrees, *flips))
    upright = np.rot90(stored, degrees // 90)
    upright = upright[:, ::-1] if flips[0] else upright
    upright = upright[::-1] if flips[1] else upright
    clip = Video(path)
    assert (clip.height, clip.width) == upright.shape[:2]
    for picture in [next(iter(clip)), next(clip.frames([2]))]:
        assert picture.shape == upright.shape and picture.flags.c_contiguous
        assert np.abs(picture.astype(int) - upright).mean() < 8


@pytest.mark.parametrize(("aspect", "width"), [(Fraction(4, 3), 85), (Fraction(255, 256), 64), (Fraction(1, 500), 64)])
def test_pixels_that_are_not_square_become_so(tmp_path, aspect, width):
    """As players show them, such as DVD and HDV. Aspects that are absurd, or square up to rounding, are ignored."""
    path = write(tmp_path / "a.mkv", map(numbered, range(3)), colours={"sample_aspect_ratio": aspect})
    clip = Video(path)
    assert (clip.width, clip.height) == (width, HEIGHT)
    assert numbers(clip) == [0, 1, 2] and next(clip.frames([1])).shape == (HEIGHT, width, 3)


COLOURS = np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200], [128, 128, 128], [224, 172, 150], [250, 250, 250]])


def colour_card(width=96, height=64):
    patches = np.repeat(COLOURS.astype(np.uint8), width // len(COLOURS), axis=0)
    return np.ascontiguousarray(np.broadcast_to(patches, (height, width, 3)))


def colours_in(picture):
    middles = (np.arange(len(COLOURS)) * 2 + 1) * picture.shape[1] // (2 * len(COLOURS))
    return picture[picture.shape[0] // 2, middles].astype(int)


def encoded(tmp_path, matrix, full, pixels, tagged=True, size=(96, 64)):
    """A video whose pixels were made from the colour card by the formula of the standard."""
    red, blue = {"709": (0.2126, 0.0722), "601": (0.299, 0.114), "2020": (0.2627, 0.0593)}[matrix]
    rgb = colour_card(*size) / 255
    luma = rgb @ [red, 1 - red - blue, blue]
    chroma = (rgb[..., 2] - luma) / (2 - 2 * blue), (rgb[..., 0] - luma) / (2 - 2 * red)
    depth = 10 if "10" in pixels else 8
    scale = 1 << (depth - 8)
    top = (1 << depth) - 1
    planes = [luma * top if full else (16 + 219 * luma) * scale]
    planes += [0.5 * (top + 1) + (c * top if full else 224 * c * scale) for c in chroma]
    spaces = {"709": Colorspace.ITU709, "601": Colorspace.ITU601, "2020": Colorspace.BT2020}
    tags = {"colorspace": spaces[matrix]} if tagged else {}
    tags |= {"color_range": ColorRange.JPEG if full else ColorRange.MPEG}
    return write_planes(tmp_path / "a.mkv", planes, pixels, tags)


def write_planes(path, planes, pixels, tags, count=2):
    height, width = planes[0].shape
    dtype = np.uint16 if "10" in pixels else np.uint8
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", 25, {"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for _ in range(count):
            frame: Any = av.VideoFrame(width, height, pixels)
            for name, value in tags.items():
                setattr(frame, name, value)
            for plane, values in zip(frame.planes, planes, strict=True):
                rows = np.frombuffer(plane, dtype).reshape(plane.height, -1)
                step = width // plane.width
                rows[:, : plane.width] = values[::step, ::step].round()
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("matrix", "full", "pixels", "tagged", "size"),
    [
        ("601", False, "yuv420p", True, (96, 64)),
        ("709", False, "yuv420p", True, (96, 64)),
        ("601", True, "yuv420p", True, (96, 64)),
        ("709", True, "yuv444p", True, (96, 64)),
        ("709", False, "yuv420p10le", True, (96, 64)),
        ("2020", False, "yuv420p10le", True, (96, 64)),
        ("601", False, "yuv420p", False, (96, 64)),
        ("709", False, "yuv420p", False, (1296, 64)),
    ],
)
def test_colours_of_every_matrix_range_and_depth(tmp_path, matrix, full, pixels, tagged, size):
    picture = next(iter(Video(encoded(tmp_path, matrix, full, pixels, tagged, size))))
    assert picture.dtype == np.uint8
    assert np.abs(colours_in(picture) - COLOURS).max() <= 2


@pytest.mark.slow
@pytest.mark.parametrize("curve", ["pq", "hlg"])
def test_hdr_is_brought_to_standard_range(tmp_path, curve):
    light = np.repeat([0, 1, 5, 20, 50, 100, 203, 1000], 16)  # candela per square metre; 203 is the white of a page
    if curve == "pq":  # SMPTE ST 2084
        power = (light / 10000) ** (2610 / 16384)
        signal = ((3424 + 2413 * 32 * power) / (4096 + 2392 * 32 * power)) ** (2523 / 32)
    else:  # ARIB STD-B67 on a display of 1000 candela: the scene's light is the display's to the power of 1 / 1.2
        scene = (light / 1000) ** (1 / 1.2)
        signal = np.where(
            scene <= 1 / 12,
            np.sqrt(3 * scene),
            0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073,
        )
    planes = [np.broadcast_to(64 + 876 * signal, (64, 128)), np.full((64, 128), 512.0), np.full((64, 128), 512.0)]
    trc = ColorTrc.SMPTE2084 if curve == "pq" else ColorTrc.ARIB_STD_B67
    tags = {
        "colorspace": Colorspace.BT2020,
        "color_primaries": ColorPrimaries.BT2020,
        "color_trc": trc,
        "color_range": 1,
    }
    picture = next(iter(Video(write_planes(tmp_path / "a.mkv", planes, "yuv420p10le", tags))))
    grey = picture[32, 8::16].astype(int)
    assert np.ptp(grey, axis=1).max() <= 2 and (np.diff(grey[:, 1]) >= 0).all()
    assert grey[0, 1] <= 4 and grey[6, 1] >= 235 and 150 <= grey[5, 1] <= 225


@pytest.mark.parametrize("size", [(10, 64), (63, 47), (16, 2)])
def test_tiny_and_odd_sizes(tmp_path, size):
    stored = np.full((size[1], size[0], 3), 200, np.uint8)
    clip = Video(write(tmp_path / "a.mkv", [stored] * 3, codec="ffv1", pixels="yuv444p"))
    assert (clip.width, clip.height) == size
    assert [picture.shape for picture in clip] == [stored.shape] * 3


def test_one_frame(tmp_path):
    clip = Video(write(tmp_path / "a.mp4", [numbered(77)]))
    assert numbers(clip) == [77] and clip.num_frames == 1
    assert numbers(clip.frames([0, 0])) == [77, 77]


@pytest.mark.parametrize(
    "name", ["a b.mp4", 'it\'s "q".mp4', "видео 视频.mp4", "%d %s.mp4", "http:x.mp4", "-y.mp4", "a\nb.mp4", "#?&.mp4"]
)
def test_names_are_only_names(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    os.rename(write(tmp_path / "plain.mp4", map(numbered, range(3)), sound=clicks(0.12, [0.05])), name)
    assert numbers(Video(name)) == [0, 1, 2]
    assert click_times(read_audio(name)) == pytest.approx([0.05], abs=1e-3)


def test_truncated_file_gives_the_frames_before_the_cut(tmp_path):
    path = write(tmp_path / "a.mp4", map(numbered, range(100)), options={"preset": "medium"}, sound=clicks(4, [0.5]))
    with ffmpeg.open_input(path) as source:
        duration = source.container.duration
    assert duration == 4_000_000
    whole = tmp_path / "whole.mkv"
    write(whole, map(numbered, range(100)), sound=clicks(4, [0.5]))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    clip = Video(cut)
    shown = numbers(clip)
    assert 20 < len(shown) < 90 and shown == list(range(len(shown)))
    assert clip.damage and "of 4.0 s" in clip.damage and "\n" not in clip.damage
    assert click_times(read_audio(cut)) == pytest.approx([0.5], abs=1e-3)


def test_truncated_mp4_with_its_index_in_front(tmp_path):
    sound = write(tmp_path / "sound.mkv", [], sound=clicks(4, [0.5]), sound_codec="flac")
    with VideoWriter(tmp_path / "a.mp4", 25, (WIDTH, HEIGHT), [(sound, 0.0)]) as writer:
        for index in range(100):
            writer.write(numbered(index))
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 3 // 4])
    clip = Video(tmp_path / "cut.mp4")
    shown = numbers(clip)
    assert 10 < len(shown) < 95 and shown == sorted(shown) and shown[:20] == list(range(20))
    assert all(k - 3 <= index <= k for k, index in enumerate(shown))  # frames between two that are there may be missing
    assert clip.damage and clip.num_frames == len(shown)


def test_noise_in_the_middle_loses_only_what_it_hit(tmp_path):
    path = write(tmp_path / "a.ts", map(numbered, range(100)), options={"g": "10"}, sound=clicks(4, [0.5, 3.5]))
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = np.random.default_rng(0).bytes(2000)
    path.write_bytes(data)
    shown = numbers(Video(path))
    assert len(shown) == 100 and shown[:30] == list(range(30)) and shown[-30:] == list(range(70, 100))
    assert click_times(read_audio(path)) == pytest.approx([0.5, 3.5], abs=1e-3)


def test_not_a_video(tmp_path, monkeypatch):
    (tmp_path / "text.mp4").write_text("hello\n" * 100)
    (tmp_path / "text.txt").write_text("hello\n" * 100)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile 'other.mp4'\n")
    write(tmp_path / "other.mp4", [numbered(0)])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    write(tmp_path / "sound.m4a", [], sound=clicks(0.1, []))
    cases = {
        "missing.mp4": "No such file",
        ".": "folder",
        "text.mp4": "not a video",
        "text.txt": "text file",
        "list.mp4": "text file",
        "empty.mp4": "empty",
        "noise.mp4": "not a video",
        "loop.mp4": "cannot be opened",
        "pipe.mp4": "pipe",
        "sound.m4a": "no video",
        "a\0b.mp4": "cannot be opened",
        "x" * 300: "cannot be opened",
        "/dev/null": "device",
    }
    for name, words in cases.items():
        with pytest.raises(UserError, match=words) as caught:
            Video(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_no_permission(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", [numbered(0)])
    path.chmod(0)
    if os.geteuid() == 0:  # root may read anything
        monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="permission"):
        Video(path)


def test_a_cover_picture_is_no_video(tmp_path):
    plain = write(tmp_path / "plain.m4a", [], sound=clicks(0.2, [0.1]))
    with av.open(str(plain)) as source, av.open(str(tmp_path / "cover.mp4"), "w") as container:
        audio = container.add_stream_from_template(source.streams.audio[0])
        cover: Any = container.add_stream("mjpeg", 25)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(numbered(3), "rgb24").reformat(format="yuvj420p")
        container.mux([*cover.encode(frame), *cover.encode()])
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = audio
                container.mux(packet)
    with pytest.raises(UserError, match="no video"):
        Video(tmp_path / "cover.mp4")
    assert click_times(read_audio(tmp_path / "cover.mp4")) == pytest.approx([0.1], abs=1e-3)


def test_grid_clip(shared):
    path = shared / "clips" / "grid_others" / "grid_B_lbax4n.mpg"  # MPEG-1 with MPEG audio
    clip = Video(path)
    pictures = list(clip)
    assert len(pictures) == 75 and pictures[0].shape == (288, 360, 3) and clip.has_audio and clip.damage is None
    for index, picture in zip([74, 3, 40], clip.frames([74, 3, 40]), strict=True):
        np.testing.assert_array_equal(picture, pictures[index])
    assert abs(len(read_audio(path)) / SAMPLE_RATE - 2.95) < 0.05


@pytest.mark.slow
def test_every_real_clip(shared):
    for path in sorted((shared / "clips").glob("*.mp4")):
        clip = Video(path)
        count = sum(1 for _ in clip)
        assert clip.damage is None and count == clip.num_frames, path
        if clip.has_audio:
            assert abs(len(read_audio(path)) / SAMPLE_RATE - count / 25) < 0.1, path


def test_frames_cut_by_an_edit_list_stay_cut(tmp_path):
    whole = write(tmp_path / "whole.mp4", map(numbered, range(50)), sound=clicks(2, [0.8]))
    with av.open(str(whole)) as source, av.open(str(tmp_path / "cut.mp4"), "w") as container:
        streams = {s.index: container.add_stream_from_template(s, opaque=True) for s in source.streams}
        for packet in source.demux():
            if packet.pts is not None and packet.dts is not None:
                shift = round(Fraction(10, 25) / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = streams[packet.stream.index]
                container.mux(packet)
    clip = Video(tmp_path / "cut.mp4")
    assert numbers(clip) == list(range(10, 50)) and clip.damage is None
    assert numbers(clip.frames([39, 0, 20])) == [49, 10, 30]
    assert click_times(read_audio(tmp_path / "cut.mp4")) == pytest.approx([0.4], abs=1e-3)


def test_size_and_clock_that_change_on_the_way(tmp_path):
    one = write(tmp_path / "1.ts", map(numbered, range(30)), codec="mpeg2video")
    two = write(tmp_path / "2.ts", [numbered(k, 128, 96) for k in range(30, 60)], codec="mpeg2video")
    (tmp_path / "a.ts").write_bytes(one.read_bytes() + two.read_bytes())
    pictures = list(Video(tmp_path / "a.ts"))
    assert {picture.shape for picture in pictures} == {(HEIGHT, WIDTH, 3)}
    shown = numbers(pictures)
    assert shown[:25] == list(range(25)) and shown[-25:] == list(range(35, 60))  # a decoder may lose some at the change
    assert 55 <= len(shown) <= 62


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "libx264"), ("webm", "libvpx"), ("mp4", "libx264")])
def test_sound_may_last_longer_than_the_pictures(tmp_path, suffix, codec):
    sound_codec = "libopus" if suffix == "webm" else "aac"
    path = tmp_path / f"a.{suffix}"
    clip = Video(write(path, map(numbered, range(50)), codec=codec, sound=clicks(4, [0.5]), sound_codec=sound_codec))
    assert len(numbers(clip)) == 50 and clip.damage is None


def test_an_interlaced_video_has_no_combs(tmp_path):
    """A bar moves between the fields; a grid of single lines stands still and keeps them all."""
    fields = [np.full((96, 128, 3), 30, np.uint8) for _ in range(8)]
    for k, field in enumerate(fields):
        field[10:60, 10 + 8 * k : 40 + 8 * k] = 220
        field[70:90:4] = 120
    woven = [first.copy() for first in fields[::2]]
    for picture, second in zip(woven, fields[1::2], strict=True):
        picture[1::2] = second[1::2]
    path = write(tmp_path / "a.mp4", woven, options={"x264-params": "tff=1", "crf": "1"})
    for picture, first in zip(Video(path), fields[::2], strict=True):
        assert np.abs(picture[12:58].astype(int) - first[12:58]).mean() < 3
        assert np.abs(picture[65:].astype(int) - first[65:]).mean() < 6
