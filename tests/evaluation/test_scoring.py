"""One clip scored with small stand-ins for the networks whose files are not here."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluation import scoring
from evaluation.paper import over_all
from evaluation.scoring import Options, Scorers
from face.tracking import track_faces
from media.audio import SAMPLE_RATE
from media.video import Video
from metrics import syncnet
from metrics.landmarks68 import COUNT
from runtime.command_line import UserError

from .conftest import frame, write

FRAMES = 8
WAV = np.random.default_rng(0).standard_normal(FRAMES * SAMPLE_RATE // 25).astype(np.float32) * 0.1


class Colours(nn.Module):
    """Mean colours, (n, 3)."""

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.mean((2, 3))


class TwoStreams(nn.Module):
    """In place of SyncNet: brightness over time, and the sound's energy."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def embed_lips(self, frames: Tensor) -> Tensor:
        return frames.mean((1, 2, 3, 4))[:, None].expand(-1, syncnet.EMBEDDING) / 255

    def embed_sound(self, mfcc: Tensor) -> Tensor:
        return mfcc.mean((1, 2, 3))[:, None].expand(-1, syncnet.EMBEDDING)


def embed(faces: np.ndarray) -> np.ndarray:
    vectors = faces.mean((1, 2)).astype(float)  # colours
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def scorers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scorers:
    monkeypatch.setattr("checkpoints.registry.FOLDER", tmp_path)
    monkeypatch.delenv("IP_LAP_WEIGHTS", raising=False)
    monkeypatch.setattr("evaluation.scoring.BATCH", 4)
    made = Scorers(Options(points="68"))
    assert len(made.missing) == 7, "five columns, and the two files of the 68 points"
    made.embedder = embed  # pyright: ignore[reportAttributeAccessIssue]
    made.inception = Colours()  # pyright: ignore[reportAttributeAccessIssue]
    made.syncnet = TwoStreams()  # pyright: ignore[reportAttributeAccessIssue]
    return made


@pytest.mark.slow
def test_every_column_with_stand_ins(scorers: Scorers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = write(tmp_path / "original.mp4", [frame(i + 2) for i in range(FRAMES)])
    bright = write(tmp_path / "bright.mp4", [frame(i + 2, 30) for i in range(FRAMES)])
    track = track_faces(Video(original))
    pools: scoring.Pools = {}

    itself = scorers.score("one", original, track, original, WAV, pools)
    assert (itself.reason, itself.frames, itself.produced, itself.wanted) == ("", FRAMES, FRAMES, FRAMES)
    assert itself.values["PSNR"] == pytest.approx(80)
    assert itself.values["CSIM"] == pytest.approx(1)
    assert "LipLMD" not in itself.values, "the files for the points asked for are not here"
    made, real = pools["FID"]
    assert real.count == made.count == FRAMES
    np.testing.assert_array_equal(real.total, made.total)

    scorers.options = replace(scorers.options, pairs="set")
    other = scorers.score("one", original, track, bright, WAV, pools)
    assert 15 < other.values["PSNR"] < 20  # 20 log10(255 / 30) = 18.6, where nothing saturates
    assert 0.8 < other.values["CSIM"] < 1
    made, real = pools["FID"]
    assert (made.total > real.total).all()
    vectors = pools["CSIM"]
    assert over_all({"CSIM": vectors}) == {"CSIM": pytest.approx(vectors[0].mean @ vectors[1].mean)}
    assert vectors[0].count == FRAMES
    assert {"LSE-C", "LSE-D", "offset"} <= other.values.keys()

    dubbed = scorers.score("one", original, track, bright, WAV, {}, compare=False)
    assert dubbed.values.keys() == {"LSE-C", "LSE-D", "offset", "silence", "articulation", "jitter"}, "nothing in step"
    assert dubbed.values["LSE-D"] == pytest.approx(other.values["LSE-D"], rel=1e-4)

    scorers.options = replace(scorers.options, sync="pipeline")
    short = scorers.score("one", original, track, bright, WAV, {}, compare=False)
    assert "LSE-C" not in short.values
    assert short.note == "under 50 frames with a face: no LSE"

    (tmp_path / "broken.mp4").write_bytes(b"no video")
    broken = scorers.score("one", original, track, tmp_path / "broken.mp4", WAV, {})
    assert "broken.mp4" in broken.reason
    assert (broken.produced, broken.values) == (0, {})
    monkeypatch.setattr(scoring.lip_motion, "motion", lambda *_, **__: 1 / 0)
    assert scorers.score("one", original, track, bright, WAV, pools).reason
    assert [pool.count for pool in pools["FID"]] == [2 * FRAMES] * 2, "of a clip that failed half-way FID has no frames"
    monkeypatch.setattr(scoring, "track_faces", lambda _: 1 / 0)  # what nobody foresaw ends no table either
    assert scorers.score("one", original, track, bright, WAV, {}).reason.startswith("ZeroDivisionError: ")


@pytest.mark.slow
def test_another_frame_rate_is_said(scorers: Scorers, tmp_path: Path) -> None:
    original = write(tmp_path / "original.mp4", [frame(i + 2) for i in range(5)])
    faster = write(tmp_path / "faster.mp4", [frame(i + 2) for i in range(10)], fps=50)
    score = scorers.score("one", original, track_faces(Video(original)), faster, WAV[: 5 * SAMPLE_RATE // 25], {})
    assert score.note == "50 frames a second, read at 25"
    assert (score.reason, score.frames) == ("", 5)


@pytest.mark.slow
def test_another_framing_of_the_same_size_is_seen(scorers: Scorers, tmp_path: Path) -> None:
    scorers.options = Options()
    original = write(tmp_path / "original.mp4", [frame(i + 2) for i in range(3)])
    cut = [cv2.resize(frame(i + 2)[30:170, 40:180], (200, 200)) for i in range(3)]
    near = write(tmp_path / "near.mp4", cut)
    score = scorers.score("one", original, track_faces(Video(original)), near, WAV[: 3 * SAMPLE_RATE // 25], {})
    assert score.note == "framed otherwise, 200 x 200, compared by its own face boxes"
    assert score.values["LipLMD"] < 0.03
    assert score.values["PSNR"] > 18


@pytest.mark.slow
def test_frames_without_a_face_weigh_nothing_in_the_means_over_frames(scorers: Scorers, tmp_path: Path) -> None:
    scorers.options = Options()
    frames = [frame(i + 2) for i in range(6)]
    frames[2] = np.full_like(frames[2], 90)
    original = write(tmp_path / "original.mp4", frames)
    track = track_faces(Video(original))
    sound = WAV[: 6 * SAMPLE_RATE // 25]
    score = scorers.score("one", original, track, original, sound, {})
    assert (score.frames, score.faceless, score.produced) == (5, 1, 6)
    scorers.options = Options(crop="frame")
    sizes: list[int] = []
    scorers.lpips = {"LPIPS": lambda made, _: sizes.append(len(made)) or torch.zeros(len(made))}  # pyright: ignore
    score = scorers.score("one", original, track, original, sound, {})
    assert (score.frames, score.faceless, score.produced) == (6, 1, 6)
    assert sizes == [1] * 6, "whole frames are many: one at a time"


def test_a_device_that_is_not_here_is_one_line() -> None:
    with pytest.raises(UserError, match=r"--score\.device cuda:99"):
        Scorers(Options(device="cuda:99"))


@pytest.mark.slow
def test_68_points_shifted_by_d_pixels(scorers: Scorers, tmp_path: Path) -> None:
    """The output's points lie 3 pixels right and 4 below the original's: 5 over the crop's side in either direction."""
    original = write(tmp_path / "original.mp4", [frame(2)] * 4)
    copy = write(tmp_path / "copy.mp4", [frame(2)] * 4)
    track = track_faces(Video(original))
    points = np.random.default_rng(0).random((COUNT, 2)) * 50
    calls = iter([points + np.array([3, 4])] * 4 + [points] * 3 + [np.full((COUNT, 2), np.nan)])
    scorers.points68 = lambda _: next(calls)  # pyright: ignore[reportAttributeAccessIssue]
    scorers.options = Options(points="68")
    width, height = (track.boxes[:, 2:] - track.boxes[:, :2]).T
    score = scorers.score("one", original, track, copy, WAV[: 4 * SAMPLE_RATE // 25], {})
    assert score.values["LipLMD"] == pytest.approx(np.hypot(3 / width, 4 / height)[:3].mean(), rel=1e-6)
    assert score.note == "frames without 68 points, which count for no LipLMD: 1"


def test_what_outlasts_the_sound_is_no_silence(scorers: Scorers, tmp_path: Path) -> None:
    source = write(tmp_path / "long.mp4", [frame(i + 2) for i in range(3 * FRAMES)])
    scorers.syncnet = None
    syllables = WAV * (np.arange(len(WAV)) // (SAMPLE_RATE // 25) % 2)  # no longer pause than a frame
    untouched = scorers.score("one", source, track_faces(Video(source)), source, syllables, {}, compare=False)
    assert np.isnan(untouched.values["silence"]), "it is spoken to the sound's end"
    assert untouched.values["articulation"] == pytest.approx(1)
