"""Written files hold exactly what was given, and none is left half-written; sound is read."""

import os
import re
import resource
import struct
from fractions import Fraction
from itertools import islice, pairwise
from typing import Any

import av
import cv2
import numpy as np
import pytest
import soundfile

from media import ffmpeg
from media.audio import SAMPLE_RATE, frames_for_samples
from media.video import Video, read_audio, sound_file
from media.writer import VideoWriter, blocks
from runtime.command_line import UserError
from tests.media.made_up import HEIGHT, WIDTH, click_times, clicks, numbered, numbers, write
from tests.media.test_video import COLOURS, colour_card, colours_in


def write_wav(path, samples):
    soundfile.write(path, samples, SAMPLE_RATE, "FLOAT")
    return path


def write_frames(path, count, fps=25.0, **kwargs):
    with VideoWriter(path, fps, (WIDTH, HEIGHT), **kwargs) as writer:
        for index in range(count):
            writer.write(numbered(index))
    return path


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("fps", [25, 29.97002997, 22.131])
def test_exactly_the_frames_written_come_back(tmp_path, caplog, ending, fps):
    clip = Video(write_frames(tmp_path / f"a.{ending}", 33, fps), fps=None)
    assert not caplog.records
    assert numbers(clip) == list(range(33))
    assert clip.fps == pytest.approx(fps, rel=1e-3) and not clip.has_audio and clip.damage is None


def test_clicks_stay_with_their_frames(tmp_path):
    times = [0.2, 0.6, 1.32]
    sound = write_wav(tmp_path / "a.wav", clicks(2, times, SAMPLE_RATE)[0])
    path = write_frames(tmp_path / "a.mp4", 50, sounds=[(sound, 0.0)])
    assert click_times(read_audio(path)) == pytest.approx(times, abs=1e-3)
    with av.open(str(path)) as container:
        assert container.streams.audio[0].rate == SAMPLE_RATE


def test_sound_of_a_file_keeps_its_rate_channels_and_zero(tmp_path):
    stereo = clicks(2, [0.5, 1.5], 44100, 2)
    source = write(tmp_path / "a.mkv", [], sound=stereo, sound_codec="flac", sound_rate=44100, sound_layout="stereo")
    path = write_frames(tmp_path / "a.mp4", 60, sounds=[(source, 0.0)])
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        assert (stream.rate, stream.channels, stream.codec_context.name) == (44100, 2, "aac")
    assert click_times(read_audio(path)) == pytest.approx([0.5, 1.5], abs=1e-3)


@pytest.mark.parametrize("seconds", [0.01, 0.5, 3])
def test_sound_is_as_long_as_the_pictures(tmp_path, seconds):
    noise = np.random.default_rng(0).normal(0, 0.1, (round(seconds * SAMPLE_RATE),)).astype(np.float32)
    sounds = [(write_wav(tmp_path / "a.wav", noise), 0.0)]
    wav = read_audio(write_frames(tmp_path / "a.mp4", 33, sounds=sounds))
    assert abs(len(wav) - 33 * 640) <= 16 and frames_for_samples(len(wav)) == 33
    end = min(len(wav), len(noise))
    if seconds == 0.5:
        assert np.corrcoef(wav[:end], noise[:end])[0, 1] > 0.9 and np.abs(wav[end + 2048 :]).max() < 1e-3


def test_sound_is_written_alongside_the_frames_not_at_the_end(tmp_path):
    """Players and memory both need pictures and sound interleaved."""
    sound = write_wav(tmp_path / "a.wav", clicks(4, [1.0], SAMPLE_RATE)[0])
    path = write_frames(tmp_path / "a.mkv", 100, sounds=[(sound, 0.0)])
    with av.open(str(path)) as container:
        packets = [(p.stream.type, float(p.pts * p.time_base)) for p in container.demux() if p.pts is not None]
    assert max(abs(b[1] - a[1]) for a, b in pairwise(packets)) < 0.5


def test_colours_survive_and_are_tagged(tmp_path):
    card = colour_card()
    with VideoWriter(tmp_path / "a.mp4", 25, (96, 64)) as writer:
        for _ in range(3):
            writer.write(card)
    assert np.abs(colours_in(next(iter(Video(tmp_path / "a.mp4")))) - COLOURS).max() <= 3
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert context.pix_fmt == "yuv420p" and context.name == "h264"


def test_many_generations_do_not_shift_colours(tmp_path):
    picture = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8), (0, 0), 6)
    now = picture
    for generation in range(4):
        path = tmp_path / f"{generation}.mp4"
        with VideoWriter(path, 25, (96, 64), crf=1) as writer:
            writer.write(now)
        now = next(iter(Video(path)))
    assert (
        np.abs((now.astype(float) - picture).mean((0, 1))).max() < 1 and np.abs(now.astype(int) - picture).mean() < 1.5
    )


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_lossless_is_exact(tmp_path, ending):
    noise = np.random.default_rng(0).integers(0, 256, (5, HEIGHT, WIDTH, 3), np.uint8)
    with VideoWriter(tmp_path / f"a.{ending}", 25, (WIDTH, HEIGHT), lossless=True) as writer:
        for picture in noise:
            writer.write(picture)
    np.testing.assert_array_equal(list(Video(tmp_path / f"a.{ending}")), noise)


@pytest.mark.parametrize("size", [(63, 47), (64, 47), (10, 11), (1, 1)])
def test_odd_sizes_get_a_row_or_column(tmp_path, size):
    picture = np.full((size[1], size[0], 3), 180, np.uint8)
    with VideoWriter(tmp_path / "a.mp4", 25, size) as writer:
        writer.write(picture)
    (read,) = Video(tmp_path / "a.mp4")
    assert read.shape == (size[1] + size[1] % 2, size[0] + size[0] % 2, 3)
    assert np.abs(read.astype(int) - 180).max() <= 3


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, UserError])
def test_nothing_remains_after_an_exception(tmp_path, error):
    path = write_frames(tmp_path / "a.mp4", 5)
    sound = write_wav(tmp_path / "a.wav", clicks(1, [], SAMPLE_RATE)[0])
    before = path.read_bytes()
    with pytest.raises(error), VideoWriter(path, 25, (WIDTH, HEIGHT), [(sound, 0.0)]) as writer:
        for index in range(10):
            writer.write(numbered(index))
        raise error("stop")
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "a.wav"]
    assert path.read_bytes() == before, "the older file is untouched"


def test_result_appears_only_at_the_end(tmp_path):
    path = tmp_path / "видео 'a b'.mp4"
    with VideoWriter(path, 25, (WIDTH, HEIGHT)) as writer:
        writer.write(numbered(0))
        assert not path.exists()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("limit", [0, 500, 100_000])
def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, limit):
    noise = np.random.default_rng(0).integers(0, 256, (30, HEIGHT, WIDTH, 3), np.uint8)  # more than 250 kB
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))  # further writing fails, as on a full disk
    try:
        with pytest.raises(UserError, match="cannot be written") as caught:  # noqa: SIM117
            with VideoWriter(tmp_path / "a.mp4", 25, (WIDTH, HEIGHT), lossless=True) as writer:
                for picture in noise:
                    writer.write(picture)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value) and str(tmp_path / "a.mp4") in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_wrong_use_of_the_writer(tmp_path):
    with pytest.raises(UserError, match=r"\.mp4 or \.mov or \.mkv"):
        VideoWriter(tmp_path / "a.xyz", 25, (WIDTH, HEIGHT))
    with pytest.raises(UserError, match="cannot be written"), VideoWriter(tmp_path / "no" / "a.mp4", 25, (8, 8)):
        pass
    with pytest.raises(ValueError, match="no frame"), VideoWriter(tmp_path / "a.mp4", 25, (8, 8)):
        pass
    for wrong in (np.zeros((8, 9, 3), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8)):
        with pytest.raises(ValueError, match="uint8"), VideoWriter(tmp_path / "a.mp4", 25, (8, 8)) as writer:
            writer.write(wrong)
    silent = write(tmp_path / "silent.mp4", [numbered(0)])
    with pytest.raises(UserError, match="no sound"), VideoWriter(tmp_path / "a.mp4", 25, (8, 8), [(silent, 0.0)]):
        pass
    absent = tmp_path / "no.wav"
    with pytest.raises(UserError, match="No such file"), VideoWriter(tmp_path / "a.mp4", 25, (8, 8), [(absent, 0.0)]):
        pass
    assert os.listdir(tmp_path) == ["silent.mp4"]


def wav_bytes(samples, rate, channels, bits=16, form=1):
    """A RIFF file of interleaved samples, without a channel layout."""
    block = channels * bits // 8
    header = b"fmt " + struct.pack("<IHHIIHH", 16, form, channels, rate, rate * block, block, bits)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + len(samples))
        + b"WAVE"
        + header
        + b"data"
        + struct.pack("<I", len(samples))
        + samples
    )


@pytest.mark.parametrize(
    ("rate", "channels", "bits", "form"),
    [(8000, 1, 16, 1), (44100, 2, 16, 1), (48000, 6, 16, 1), (96000, 2, 32, 3), (11025, 1, 8, 1), (16000, 3, 16, 1)],
)
def test_wav_files_of_all_kinds(tmp_path, rate, channels, bits, form):
    time = np.arange(rate) / rate
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    scale, dtype = {8: (127, np.uint8), 16: (32767, "<i2"), 32: (1, "<f4")}[bits]
    samples = (tone * scale + (128 if bits == 8 else 0)).astype(dtype)
    data = np.repeat(samples[:, None], channels, axis=1).tobytes()
    (tmp_path / "a.wav").write_bytes(wav_bytes(data, rate, channels, bits, form))
    wav = read_audio(tmp_path / "a.wav")
    assert wav.dtype == np.float32 and wav.ndim == 1 and abs(len(wav) - 16000) <= 2
    expected = np.sin(2 * np.pi * 440 * np.arange(len(wav)) / 16000)
    middle = slice(1000, -1000)
    assert np.corrcoef(wav[middle], expected[middle])[0, 1] > 0.999
    assert np.abs(wav).max() == pytest.approx(0.5, abs=0.02) or channels > 2


def test_stereo_is_averaged_and_never_over_full_scale(tmp_path):
    left, right = np.full(16000, 32767, "<i2"), np.full(16000, 32767, "<i2")
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.stack([left, right], 1).tobytes(), 16000, 2))
    assert np.abs(read_audio(tmp_path / "a.wav") - 1).max() < 1e-3
    right[:] = 0
    (tmp_path / "b.wav").write_bytes(wav_bytes(np.stack([left, right], 1).tobytes(), 16000, 2))
    assert np.abs(read_audio(tmp_path / "b.wav") - 0.5).max() < 1e-3


def test_samples_at_the_own_rate_come_out_unchanged(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32768, 5000).astype("<i2")
    (tmp_path / "a.wav").write_bytes(wav_bytes(samples.tobytes(), 16000, 1))
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav"), samples.astype(np.float32) / 32768)


def test_loud_float_sound_is_limited(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(np.full(1600, 3, "<f4").tobytes(), 16000, 1, 32, 3))
    assert np.abs(read_audio(tmp_path / "a.wav")).max() <= 1


def test_gap_in_the_sound_is_silence(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", 16000, layout="mono")
        for start, time in ((0, 0.25), (1.5, 1.75)):
            piece = (clicks(0.5, [0.25], 16000) * 32767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(piece, "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, round(start * 16000), Fraction(1, 16000)
            container.mux(stream.encode(frame))
            assert time == start + 0.25
    wav = read_audio(tmp_path / "a.mkv")
    assert click_times(wav) == pytest.approx([0.25, 1.75], abs=1e-3) and len(wav) == 32000


def test_sound_longer_than_stated_is_kept_and_packing_is_cut(tmp_path, monkeypatch):
    path = write(tmp_path / "a.mp4", [], sound=clicks(1, [0.5]))
    assert len(read_audio(path)) == 16000  # and not 16043, which are what 47 packets of 1024 samples hold
    monkeypatch.setattr(ffmpeg.Source, "stated_end", lambda *_: 0.3)
    assert len(read_audio(path)) > 16000


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_wav_from_a_pipe_says_no_length_and_is_heard_to_its_end(tmp_path, size):
    whole, damage = wav_bytes(bytes(2 * 2205), 22050, 1), []
    (tmp_path / "a.wav").write_bytes(whole.replace(struct.pack("<I", 2 * 2205), struct.pack("<I", size)))
    assert len(read_audio(tmp_path / "a.wav", damage)) == 1600 and damage == ["its sound is silent throughout"]


@pytest.mark.parametrize("options", [{}, {"preset": "medium", "bf": "3", "g": "25"}])
def test_sound_and_pictures_of_files_joined_end_to_end_stay_together(tmp_path, options):
    """The times restart in every part, and the sound of each part is a little longer than its pictures."""
    pictures = [numbered(255 if k == 25 else 0) for k in range(75)]
    part = write(tmp_path / "part.ts", pictures, sound=clicks(3, [1.0]), options=options)
    (tmp_path / "joined.ts").write_bytes(5 * part.read_bytes())
    clip, wav = Video(tmp_path / "joined.ts"), read_audio(tmp_path / "joined.ts")
    shown = numbers(clip)
    flashes = [k / 25 for k in range(1, len(shown)) if shown[k] > shown[k - 1]]
    assert click_times(wav) == pytest.approx(flashes, abs=0.021)
    assert flashes == pytest.approx([1, 4, 7, 10, 13], abs=0.15) and abs(len(shown) - len(wav) / 640) < 4
    backward = range(len(shown) - 1, -1, -20)
    assert numbers(clip.frames(backward)) == [shown[k] for k in backward]


def test_no_sound(tmp_path):
    silent = write(tmp_path / "silent.mp4", [numbered(0)])
    (tmp_path / "empty.wav").write_bytes(wav_bytes(b"", 16000, 1))
    (tmp_path / "text.wav").write_text("no sound at all\n" * 20)
    for name, words in {"silent.mp4": "no sound; give", "empty.wav": "no sound", "text.wav": "not a video"}.items():
        with pytest.raises(UserError, match=words):
            read_audio(tmp_path / name)
    sounding = write(tmp_path / "b.mp4", [numbered(0)], sound=clicks(0.1, []))
    assert not Video(silent).has_audio and Video(sounding).has_audio
    assert sound_file(Video(silent)) == silent and sound_file(Video(sounding)) == sounding
    for path in (silent, sounding):
        path.with_suffix(".wav").write_bytes(wav_bytes(bytes(320), 16000, 1))
    assert sound_file(Video(silent)) == silent.with_suffix(".wav") and sound_file(Video(sounding)) == sounding
    (tmp_path / "short.wav").write_bytes(wav_bytes(bytes(320), 16000, 1))  # 10 ms
    assert len(read_audio(tmp_path / "short.wav")) == 160


def test_pictures(tmp_path):
    picture = np.zeros((30, 40, 3), np.uint8)
    picture[:15, :20] = 255, 0, 0
    for name in ("a.png", "a.jpg", "a.webp", "картинка 1.bmp"):
        data = cv2.imencode(name[-5:].lstrip(" 1"), picture[..., ::-1])[1]
        data.tofile(tmp_path / name)
        [read] = Video(tmp_path / name)
        assert np.abs(read.astype(int) - picture).mean() < 6
    deep = np.full((8, 8), 40000, np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    [read] = Video(tmp_path / "deep.png")
    assert np.abs(read.astype(int) - 40000 // 256).max() <= 1


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("tag", "turns"), [(1, 0), (3, 2), (6, -1), (8, 1)])
def test_picture_of_a_phone_is_upright(tmp_path, tag, turns, mirrored):
    """Its EXIF data is of no kind that PyAV knows."""
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:16, :16] = 255
    upright = np.rot90(stored, turns)
    if mirrored:
        tag, upright = {1: 2, 3: 4, 6: 5, 8: 7}[tag], upright[:, ::-1]
    jpeg = cv2.imencode(".jpg", stored)[1].tobytes()
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, tag, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + orientation + bytes(4)
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    webp, tiff = cv2.imencode(".webp", stored)[1].tobytes(), exif[6:]
    sizes = b"VP8X" + struct.pack("<II", 10, 8) + b"".join((side - 1).to_bytes(3, "little") for side in (48, 32))
    body = b"WEBP" + sizes + webp[12:] + b"EXIF" + struct.pack("<I", len(tiff)) + tiff
    (tmp_path / "a.webp").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    for picture in (*Video(tmp_path / "a.jpg"), *Video(tmp_path / "a.webp")):
        assert np.abs(picture.astype(int) - upright).mean() < 5


def test_a_cameras_picture_is_shrunk_and_a_video_is_not(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((2000, 3000, 3), 77, np.uint8))
    picture, clip = Video(tmp_path / "a.png"), Video(write(tmp_path / "a.mp4", [np.zeros((1200, 1920, 3), np.uint8)]))
    assert (picture.width, picture.height, picture.remarks) == (1764, 1176, ["shrunk to 1764 x 1176 pixels"])
    assert {frame.shape for frame in picture} == {(1176, 1764, 3)}
    assert (clip.width, clip.height, clip.remarks) == (1920, 1200, [])
    cv2.imwrite(str(tmp_path / "b.png"), np.full((2001, 3000, 3), 77, np.uint8))
    picture = Video(tmp_path / "b.png")
    assert (picture.width, picture.height) == (1764, 1176), "1763 x 1176 would be told, and 1764 written"


def test_not_a_picture(tmp_path):
    gif = write(tmp_path / "a.gif", map(numbered, range(3)), codec="gif", pixels="rgb8")
    assert numbers(Video(gif)) == [0, 1, 2]
    (tmp_path / "broken.png").write_bytes(cv2.imencode(".png", numbered(0))[1].tobytes()[:40])
    for path in (tmp_path / "broken.png", tmp_path / "missing.png", tmp_path):
        with pytest.raises(UserError):
            Video(path)


def test_writes_what_it_reads_from_a_real_clip(tmp_path, shared):
    source = shared / "clips" / "vox_00067.mp4"
    clip = Video(source)
    with VideoWriter(tmp_path / "a.mp4", clip.fps, (clip.width, clip.height), [(source, 0.0)]) as writer:
        for picture in clip.frames(range(25)):
            writer.write(picture)
    again = list(Video(tmp_path / "a.mp4"))
    assert len(again) == 25
    for before, after in zip(clip.frames(range(3)), again, strict=False):
        assert (
            np.abs(before.astype(float) - after).mean() < 2
            and np.abs((before.astype(float) - after).mean((0, 1))).max() < 1
        )
    one, two = read_audio(source)[:16000], read_audio(tmp_path / "a.mp4")[:16000]
    shifts = [np.dot(one[100:-100], two[100 + k : 15900 + k]) for k in range(-50, 51)]
    assert abs(int(np.argmax(shifts)) - 50) <= 8  # half a millisecond


def test_more_channels_than_can_be_mixed_are_one_line(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((16000, 9), np.int16), 16000)
    with pytest.raises(UserError, match=r"a\.wav: its sound cannot be mixed \(.*\); give mono or stereo"):
        read_audio(tmp_path / "a.wav")


def test_sound_that_is_damaged_is_told(tmp_path):
    noise = np.random.default_rng(0).integers(-9000, 9000, 48000, dtype=np.int16)
    soundfile.write(tmp_path / "a.flac", noise, 16000)
    whole, damage = (tmp_path / "a.flac").read_bytes(), []
    read_audio(tmp_path / "a.flac", damage)
    assert damage == []
    (tmp_path / "cut.flac").write_bytes(whole[: len(whole) // 2])
    read_audio(tmp_path / "cut.flac", damage)
    assert re.fullmatch(r"its sound ends after 1\.\d of 3\.0 s", damage.pop())
    (tmp_path / "holed.flac").write_bytes(whole[:20000] + bytes(20000) + whole[40000:])
    read_audio(tmp_path / "holed.flac", damage)
    assert "packets of its sound cannot be decoded" in damage[0]


def test_mixed_sounds_start_at_their_seconds():
    tone = [np.full((1, 3000), 0.25, np.float32), np.full((1, 3000), 0.25, np.float32)]
    at_once, later = (np.concatenate(list(islice(blocks(tone, delay, 1), 3)), axis=1)[0] for delay in (0, 5000))
    mixed = at_once + later
    assert (mixed[:5000] == 0.25).all()
    assert (mixed[5000:6000] == 0.5).all()
    assert (mixed[6000:11000] == 0.25).all()
    assert (mixed[11000:] == 0).all()


def test_quality_and_tags_are_those_asked_for(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), dtype=np.uint8)
    sizes = []
    for crf in (10, 40):
        path = tmp_path / f"{crf}.mp4"
        with VideoWriter(path, 25, (64, 64), crf=crf, tags={"title": "A talk", "comment": "x"}) as writer:
            for picture in pictures:
                writer.write(picture)
        sizes.append(path.stat().st_size)
        assert Video(path).tags == {"title": "A talk"}, "comments are not copied"
        with av.open(path) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert stream.codec_context.codec_tag == "avc1"
            assert container.metadata["comment"] == "x"
    assert sizes[0] > 2 * sizes[1]


def packets_of(path):
    with av.open(str(path)) as container:
        packets: list[Any] = [packet for packet in container.demux(audio=0) if packet.size]
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in packets]


@pytest.mark.parametrize("ending", ["mp4", "mov"])
@pytest.mark.parametrize(("rate", "layout"), [(16000, "mono"), (44100, "stereo"), (48000, "stereo")])
def test_whole_aac_track_is_copied(tmp_path, ending, rate, layout):
    sound = clicks(2, [0.5, 1.5], rate, 1 if layout == "mono" else 2)
    source = write(tmp_path / "a.m4a", [], sound=sound, sound_rate=rate, sound_layout=layout)
    path = write_frames(tmp_path / f"b.{ending}", 50, sounds=[(source, 0.0)], copy_sound=True)
    before, after = packets_of(source), packets_of(path)
    assert [data for _, data in after] == [data for _, data in before]
    assert [float(time) for time, _ in after] == pytest.approx([float(time) for time, _ in before], abs=2e-3)
    assert click_times(read_audio(path)) == pytest.approx([0.5, 1.5], abs=2e-3)
    assert numbers(Video(path)) == list(range(50))


def test_other_sounds_are_encoded(tmp_path):
    flac = write(tmp_path / "a.flac", [], sound=clicks(2, [0.5]), sound_codec="flac")
    aac = write(tmp_path / "a.m4a", [], sound=clicks(2, [0.5]))
    late = write(tmp_path / "a.mp4", map(numbered, range(50)), sound=clicks(1, [0.2]), sound_start=0.3)
    for files in ([(flac, 0.0)], [(aac, 0.2)], [(aac, 0.0), (aac, 0.5)], [(late, 0.0)]):
        path = write_frames(tmp_path / "b.mp4", 75, sounds=files, copy_sound=True)
        assert click_times(read_audio(path))[0] == pytest.approx(files[0][1] + 0.5, abs=1e-3)
        assert len(read_audio(path)) == pytest.approx(3 * SAMPLE_RATE, abs=16), "as long as the pictures"


def test_copied_sound_is_written_alongside_the_frames(tmp_path):
    source = write(tmp_path / "a.m4a", [], sound=clicks(4, [1.0], 16000), sound_rate=16000)
    path = write_frames(tmp_path / "a.mp4", 100, sounds=[(source, 0.0)], copy_sound=True)
    with av.open(str(path)) as container:
        packets = [(p.stream.type, float(p.pts * p.time_base)) for p in container.demux() if p.pts is not None]
    assert max(abs(b[1] - a[1]) for a, b in pairwise(packets)) < 0.5
