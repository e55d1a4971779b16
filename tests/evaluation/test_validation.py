"""Baselines with known answers, and weights scored on a synthetic cache."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from skimage import data

import train_landmark
from datasets.splits import SplitConfig, read_list
from evaluation import offsets
from evaluation.baselines import paste_nearest, static_lips, transfer_content
from evaluation.offsets import best_offset
from evaluation.tables import ClipScore, summarise
from evaluation.validation import ClipFaces, Table3, Validate
from face.landmarks import CONTENT, LIP_SLICE, POSE_SLICE, with_content
from metrics.lip_motion import FaceSequence, jitter
from models.configs import LandmarkGeneratorConfig
from networks import LandmarkPredictor, References
from runtime.command_line import UserError
from training.engine import Engine

from ..datasets.made_up import write_clip
from .conftest import read_table

random = np.random.default_rng(0)
FACE = random.random((131, 2)) * 100


def test_a_rigidly_moving_face_is_its_own_static_baseline() -> None:
    turned = np.stack([(1 + k / 9) * FACE @ np.array([[0.8, 0.6], [-0.6, 0.8]]) + 7 * k for k in range(6)])
    np.testing.assert_allclose(static_lips(turned, turned[:3]), turned, rtol=1e-4)


def test_static_lips_are_the_mean_of_the_references() -> None:
    faces = np.tile(FACE, (8, 1, 1))
    faces[:, LIP_SLICE] += random.standard_normal((8, 40, 2))
    still = static_lips(faces, faces[:4])
    np.testing.assert_allclose(still[5, LIP_SLICE], faces[:4, LIP_SLICE].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(still[:, POSE_SLICE], faces[:, POSE_SLICE].astype(np.float32))
    assert jitter(still) < 1e-5


def test_content_moves_with_the_pose() -> None:
    faces = random.random((5, 131, 2)).astype(np.float32)
    for face in faces:
        np.testing.assert_allclose(transfer_content(face, face), face[CONTENT], atol=1e-5)
        np.testing.assert_allclose(transfer_content(face, 2 * face + 3), 2 * face[CONTENT] + 3, atol=1e-4)
    assert with_content(faces, np.zeros((5, 57, 2)))[:, CONTENT].max() == 0


def test_nearest_reference_is_moved_to_the_face() -> None:
    """Of a moved picture and a moved blank one, the one with the same mouth is chosen and moved back exactly."""
    picture = cv2.resize(data.astronaut()[:256, 100:356], (128, 128), interpolation=cv2.INTER_AREA)
    wanted = 0.3 + 0.4 * random.random((131, 2))
    other = wanted.copy()
    other[LIP_SLICE] += 0.1 * random.random((40, 2))
    shift = np.array([6, -9])
    move = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], float)
    references = np.stack([other, wanted + shift / 128])
    crops = np.stack([np.zeros_like(picture), cv2.warpAffine(picture, move, (128, 128))])
    features: Any = None
    pasted = paste_nearest(picture // 2, wanted, References(features, references, crops))
    np.testing.assert_array_equal(pasted[:64], picture[:64] // 2)
    difference = np.abs(pasted[64:118, 10:118].astype(int) - picture[64:118, 10:118])
    assert difference.max() <= 1


def test_persons_have_equal_weight_whatever_their_number_of_clips() -> None:
    values = {"a/1": 1.0, "a/2": 3.0, "b/1": 6.0}
    clips = [ClipScore(name, {"LipLMD": value}) for name, value in values.items()]
    persons = summarise("ours", clips, persons={"a/1": "a", "a/2": "a", "b/1": "b"})
    assert persons.cells["LipLMD"][0] == pytest.approx(4)
    assert summarise("ours", clips).cells["LipLMD"][0] == pytest.approx(10 / 3)
    assert [score.clip for score in persons.clips] == list(values)


@pytest.mark.slow
def test_weights_are_scored_on_a_cache(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, name in enumerate(("ann/one", "bob/one")):
        write_clip(tmp_path / "cache", name, 40, (3,), seed=seed)
    (tmp_path / "val.txt").write_text("ann/one\nbob/one\nnobody/here\n")
    lists = SplitConfig(val_list=tmp_path / "val.txt")
    config = Validate(tmp_path / "cache", tiny, frames=2, device="cpu", split=lists, output=tmp_path / "out")
    config.run()
    assert "val.txt: 1 of 3 entries match no clip, such as nobody/here" in capsys.readouterr().err
    lips = {row.name: row.cells for row in read_table(tmp_path / "out" / "stage_1_over_persons.json").rows}
    assert list(lips) == ["ours", "ours, pose of another moment", "static lips", "original"]
    assert lips["original"]["LipLMD"] == [0, 0, 0]
    assert lips["original"]["openness r"][0] == pytest.approx(1)
    assert lips["static lips"]["articulation"][0] < 0.5
    drawn = {row.name: row.cells for row in read_table(tmp_path / "out" / "stage_2_over_persons.json").rows}
    assert "nearest reference, true landmarks" in drawn
    for cells in drawn.values():  # the pasted picture keeps the true surroundings
        assert cells["PSNR pasted"][0] > cells["PSNR"][0]
    with pytest.raises(UserError, match="frames: at least 1 is needed, not 0"):
        replace(config, frames=0).run()
    write_clip(tmp_path / "cache", "ann/one", 20)
    replace(config, stage="2").run()
    assert "ann/one: all its frames serve as references" in capsys.readouterr().out
    (tmp_path / "short.txt").write_text("ann/one\n")
    with pytest.raises(UserError, match=r"--cache: no clip for validation can be scored \(ann/one: all its frames"):
        replace(config, stage="2", split=SplitConfig(val_list=tmp_path / "short.txt")).run()
    with pytest.raises(UserError, match=r"val.txt and .*val.txt both list ann/one"):
        replace(config, split=replace(lists, train_list=tmp_path / "val.txt"), stage="1").run()


@pytest.mark.slow
def test_mouths_are_scored_where_lpips_has_its_weights(
    tiny: Path, tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IP_LAP_WEIGHTS", str(shared / "weights"))
    write_clip(tmp_path / "cache", "ann/one", 40)
    (tmp_path / "val.txt").write_text("ann/one\n")
    split = SplitConfig(val_list=tmp_path / "val.txt")
    Validate(tmp_path / "cache", tiny, "2", 2, device="cpu", split=split, output=tmp_path / "out").run()
    rows = {row.name: row.cells for row in read_table(tmp_path / "out" / "stage_2_over_persons.json").rows}
    for cells in rows.values():
        assert {"LPIPS pasted", "mouth distance", "mouth outliers", "mouth sharpness"} <= cells.keys()


@pytest.mark.slow
def test_without_a_list_it_scores_the_trainings_validation_clips(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(f"{speaker}/{clip}" for speaker in ("ann", "bob", "cat", "dan") for clip in "12"):
        write_clip(tmp_path / "cache", name, 30, size=64, seed=seed)
    split = SplitConfig()
    model = LandmarkGeneratorConfig(width=16, layers=1, heads=2, feed_forward=16, audio_width=2, landmark_width=1)
    training = train_landmark.TrainLandmarkConfig(cache=tmp_path / "cache", run=tmp_path / "run", model=model, batch=2)
    [trainer] = train_landmark.trainers(training, Engine(training))
    examples = trainer.examples
    capsys.readouterr()
    config = Validate(tmp_path / "cache", tiny, "1", device="cpu", split=split, output=tmp_path / "out")
    config.run()
    ours = read_table(tmp_path / "out" / "stage_1_over_persons.json").rows[0]
    assert [score.clip for score in ours.clips] == [clip.name for clip in examples]
    assert 0 < len(examples) < 8
    assert f"no --val-list: {8 - len(examples)} clips to train on, {len(examples)} for" in capsys.readouterr().out
    write_clip(tmp_path / "one", "clip", 30, size=64)
    with pytest.raises(
        UserError, match=r"--cache: no clip for validation can be scored \(.*one has none\); name others in --val-list"
    ):
        replace(config, cache=tmp_path / "one").run()


def test_best_offset_has_the_clearly_highest_correlation() -> None:
    peak = np.array([0, 0.1, 0.2, 0.4, 0.7, 0.5, 0.3])
    assert best_offset(peak) == 1
    assert best_offset(peak[::-1]) == -1
    assert best_offset(peak / 4) == 0, "too little correlation"
    assert best_offset(np.array([0.5, 0.5, 0.5, 0.5, 0.52, 0.5, 0.5])) == 0, "hardly better than in place"


@pytest.fixture
def stage1(tiny: Path, tmp_path: Path) -> Path:
    """A folder with only the weights of stage 1, as directly after its training."""
    folder = tmp_path / "stage1"
    folder.mkdir()
    shutil.copy(tiny / "landmark_generator.safetensors", folder)
    return folder


@pytest.mark.slow
def test_stage_1_is_validated_without_a_renderer(
    tiny: Path, stage1: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(tmp_path / "cache", "ann/one", 60, size=64)  # landmarks fit any size of crop
    (tmp_path / "val.txt").write_text("ann/one\n")
    split = SplitConfig(val_list=tmp_path / "val.txt")
    config = Validate(tmp_path / "cache", stage1, "1", device="cpu", split=split)
    config.run()
    assert "clips: 1, persons: 1;" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--weights: .*renderer\.safetensors"):
        replace(config, stage="2").run()
    with pytest.raises(UserError, match=r"crop\.size = 64, but 128"):
        replace(config, weights=tiny, stage="2").run()
    rows = (f"one={stage1}",)
    Table3(tmp_path / "cache", tmp_path / "val.txt", rows, tmp_path / "out").run()
    assert read_table(tmp_path / "out" / "table3.json").rows[0].name == "one"


def true_lips(_: LandmarkPredictor, faces: ClipFaces, mel: np.ndarray) -> FaceSequence:
    """Predicts the true lips at the sound's moment. Bob's sound is 3 frames early, dan's tells nothing."""
    shifts = [np.array_equal(mel, np.roll(faces.clip.mel, round(3.2 * k), axis=1)) for k in range(-5, 6)]
    shift = shifts.index(True) - 5
    if faces.clip.name == "bob/two":
        shift -= 3
    lips = np.roll(faces.true.landmarks_in_frame, shift, axis=0)
    if faces.clip.name == "dan/noise":
        lips = lips + np.random.default_rng(shift + 5).normal(0, 80, lips.shape)
    return FaceSequence(lips, faces.true.boxes)


@pytest.fixture
def shifted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with sound in place, sound 3 frames early, a clip that is too short, and one with noise for sound."""
    for seed, name in enumerate(("ann/one", "bob/two", "dan/noise")):
        write_clip(tmp_path / "cache", name, 75, size=64, seed=seed)
    write_clip(tmp_path / "cache", "cat/short", 59, size=64)
    monkeypatch.setattr(offsets, "predict", true_lips)
    return tmp_path / "cache"


def test_shifted_sound_is_found_and_listed(
    shifted: Path, stage1: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = offsets.Offsets(shifted, tmp_path / "shifts.txt", stage1, device="cpu")
    config.run()
    entries = read_list(config.output)
    assert {name: words["frames"] for name, words in entries.items()} == {
        "ann/one": "0", "bob/two": "3", "cat/short": "0", "dan/noise": "0",
    }  # fmt: skip
    assert entries["bob/two"] == {"frames": "3", "best": "3", "correlation": "1.00", "sure": "1.00"}
    assert "shifts.txt: 1 clips have their sound moved" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--output: .* must end in .txt"):
        replace(config, output=tmp_path / "shifts").run()


def test_offsets_continue_after_an_interruption(
    shifted: Path, stage1: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = offsets.Offsets(shifted, tmp_path / "shifts.txt", stage1, device="cpu")
    config.run()
    finished = config.output.read_text()
    lines = finished.splitlines(keepends=True)
    config.output.write_text("".join(lines[:3]) + lines[3][:9])  # killed while writing a line
    estimated = []
    estimate = offsets.estimate
    monkeypatch.setattr(offsets, "estimate", lambda name, offsets: estimated.append(name) or estimate(name, offsets))
    config.run()
    assert config.output.read_text() == finished
    assert estimated == ["cat/short", "dan/noise"]


def test_a_damaged_clip_does_not_stop_the_list(shifted: Path, stage1: Path, tmp_path: Path) -> None:
    (shifted / "bob" / "two.faces").write_bytes(b"half a file")
    config = offsets.Offsets(shifted, tmp_path / "shifts.txt", stage1, device="cpu")
    config.run()
    assert sorted(read_list(config.output)) == ["ann/one", "cat/short", "dan/noise"]
    assert f"# {shifted / 'bob' / 'two.safetensors'} is not a complete clip" in config.output.read_text()


def test_shards_together_cover_the_cache(shifted: Path, stage1: Path, tmp_path: Path) -> None:
    names = []
    for part in ("1/2", "2/2"):
        config = offsets.Offsets(shifted, tmp_path / f"{part[0]}.txt", stage1, shard=part, device="cpu")
        config.run()
        names += read_list(config.output)
    assert sorted(names) == ["ann/one", "bob/two", "cat/short", "dan/noise"]
    with pytest.raises(UserError, match="--shard: 3/2 is not a shard"):
        replace(config, shard="3/2").run()


@pytest.mark.slow
def test_offsets_by_two_workers(stage1: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("ann/one", "bob/two")):
        write_clip(tmp_path / "cache", name, 60, size=64, seed=seed)
    config = offsets.Offsets(tmp_path / "cache", tmp_path / "a.txt", stage1, device="cpu")
    config.run()
    replace(config, output=tmp_path / "b.txt", workers=2).run()
    assert read_list(tmp_path / "a.txt") == read_list(tmp_path / "b.txt")


def test_certainty_is_high_only_for_a_clear_improvement() -> None:
    random = np.random.default_rng(0)
    true = np.convolve(random.standard_normal(80), np.ones(6) / 6, "valid")  # 3 s
    late = np.roll(true, 3)
    assert offsets.certainty(true, late, true) > 0.99
    assert offsets.certainty(late, true, true) < 0.01
    noise = [np.convolve(random.standard_normal(80), np.ones(6) / 6, "valid") for _ in range(20)]
    sure = [
        offsets.certainty(a, b, true) >= offsets.MIN_CERTAINTY for a, b in zip(noise[::2], noise[1::2], strict=True)
    ]
    assert sum(sure) <= 2
