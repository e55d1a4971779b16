"""The dubbing command with tiny networks: lengths, frames without a face, and one line for each wrong input."""

import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from skimage import data

import drawing
import inference
from face import tracking
from jobs import Speaker
from media.audio import FPS, SAMPLE_RATE, mel_windows
from media.timing import ping_pong, window_frames
from media.video import Video, read_audio
from media.writer import VideoWriter
from models import load
from models.configs import LandmarkGeneratorConfig, RendererConfig
from models.landmark_generator import LandmarkGenerator
from models.lite.renderer import LiteRenderer, LiteRendererConfig
from models.renderer import Renderer
from models.weights import save
from networks import LANDMARK_FILE, RENDERER_FILE, DubConfig, Networks
from runtime import command_line
from runtime.command_line import SettingError
from runtime.device import computes_in_bf16
from tests.media.made_up import write as write_media
from tests.media.test_planes import planes

FACELESS = 3
PORTRAIT = Path(__file__).resolve().parents[1] / "assets" / "portrait.png"


def speech(seconds: float, rate: int = SAMPLE_RATE) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * 180 * time) * (np.sin(2 * np.pi * 3 * time) > 0)).astype(np.float32)


SIZES: dict[str, Any] = {
    "shallow": 4,
    "deep": 8,
    "alignment_deep": 8,
    "modulation": 4,
    "style_hidden": 4,
    "audio_width": 4,
    "kernel": 3,
}


def tiny(**more: Any) -> RendererConfig:
    return RendererConfig(**SIZES, **more)


def tiny_lite(**more: Any) -> LiteRendererConfig:
    return LiteRendererConfig(**SIZES, **more)


def write_wav(path: Path, wav: np.ndarray) -> Path:
    import soundfile

    soundfile.write(path, wav, SAMPLE_RATE)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest networks: the tests check everything around them."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    small = LandmarkGeneratorConfig(width=32, layers=1, heads=2, feed_forward=32)
    save(LandmarkGenerator(small), folder / "landmark_generator.safetensors", {})
    save(LiteRenderer(tiny_lite()), folder / "renderer.safetensors", {})
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 frames of a real face that drifts, and 3 frames of noise in the middle."""
    path = tmp_path_factory.mktemp("video") / "face.mp4"
    face = cv2.resize(data.astronaut()[:320, 60:380], (256, 256), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    with VideoWriter(path, FPS, (256, 256)) as writer:
        for i in range(12 + FACELESS):
            shift = np.array([[1, 0, i], [0, 1, i / 2]], np.float64)
            moved = cv2.warpAffine(face, shift, (256, 256), borderMode=cv2.BORDER_REPLICATE)
            writer.write(noise if 6 <= i < 6 + FACELESS else moved)
    return path


def dubber_of(weights: Path, **settings: Any) -> inference.Dubber:
    return inference.Dubber.from_weights(weights, DubConfig(device="cpu", **settings))


def call(monkeypatch: pytest.MonkeyPatch, *flags: object) -> None:
    monkeypatch.setattr(sys, "argv", ["inference.py", *map(str, flags)])
    command_line.run(inference.main, inference.DubCommand)


def test_gaps_use_the_nearest_face() -> None:
    found = np.array([False, True, False, False, True, False])
    assert tracking.fill_gaps(found).tolist() == [1, 1, 1, 4, 4, 4]


def test_overlapping_windows_are_averaged() -> None:
    """Of a network that answers the position in its window, each frame gets the mean over the windows that hold it."""

    class MarkPosition(torch.nn.Module):
        config = LandmarkGeneratorConfig()

        def encode_reference(self, reference: torch.Tensor) -> torch.Tensor:
            return reference.new_zeros(1, 1, 1)

        def encode_audio(self, mel: torch.Tensor) -> torch.Tensor:
            return mel[:, :, 0, :1, 0]

        def encode_pose(self, pose: torch.Tensor) -> torch.Tensor:
            return pose[:, :, 0, :1]

        def predict(self, audio, posture, reference_tokens, pose, reference):
            position = posture[:, :, None].mean(dim=1, keepdim=True).expand(-1, pose.shape[1], 40, 2)
            return position, position[:, :, :17]

    dubber: Any = Networks.__new__(Networks)
    dubber.landmark_generator, dubber.device = MarkPosition(), torch.device("cpu")
    frames = np.zeros((7, 131, 2), np.float32)
    frames[3, 0, 0] = 5
    predicted = dubber.predict_landmarks(frames, frames[:1], np.zeros((80, 30), np.float32))
    assert predicted[3, 100, 0] == pytest.approx(1)  # all five windows that hold frame 3 see its mark
    assert predicted[1, 100, 0] == pytest.approx(3 / 4)  # of four windows, those around frames 1, 2 and 3 do
    assert predicted[0, 100, 0] < predicted[1, 100, 0] < predicted[2, 100, 0] < predicted[3, 100, 0]
    assert np.array_equal(predicted[:, :74], frames[:, :74])  # the pose prior stays


def test_tokens_shared_between_windows_change_nothing(weights: Path) -> None:
    """Each mel window and pose is encoded once; the result equals that of the network on whole windows."""
    dubber = dubber_of(weights).networks
    rng = np.random.default_rng(0)
    frames, references = rng.random((6, 131, 2), np.float32), rng.random((3, 131, 2), np.float32)
    mel = rng.normal(size=(80, 40)).astype(np.float32)
    predicted = dubber.predict_landmarks(frames, references, mel)
    expected: list[list[np.ndarray]] = [[] for _ in frames]
    for i, window in enumerate(window_frames(6, 5, FPS)):
        inputs = (mel_windows(mel, np.arange(5) - 2 + i), frames[window][:, :74], references)
        with torch.inference_mode():
            lip, jaw = dubber.landmark_generator(*(torch.from_numpy(np.ascontiguousarray(x))[None] for x in inputs))
        for position, frame in enumerate(window):
            expected[frame].append(torch.cat([jaw, lip], 2)[0, position].numpy())
    for frame, content in enumerate(expected):
        np.testing.assert_allclose(predicted[frame, 74:], np.mean(content, axis=0), atol=1e-5)


@pytest.mark.parametrize(("seconds", "frames"), [(0.4, 10), (1.21, 31)])
def test_output_is_as_long_as_the_sound(
    seconds: float, frames: int, video: Path, weights: Path, tmp_path: Path
) -> None:
    wav = write_wav(tmp_path / "speech.wav", speech(seconds))
    dubber = dubber_of(weights, num_references=2)
    summary = dubber.dub(video, wav, tmp_path / "out.mp4")
    order = ping_pong(15, frames)
    assert summary.frames == frames
    assert summary.frames_without_face == np.isin(order, [6, 7, 8]).sum()
    [remark] = summary.remarks
    assert re.fullmatch(r".*face\.mp4: the shot changes at 0\.2.* s; the face in each .*", remark)
    assert sum(1 for _ in Video(tmp_path / "out.mp4")) == frames
    sound = read_audio(tmp_path / "out.mp4")
    assert abs(len(sound) / SAMPLE_RATE - frames / FPS) < 0.05
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert "Synthetic" in container.metadata["comment"]
    assert not list(tmp_path.glob("*tmp*"))
    for output, why in ((tmp_path / "out.mp4", "overwrite"), (tmp_path / "no" / "out.mp4", "does not exist")):
        with pytest.raises(command_line.UserError, match=why):  # before any work, from Python too
            dubber.dub(tmp_path / "out.mp4", tmp_path / "absent.wav", str(output))


def test_faceless_frames_pass_through_and_only_the_face_changes(video: Path, weights: Path, tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "speech.wav", speech(0.6))
    dubber = dubber_of(weights, num_references=1, lossless=True)
    dubber.dub(video, wav, tmp_path / "out.mkv")
    before, after = list(Video(video)), list(Video(tmp_path / "out.mkv"))
    for i in range(6, 9):
        assert np.array_equal(before[i], after[i])
    change = np.abs(before[0].astype(int) - after[0]).max(axis=2)
    assert change.max() > 0
    assert change[:30].max() == 0 and change[:, :20].max() == 0  # far from the face


def two_people(path: Path, frames: int = 10) -> Path:
    """The same face twice, side by side."""
    face = cv2.resize(data.astronaut()[:320, 60:380], (256, 256), interpolation=cv2.INTER_AREA)
    with VideoWriter(path, FPS, (512, 256), lossless=True) as writer:
        for _ in range(frames):
            writer.write(np.hstack([face, face]))
    return path


def changes(before: Path, after: Path, columns: slice) -> list[bool]:
    """For each frame of `after`, whether it differs from that of `before` in these columns."""
    pairs = zip(Video(before), Video(after), strict=False)
    return [bool((old[:, columns] != new[:, columns]).any()) for old, new in pairs]


def test_two_speakers_are_redrawn_while_their_own_sound_lasts(weights: Path, tmp_path: Path) -> None:
    video = two_people(tmp_path / "two.mkv")
    wav = write_wav(tmp_path / "speech.wav", speech(0.2))
    speakers = [Speaker(wav, "left"), Speaker(wav, "right", start=0.16)]
    dubber = dubber_of(weights, num_references=1, lossless=True)
    summary = dubber.dub_speakers(video, speakers, tmp_path / "out.mkv")
    assert (summary.frames, summary.frames_without_face) == (9, 0)
    assert changes(video, tmp_path / "out.mkv", slice(0, 256)) == [True] * 5 + [False] * 4
    assert changes(video, tmp_path / "out.mkv", slice(256, None)) == [False] * 4 + [True] * 5
    sound = read_audio(tmp_path / "out.mkv")
    quiet = read_audio(wav)
    assert np.abs(sound[: len(quiet)]).max() > 0.5 * np.abs(quiet).max()
    dubber_of(weights, num_references=1, panel=True).dub_speakers(video, speakers, tmp_path / "panel.mp4")
    panels = [frame[:, 512:].std() for frame in Video(tmp_path / "panel.mp4")]
    assert min(panels) > 20, "each frame shows the panel of a speaker"
    dubber = dubber_of(weights, num_references=1, keep_spans=((0.16, 0.2),))
    summary = dubber.dub_speakers(video, speakers, tmp_path / "kept.mkv")
    assert summary.frames_without_face == 1, "a frame counts once, also if both speak in it"


def test_speech_may_start_later_and_end_before_the_video(weights: Path, tmp_path: Path) -> None:
    video = two_people(tmp_path / "two.mkv")
    wav = write_wav(tmp_path / "speech.wav", speech(0.2))
    dubber = dubber_of(weights, num_references=1, lossless=True, face="left", start=0.08, keep_length=True)
    summary = dubber.dub(video, wav, tmp_path / "out.mkv")
    assert summary.frames == 10
    assert changes(video, tmp_path / "out.mkv", slice(None)) == [False] * 2 + [True] * 5 + [False] * 3
    assert np.abs(read_audio(tmp_path / "out.mkv")[: int(0.07 * SAMPLE_RATE)]).max() < 0.01


def test_named_spans_stay_as_they_are(weights: Path, tmp_path: Path) -> None:
    video = two_people(tmp_path / "two.mkv")
    wav = write_wav(tmp_path / "speech.wav", speech(0.4))
    spans = ((0.0, 0.04), (0.16, 0.24))
    summary = dubber_of(weights, num_references=1, lossless=True, face="left", keep_spans=spans).dub(
        video, wav, tmp_path / "out.mkv"
    )
    expected = [False] + [True] * 3 + [False] * 2 + [True] * 4
    assert changes(video, tmp_path / "out.mkv", slice(None)) == expected
    assert summary.frames_without_face == 3
    for end in (1.0, math.inf):
        with pytest.raises(SettingError, match=rf"2.0 to {end} is not a span"):
            DubConfig(keep_spans=((2.0, end),))


def test_whole_aac_sound_is_copied(video: Path, weights: Path, tmp_path: Path) -> None:
    aac = write_media(tmp_path / "speech.m4a", [], sound=speech(0.4)[None], sound_rate=SAMPLE_RATE)

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    dubber_of(weights, num_references=1).dub(video, aac, tmp_path / "copied.mp4")
    dubber_of(weights, num_references=1, keep_length=True).dub(video, aac, tmp_path / "longer.mp4")
    assert packets(tmp_path / "copied.mp4") == packets(aac)
    assert packets(tmp_path / "longer.mp4") != packets(aac)
    assert abs(len(read_audio(tmp_path / "longer.mp4")) - 0.6 * SAMPLE_RATE) < 0.05 * SAMPLE_RATE


def test_jobs_share_the_networks_and_the_exit_code_tells_of_failures(
    video: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wav = write_wav(tmp_path / "speech.wav", speech(0.2))
    rows = ["video,audio,output", f"{video},{wav},one.mp4", f"{video},absent.wav,two.mp4", f"{video},{wav},three.mp4"]
    (tmp_path / "jobs.csv").write_text("\n".join(rows))
    flags = ["--jobs", tmp_path / "jobs.csv", "--weights", weights, "--num-references", 1, "--device", "cpu"]
    for expected in ("one.mp4: 5 frames", "one.mp4: exists already"):
        with pytest.raises(SystemExit) as end:
            call(monkeypatch, *flags)
        assert end.value.code == 1
        printed = capsys.readouterr()
        assert expected in printed.out
        assert "[2/3]" in printed.err and "absent.wav" in printed.err and "1 of 3 jobs failed" in printed.err
    assert (tmp_path / "three.mp4").exists() and not (tmp_path / "two.mp4").exists()
    for flag, value in (("--video", video), ("--start", 1)):
        with pytest.raises(SystemExit) as end:
            call(monkeypatch, *flags, flag, value)
        assert end.value.code == 2
        assert "--jobs: leave out --video" in capsys.readouterr().err


def test_references_are_chosen_from_more_frames_than_in_training(
    video: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 frames show a face: all are candidates if the renderer chooses, else only as many as it uses."""
    encode, counts = Renderer.encode_references, []
    monkeypatch.setattr(Renderer, "encode_references", lambda self, images, *of: (
        counts.append(images.shape[1]), encode(self, images, *of))[1])  # fmt: skip
    wav = write_wav(tmp_path / "speech.wav", speech(0.6))
    landmark_generator = load(weights / "landmark_generator.safetensors")
    assert isinstance(landmark_generator, LandmarkGenerator)
    for candidates, num_candidates in [(4, 100), (4, None), (0, 100)]:
        renderer = LiteRenderer(tiny_lite(candidates=candidates)) if candidates else Renderer(tiny())
        config = DubConfig(device="cpu", num_references=2, num_candidates=num_candidates)
        dubber = inference.Dubber(Networks(landmark_generator, renderer, config))
        dubber.dub(video, wav, tmp_path / "out.mp4")
    assert counts == [12, 4, 2]


@pytest.mark.parametrize(("share", "references"), [(0.2, 2), (0.01, 1), (1.0, 12)])
def test_a_share_of_the_frames_may_be_the_references(
    share: float, references: int, video: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = []
    encode = Networks.encode_references
    monkeypatch.setattr(
        Networks,
        "encode_references",
        lambda self, images, *rest: counts.append(len(images)) or encode(self, images, *rest),
    )
    wav = write_wav(tmp_path / "speech.wav", speech(0.8))
    dubber_of(weights, reference_share=share, num_references=2).dub(video, wav, tmp_path / "out.mp4")
    assert counts == [references]


@pytest.mark.parametrize(
    ("setting", "value"),
    [("reference_share", 0), ("reference_share", 1.1), ("start", float("inf")), ("start", -1), ("crf", 52)],
)
def test_impossible_settings_name_themselves(setting: str, value: float) -> None:
    with pytest.raises(command_line.SettingError, match=f"{setting}: {value}"):
        replace(DubConfig(), **{setting: value})


def test_detail_comes_from_references_where_the_face_is_large(weights: Path, tmp_path: Path) -> None:
    """With a picture as its own reference, the mouth keeps edges that a crop of 128 pixels would blur."""
    wav = write_wav(tmp_path / "speech.wav", speech(0.2))
    picture = tmp_path / "portrait.png"
    cv2.imwrite(str(picture), cv2.resize(data.astronaut()[:240, 100:340, ::-1], (720, 720)))
    landmark_generator = load(weights / "landmark_generator.safetensors")
    assert isinstance(landmark_generator, LandmarkGenerator)
    sharpness = []
    for candidates, detail, use_warping in [(4, True, True), (4, False, True), (4, True, False)]:
        torch.manual_seed(0)
        renderer = LiteRenderer(tiny_lite(candidates=candidates, use_warping=use_warping))
        config = DubConfig(device="cpu", num_references=1, detail=detail, lossless=True)
        dubber = inference.Dubber(Networks(landmark_generator, renderer, config))
        dubber.dub(picture, wav, tmp_path / "out.mkv")
        frame = next(iter(Video(tmp_path / "out.mkv")))
        sharpness.append(cv2.Laplacian(frame[400:600], cv2.CV_32F).var())
    sharp, *others = sharpness
    assert all(sharp > 1.05 * other for other in others)


def test_half_precision_looks_the_same(weights: Path) -> None:
    landmark_generator, renderer = (
        load(weights / "landmark_generator.safetensors"),
        load(weights / "renderer.safetensors"),
    )
    assert isinstance(landmark_generator, LandmarkGenerator) and isinstance(renderer, Renderer)
    rng = np.random.default_rng(0)
    pictures, points = rng.integers(0, 255, (3, 128, 128, 3), dtype=np.uint8), rng.random((3, 131, 2), np.float32)
    sketches, mel = rng.random((1, 5, 128, 128, 3)) * 224, rng.normal(size=(1, 1, 80, 16)).astype(np.float32)
    faces = []
    for half in (False, True):
        drawer = Networks(landmark_generator, renderer, DubConfig(device="cpu", half=half))
        assert drawer.half == (half and computes_in_bf16(torch.device("cpu")))
        references = drawer.encode_references(pictures, points, np.tile([0, 0, 128, 128], (3, 1)))
        faces.append(drawer.draw_faces(pictures[:1], points[:1], sketches, references, mel)[0])
    difference = np.abs(faces[0] - faces[1])
    assert difference.mean() < 1 / 255 and (difference.max() > 0) == drawer.half


def test_picture_is_dubbed_with_a_panel(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    wav = write_wav(tmp_path / "speech.wav", speech(0.3))
    flags = ["--video", PORTRAIT, "--audio", wav, "--output", tmp_path / "o.mp4", "--weights", weights, "--panel"]
    call(monkeypatch, *flags)
    assert Video(tmp_path / "o.mp4").width == 512 + 128
    assert "8 frames, 0 left unchanged" in capsys.readouterr().out


def test_damage_of_the_video_is_reported(
    video: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wav, cut = write_wav(tmp_path / "speech.wav", speech(0.6)), tmp_path / "cut.mp4"
    whole = video.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    flags = ["--video", cut, "--audio", wav, "--output", tmp_path / "o.mp4", "--weights", weights]
    call(monkeypatch, *flags, "--num-references", 1)
    out = capsys.readouterr().out
    assert "15 frames" in out and re.search(r"cut\.mp4: damaged, ", out)


def test_stage_1_sees_a_clipped_face_whole(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cv2.imwrite(str(tmp_path / "edge.png"), data.astronaut()[:320, 205:380, ::-1])  # cut through her right cheek
    inputs, predict = [], Networks.predict_landmarks
    monkeypatch.setattr(Networks, "predict_landmarks", lambda *a: inputs.append(a[1]) or predict(*a))
    dubber = dubber_of(weights, num_references=1)
    dubber.dub(tmp_path / "edge.png", write_wav(tmp_path / "a.wav", speech(0.3)), tmp_path / "o.mp4")
    assert 0 < inputs[0].min() < 0.1 and 0.9 < inputs[0].max() < 1, "all points lie inside the box that stage 1 sees"


def test_file_names_need_not_be_utf8(weights: Path, tmp_path: Path) -> None:
    try:
        picture = tmp_path / os.fsdecode(b"p\xe9.png")
        picture.write_bytes(PORTRAIT.read_bytes())
    except OSError:
        pytest.skip("this file system refuses such names")
    dubber = dubber_of(weights, num_references=1)
    output = tmp_path / os.fsdecode(b"o\xe9.mp4")
    summary = dubber.dub(picture, write_wav(tmp_path / "a.wav", speech(0.3)), output)
    assert summary.frames == 8 and summary.frames_without_face == 0 and output.is_file()


def test_each_shot_has_its_own_references(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cameras take turns, then it is dark: no face is drawn from the other camera's pictures."""
    face = cv2.resize(data.astronaut()[:320, 60:380], (192, 192), interpolation=cv2.INTER_AREA)
    near, far = np.zeros((2, 256, 256, 3), np.uint8)
    near[:192, :192], far[64:, 64:], near[..., 2], far[..., 0] = face, face[:, ::-1], 0, 0  # yellow and cyan
    pictures = [near, np.roll(near, 3, 1), far, np.roll(near, 6, 1), np.zeros_like(near), far]
    with VideoWriter(tmp_path / "shots.mkv", FPS, (256, 256), lossless=True) as writer:
        for picture in pictures:
            writer.write(picture)
    monkeypatch.setattr(inference, "SHORTEST_SHOT", 1)
    encode, predict = Networks.encode_references, Networks.predict_landmarks
    encoded, predicted = [], []
    monkeypatch.setattr(
        Networks,
        "encode_references",
        lambda self, images, *of: encoded.append(images) or encode(self, images, *of),
    )
    monkeypatch.setattr(Networks, "predict_landmarks", lambda *inputs: predicted.append(inputs[1:]) or predict(*inputs))
    dubber = dubber_of(weights, num_references=5, lossless=True, panel=True)
    wav = write_wav(tmp_path / "speech.wav", speech(0.24))
    summary = dubber.dub(tmp_path / "shots.mkv", wav, tmp_path / "o.mkv")
    assert (summary.frames, summary.frames_without_face) == (6, 1)
    assert "changes at 0.1, 0.1, 0.2, 0.2 s" in summary.remarks[0]
    assert [len(images) for images in encoded] == [3, 2], "once for each shot, though it comes back"
    assert encoded[0][..., 2].max() == encoded[1][..., 0].max() == 0, "references of one colour"
    assert [(first, len(points), len(own)) for points, own, _, _, first in predicted] == [
        (0, 2, 3), (2, 1, 2), (3, 1, 3), (5, 1, 2),
    ]  # fmt: skip
    assert list(Video(tmp_path / "o.mkv"))[4].max() == 0
    monkeypatch.undo()
    dubber = dubber_of(weights, num_references=5, lossless=True)
    summary = dubber.dub(tmp_path / "shots.mkv", wav, tmp_path / "o.mkv")
    after = list(Video(tmp_path / "o.mkv"))
    changed = [(a != b).any() for a, b in zip(pictures, after, strict=True)]
    assert changed == [True, True, False, True, False, False], "in a shot of two frames nothing is drawn"
    assert summary.frames_without_face == 3


def test_long_shots_are_drawn_piece_by_piece(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pictures as if the landmarks of the whole shot had been predicted at once, in less memory."""
    predict = Networks.predict_landmarks
    lengths = []
    monkeypatch.setattr(
        Networks, "predict_landmarks", lambda *inputs: lengths.append(len(inputs[1])) or predict(*inputs)
    )
    dubber = dubber_of(weights, num_references=1, lossless=True)
    wav = write_wav(tmp_path / "speech.wav", speech(1.6))
    dubber.dub(PORTRAIT, wav, tmp_path / "whole.mkv")
    monkeypatch.setattr(drawing, "PIECE", 8)
    dubber.dub(PORTRAIT, wav, tmp_path / "pieces.mkv")
    assert max(lengths[1:]) < lengths[0]
    whole, pieces = (np.stack(list(Video(tmp_path / name))) for name in ("whole.mkv", "pieces.mkv"))
    assert np.abs(whole.astype(int) - pieces).max() <= 1


@pytest.mark.parametrize(
    ("flag", "kind", "message"),
    [
        ("--video", "missing", "absent.mp4"),
        ("--video", "folder", "folder"),
        ("--video", "text", "text.mp4"),
        ("--video", "noise", "no face was found (frames searched: 3)"),
        ("--audio", "missing", "absent.mp4"),
        ("--audio", "empty", "empty.wav"),
        ("--audio", "10ms", "0.2"),
        ("--output", "nowhere", "--output"),
        ("--output", "folder", "--output"),
        ("--weights", "missing", "landmark_generator.safetensors"),
        ("--weights", "other", "landmark_generator.safetensors"),
        ("--weights", "truncated", "renderer.safetensors"),
        ("--device", "nonsense", "device nonsense"),
        ("--num-references", "0", "--num-references"),
        ("--num-candidates", "0", "--num-candidates"),
        ("--face", "nonsense", "face"),
    ],
)
def test_wrong_input_is_one_line(
    flag: str,
    kind: str,
    message: str,
    video: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    flags: dict[str, object] = {
        "--video": video,
        "--audio": write_wav(tmp_path / "speech.wav", speech(0.4)),
        "--output": tmp_path / "out.mp4",
        "--weights": weights,
        "--device": "cpu",
    }
    bad: object = tmp_path / "absent.mp4"
    if kind == "folder":
        bad = tmp_path
    elif kind == "text":
        bad = tmp_path / "text.mp4"
        bad.write_text("not a video")
    elif kind == "noise":
        bad = tmp_path / "noise.mp4"
        with VideoWriter(bad, FPS, (128, 128)) as writer:
            for i in range(3):
                writer.write(np.random.default_rng(i).integers(0, 255, (128, 128, 3), dtype=np.uint8))
    elif kind == "empty":
        bad = tmp_path / "empty.wav"
        bad.write_bytes(b"")
    elif kind == "10ms":
        bad = write_wav(tmp_path / "short.wav", speech(0.01))
    elif kind == "nowhere":
        bad = tmp_path / "no" / "such" / "out.mp4"
    elif kind in {"other", "truncated"}:
        bad = tmp_path / "weights"
        bad.mkdir()
        first, second = ("renderer", "renderer") if kind == "other" else ("landmark_generator", "renderer")
        whole = (weights / f"{second}.safetensors").read_bytes()
        (bad / "landmark_generator.safetensors").write_bytes((weights / f"{first}.safetensors").read_bytes())
        (bad / "renderer.safetensors").write_bytes(whole if kind == "other" else whole[: len(whole) // 2])
    elif kind in {"nonsense", "0"}:
        bad = kind
    flags[flag] = bad
    before = set(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, *[x for pair in flags.items() for x in pair])
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0], lines
    assert not any("Traceback" in line for line in lines)
    assert set(tmp_path.rglob("*")) == before  # nothing half-written


def test_too_little_memory_is_one_line(
    video: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA")

    monkeypatch.setattr(Networks, "draw_faces", refuse)
    wav = write_wav(tmp_path / "speech.wav", speech(0.4))
    flags = ["--video", video, "--audio", wav, "--output", tmp_path / "o.mp4", "--weights", weights, "--device", "cpu"]
    with pytest.raises(SystemExit) as ended:
        call(monkeypatch, *flags)
    assert ended.value.code == 2
    assert "--batch-size 2, --num-candidates 100: too little memory on cpu" in capsys.readouterr().err
    assert not (tmp_path / "o.mp4").exists()


def test_stage_1_serves_a_renderer_of_any_size(weights: Path, tmp_path: Path) -> None:
    for name in (LANDMARK_FILE, RENDERER_FILE):
        (tmp_path / name).write_bytes((weights / name).read_bytes())
    save(Renderer(tiny(size=64)), tmp_path / "renderer.safetensors", {})
    assert dubber_of(tmp_path).networks.size == 64


def test_equal_mel_windows_are_encoded_once(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dubber, counts = dubber_of(weights).networks, []
    encode = dubber.landmark_generator.encode_audio
    monkeypatch.setattr(
        dubber.landmark_generator, "encode_audio", lambda mel: counts.append(mel.shape[1]) or encode(mel)
    )
    faces = np.random.default_rng(0).random((120, 131, 2)).astype(np.float32)
    mel = np.random.default_rng(1).uniform(-4, 4, (80, 330)).astype(np.float32)
    dubber.predict_landmarks(faces, faces[:15], mel, fps=30000 / 1001)
    assert sum(counts) < 80 * 4.4, "one window for each column of 4 s and its edges"


def test_interruption_leaves_no_file_and_no_thread(
    video: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = VideoWriter.write, []

    def interrupt(self: VideoWriter, frame: np.ndarray) -> None:
        write(self, frame)
        written.append(frame)
        if len(written) == 3:
            raise KeyboardInterrupt

    wav = write_wav(tmp_path / "speech.wav", speech(2))
    before = set(tmp_path.iterdir())
    threads = threading.active_count()
    monkeypatch.setattr(VideoWriter, "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        dubber_of(weights).dub(video, wav, tmp_path / "out.mp4")
    assert set(tmp_path.iterdir()) == before
    assert threading.active_count() == threads


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_the_command_cleanly(number: signal.Signals, code: int, tmp_path: Path) -> None:
    wav = write_wav(tmp_path / "speech.wav", speech(60))
    root = PORTRAIT.parents[1]
    flags = ["--video", str(PORTRAIT), "--audio", str(wav), "--output", str(tmp_path / "out.mp4")]
    command = subprocess.Popen([sys.executable, "inference.py", *flags], cwd=root, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if list(tmp_path.glob(".*.part.mp4")):
            break
        time.sleep(0.1)
    time.sleep(3)
    assert command.poll() is None
    command.send_signal(number)
    assert command.wait(30) == code
    assert list(tmp_path.iterdir()) == [wav]


def test_second_sound_needs_no_second_search(
    video: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = []
    for cache in (None, tmp_path / "tracks", tmp_path / "tracks"):
        dubber = dubber_of(weights, num_references=2, track_cache=cache, lossless=True)
        first = write_wav(tmp_path / "first.wav", speech(1))
        second = write_wav(tmp_path / "second.wav", speech(0.5))
        if len(frames) == 1:
            dubber.dub(video, first, tmp_path / "first.mkv")
            monkeypatch.setattr(inference, "track_faces", lambda *_: pytest.fail("searched again"))
        summary = dubber.dub(video, second, tmp_path / "out.mkv")
        frames.append(list(Video(tmp_path / "out.mkv")))
    np.testing.assert_array_equal(frames[1], frames[0])
    assert summary.frames == 13 and summary.frames_without_face == 3


def test_outside_the_face_no_sample_changes_before_encoding(
    video: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = VideoWriter.write, []

    def keep(self: VideoWriter, frame: Any) -> None:
        written.append([plane.copy() for plane in planes(frame)])
        write(self, frame)

    monkeypatch.setattr(VideoWriter, "write", keep)
    dubber_of(weights, num_references=1).dub(video, write_wav(tmp_path / "a.wav", speech(0.6)), tmp_path / "out.mp4")
    sources = Video(video).pictures(range(15))
    boxes = tracking.track_faces(Video(video)).boxes
    assert len(written) == 15
    for number, (source, new_planes, box) in enumerate(zip(sources, written, boxes, strict=True)):
        for plane, new, step in zip(planes(source), new_planes, (1, 2, 2), strict=True):
            differences = np.argwhere(plane != new) * step
            assert (len(differences) > 0) == (number not in range(6, 9))
            if len(differences):
                assert (differences >= box[[1, 0]]).all() and (differences + step <= box[[3, 2]]).all()
