"""One clip scored with small stand-ins for the networks whose weight files are missing."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluation import scoring
from evaluation.scoring import Original, Scorer
from face.tracking import track_faces
from media.audio import SAMPLE_RATE
from media.video import Video
from metrics import syncnet
from metrics.image_quality import LPIPS, FeaturePool
from runtime.command_line import UserError

from .conftest import frame, write

FRAMES = 8
WAV = np.random.default_rng(0).standard_normal(FRAMES * SAMPLE_RATE // 25).astype(np.float32) * 0.1


class Colours(nn.Module):
    """Mean colours (n, 3)."""

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.mean((2, 3))


class TwoStreams(nn.Module):
    """Replaces SyncNet by the brightness over time and the energy of the sound."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def embed_lips(self, frames: Tensor) -> Tensor:
        return frames.mean((1, 2, 3, 4))[:, None].expand(-1, syncnet.EMBEDDING) / 255

    def embed_sound(self, mfcc: Tensor) -> Tensor:
        return mfcc.mean((1, 2, 3))[:, None].expand(-1, syncnet.EMBEDDING)


def open_original(path: Path, wav: np.ndarray, compare: bool = True) -> Original:
    video = Video(path)
    return Original(video, track_faces(video), wav, compare)


def embed(faces: np.ndarray) -> np.ndarray:
    vectors = faces.mean((1, 2)).astype(float)  # colours
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Scorer:
    monkeypatch.setattr("checkpoints.registry.FOLDER", tmp_path)
    monkeypatch.delenv("IP_LAP_WEIGHTS", raising=False)
    made = Scorer("cpu")
    assert len(made.missing) == 5
    made.networks |= {"CSIM": embed, "FID": Colours(), "LSE-C": TwoStreams()}
    return made


@pytest.mark.slow
def test_stand_ins_fill_every_column(scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = write(tmp_path / "original.mp4", [frame(i + 2) for i in range(FRAMES)])
    bright = write(tmp_path / "bright.mp4", [frame(i + 2, 30) for i in range(FRAMES)])
    pool = FeaturePool()
    source = open_original(original, WAV)

    itself = scorer.score("one", source, original, pool)
    assert (itself.reason, itself.frames, itself.produced, itself.expected) == ("", FRAMES, FRAMES, FRAMES)
    assert itself.values["PSNR"] == pytest.approx(80)
    assert itself.values["CSIM"] == pytest.approx(1)
    assert itself.values["LipLMD"] == 0
    assert pool.count == FRAMES
    np.testing.assert_array_equal(*pool.sum)

    other = scorer.score("one", source, bright, pool)
    assert 15 < other.values["PSNR"] < 20  # 20 log10(255 / 30) = 18.6, where nothing saturates
    assert 0.8 < other.values["CSIM"] < 1
    assert (pool.sum[0] > pool.sum[1]).all()
    assert {"LSE-C", "LSE-D", "offset"} <= other.values.keys()

    dubbed = scorer.score("one", source._replace(compare=False), bright, FeaturePool())
    assert dubbed.values.keys() == {"LSE-C", "LSE-D", "offset", "silence", "articulation", "jitter"}, (
        "no comparison with the original"
    )
    assert dubbed.values["LSE-D"] == pytest.approx(other.values["LSE-D"], rel=1e-4)

    (tmp_path / "broken.mp4").write_bytes(b"no video")
    broken = scorer.score("one", source, tmp_path / "broken.mp4", FeaturePool())
    assert "broken.mp4" in broken.reason
    assert (broken.produced, broken.values) == (0, {})
    monkeypatch.setattr(scoring, "motion_scores", lambda *_, **__: 1 / 0)
    assert scorer.score("one", source, bright, pool).reason
    assert pool.count == 2 * FRAMES, "a clip that fails half-way adds no frames"
    monkeypatch.setattr(scoring, "track_faces", lambda _: 1 / 0)  # an unexpected error costs only the clip, too
    assert scorer.score("one", source, bright, FeaturePool()).reason.startswith("ZeroDivisionError: ")


@pytest.mark.slow
def test_another_frame_rate_is_noted(scorer: Scorer, tmp_path: Path) -> None:
    original = write(tmp_path / "original.mp4", [frame(i + 2) for i in range(5)])
    faster = write(tmp_path / "faster.mp4", [frame(i + 2) for i in range(10)], fps=50)
    score = scorer.score("one", open_original(original, WAV[: 5 * SAMPLE_RATE // 25]), faster, FeaturePool())
    assert score.notes == ["50 frames a second, read at 25"]
    assert (score.reason, score.frames) == ("", 5)


@pytest.mark.slow
def test_another_framing_is_compared_by_its_own_boxes(scorer: Scorer, tmp_path: Path) -> None:
    original = write(tmp_path / "original.mp4", [frame(i + 2) for i in range(3)])
    cut = [cv2.resize(frame(i + 2)[30:170, 40:180], (240, 240)) for i in range(3)]
    near = write(tmp_path / "near.mp4", cut)
    score = scorer.score("one", open_original(original, WAV[: 3 * SAMPLE_RATE // 25]), near, FeaturePool())
    assert score.notes == ["framed differently, 240 x 240, compared by its own face boxes"]
    assert score.values["LipLMD"] < 0.03
    assert score.values["PSNR"] > 18


@pytest.mark.slow
def test_frames_without_a_face_are_not_scored(scorer: Scorer, tmp_path: Path) -> None:
    frames = [frame(i + 2) for i in range(6)]
    frames[2] = np.full_like(frames[2], 90)
    original = write(tmp_path / "original.mp4", frames)
    sound = WAV[: 6 * SAMPLE_RATE // 25]
    score = scorer.score("one", open_original(original, sound), original, FeaturePool())
    assert (score.frames, score.produced) == (5, 6)
    assert score.notes == ["1 frames without a face, not scored"]


@pytest.mark.slow
def test_blurred_mouths_are_less_sharp_than_real_ones(scorer: Scorer, tmp_path: Path, shared: Path) -> None:
    scorer.networks = {"LPIPS": LPIPS("alex", shared / "weights" / "alexnet_features_torchvision.pth")}
    frames = [frame(i + 2) for i in range(20)]
    original = write(tmp_path / "original.mp4", frames)
    blurred = write(tmp_path / "blurred.mp4", [cv2.GaussianBlur(picture, (0, 0), 2.0) for picture in frames])
    real = scorer.open(original, original)._replace(compare=False)
    itself = scorer.score("one", real, original, FeaturePool())
    assert itself.values["mouth sharpness"] == pytest.approx(1)
    assert itself.values["mouth distance"] == pytest.approx(0, abs=0.02)
    soft = scorer.score("one", real, blurred, FeaturePool())
    assert soft.values["mouth sharpness"] < 0.7
    assert soft.values["mouth distance"] > itself.values["mouth distance"]


def test_missing_device_is_one_line() -> None:
    with pytest.raises(UserError, match=r"device cuda:99: not usable"):
        Scorer("cuda:99")


def test_frames_beyond_the_sound_are_not_silent(scorer: Scorer, tmp_path: Path) -> None:
    source = write(tmp_path / "long.mp4", [frame(i + 2) for i in range(3 * FRAMES)])
    del scorer.networks["LSE-C"]
    syllables = WAV * (np.arange(len(WAV)) // (SAMPLE_RATE // 25) % 2)  # no longer pause than a frame
    original = open_original(source, syllables, compare=False)
    untouched = scorer.score("one", original, source, FeaturePool())
    assert np.isnan(untouched.values["silence"]), "there is speech to the end of the sound"
    assert untouched.values["articulation"] == pytest.approx(1)
