"""Samples follow the paper, are a function of (seed, epoch, index), and are balanced as configured."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from datasets.clip_cache import ClipCache
from datasets.landmark_dataset import LandmarkDataset, make_sample
from datasets.render_dataset import RenderDataset
from datasets.sampling import Augmentation, AugmentConfig, SamplingConfig
from face.landmarks import FLIP, JAW_SLICE, LIP_SLICE, POSE_SLICE
from face.sketch import draw_sketch
from media.audio import SILENCE, mel_windows
from runtime.command_line import UserError
from tests.datasets.made_up import write_clip

EVERY_AUGMENTATION = AugmentConfig(flip=0.5, colour=0.2, box=0.05, stretch=0.02, sound=1.0, tempo=0.1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    root = tmp_path_factory.mktemp("cache")
    for k in range(6):
        write_clip(root, f"s{k % 2}/c{k}", num_frames=40 + 5 * k, missing=(3, 20 + k), seed=k)
    write_clip(root, "s9/short", num_frames=24)
    write_clip(root, "s9/gaps", num_frames=60, missing=tuple(range(0, 60, 3)))
    return list(ClipCache(root))


def _equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(np.array_equal(a[key], b[key]) for key in a)


def test_stage_1_sample(clips: list[Any]) -> None:
    dataset = LandmarkDataset(clips, 5, 15, SamplingConfig())
    assert len(dataset) == 6, "two have too few frames with a face"
    for index in range(30):
        item: dict[str, Any] = dataset[index]
        clip = next(clip for clip in clips if clip.name == item["name"])
        start = item["frame"]
        landmarks = clip.crop_landmarks(np.arange(clip.num_frames))
        window = landmarks[start : start + 5]
        assert clip.found[start : start + 5].all()
        assert np.array_equal(item["pose"], window[:, POSE_SLICE])
        assert np.array_equal(item["jaw"], window[:, JAW_SLICE])
        assert np.array_equal(item["lip"], window[:, LIP_SLICE])
        np.testing.assert_array_equal(item["mel"], mel_windows(clip.mel, start + np.arange(5)))
        far = [np.abs(landmarks - r).max(axis=(1, 2)) for r in item["reference"]]
        which = [int(np.nanargmin(distance)) for distance in far]
        assert len(set(which)) == 15 and not set(which) & set(range(start, start + 5))


def test_stage_2_sample(clips: list[Any]) -> None:
    dataset = RenderDataset(clips, 5, 3, SamplingConfig())
    for index in range(20):
        item: dict[str, Any] = dataset[index]
        clip = next(clip for clip in clips if clip.name == item["name"])
        frame = item["frame"]
        np.testing.assert_allclose(item["target"].transpose(1, 2, 0), clip.face(frame) / 255, atol=1e-6)
        assert np.array_equal(item["masked_target"][:, :64], item["target"][:, :64])
        assert not item["masked_target"][:, 64:].any()
        x0, y0, x1, y1 = clip.boxes[frame]
        for k, t in enumerate(np.clip(np.arange(frame - 2, frame + 3), 0, clip.num_frames - 1)):
            sketch = draw_sketch(clip.crop_landmarks(np.array([t]))[0], y1 - y0, x1 - x0) / 255
            np.testing.assert_allclose(item["target_sketches"][k, 0], sketch[..., 0], atol=1e-6)
        np.testing.assert_array_equal(item["mel"], mel_windows(clip.mel, np.array([frame]))[0])
        images = (item["reference_images"] * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
        near = [t for t in range(frame - 2, frame + 3) if 0 <= t < clip.num_frames]
        assert not any((image == clip.face(t)).all() for image in images for t in near)
        assert item["reference_sketches"].shape == (3, 1, 128, 128)


@pytest.mark.parametrize("kind", [LandmarkDataset, RenderDataset])
def test_samples_depend_only_on_seed_epoch_and_index(clips: list[Any], kind: Any) -> None:
    config = SamplingConfig(samples_per_epoch=10, augment=EVERY_AUGMENTATION)
    one, two = kind(clips, 5, 3, config, 7), kind(clips, 5, 3, config, 7)
    forward = [one[index] for index in range(10)]
    assert all(_equal(two[index], forward[index]) for index in reversed(range(10)))
    assert _equal(one[23], two[23]) and not _equal(one[3], one[23])  # of another epoch
    assert not _equal(kind(clips, 5, 3, config, 8)[0], one[0])


@pytest.mark.parametrize("kind", [LandmarkDataset, RenderDataset])
def test_overfitting_takes_the_same_few_samples_again_and_again(clips: list[Any], kind: Any) -> None:
    dataset = kind(clips, 5, 3, SamplingConfig(overfit=2, augment=EVERY_AUGMENTATION))
    assert len(dataset) == 2 and not _equal(dataset[0], dataset[1])
    assert all(_equal(dataset[index], dataset[index % 2]) for index in range(2, 6))


def test_workers_return_the_same_samples(clips: list[Any]) -> None:
    dataset: Any = LandmarkDataset(clips, 5, 3, SamplingConfig())
    alone, shared = (next(iter(DataLoader(dataset, 6, num_workers=n))) for n in (0, 1))
    assert _equal(alone, shared)


def test_balance(clips: list[Any], tmp_path: Path) -> None:
    uneven = [write_clip(tmp_path, f"a/{k}", 100, seed=k) for k in range(9)] + [write_clip(tmp_path, "b/0", 100)]
    shares = {}
    speakers = {clip.name: clip.name[0] for clip in uneven}
    for balance in ("clip", "speaker"):
        dataset = LandmarkDataset(uneven, 5, 3, SamplingConfig(balance, samples_per_epoch=1000), speakers=speakers)
        counts = Counter(dataset.draw(index)[1].name for index in range(1000))
        shares[balance] = counts["b/0"] / 1000
    assert shares == pytest.approx({"clip": 0.1, "speaker": 0.25}, abs=0.002)
    named = LandmarkDataset(uneven, 5, 3, SamplingConfig("speaker", 1000), speakers={c.name: c.name for c in uneven})
    assert Counter(named.draw(i)[1].name for i in range(1000))["b/0"] == pytest.approx(100, abs=1)
    each = LandmarkDataset(clips, 5, 3, SamplingConfig())
    assert sorted(each.draw(index)[1].name for index in range(6)) == [clip.name for clip in each.clips]


def test_stretch_scales_each_frame_by_a_smoothly_changing_factor(clips: list[Any]) -> None:
    window = clips[0].crop_landmarks(np.arange(4, 19))  # (15, 131, 2)
    factors = []
    for seed in range(200):
        stretched = Augmentation(np.random.default_rng(seed), AugmentConfig(stretch=0.02)).stretch(window)
        np.testing.assert_array_equal(stretched[..., 0], window[..., 0])
        ratio = stretched[..., 1] / window[..., 1]  # (15, 131)
        assert np.ptp(ratio, axis=1).max() < 1e-4
        factors.append(np.log(ratio[:, 0]))
    assert np.std(factors) == pytest.approx(0.02, rel=0.1)
    assert np.std(np.diff(factors)) < 0.5 * np.std(factors)
    assert Augmentation(np.random.default_rng(0), AugmentConfig()).stretch(window) is window


def test_overlapping_windows_are_changed_alike_and_silence_stays(clips: list[Any]) -> None:
    windows = np.stack([clips[0].mel[None, :, k : k + 16] for k in (8, 11)])  # 3 columns apart
    windows[:, :, :, 9] = SILENCE  # a different moment in each window
    for seed in range(20):
        heard = Augmentation(np.random.default_rng(seed), AugmentConfig(sound=1.0)).change_sound(windows)
        assert heard.shape == windows.shape and heard.dtype == np.float32
        assert np.abs(heard).max() <= -SILENCE
        np.testing.assert_array_equal(heard[0, 0, :, 9], SILENCE)
        np.testing.assert_array_equal(heard[0, 0, :, 13:], heard[1, 0, :, 10:13])
        assert np.abs(heard - windows).max() > 0.05


def test_flipping_mirrors_and_twice_is_the_identity(clips: list[Any]) -> None:
    augmentation = Augmentation(np.random.default_rng(0), AugmentConfig(flip=1.0))
    move = augmentation.draw_move()
    clip = clips[0]
    points, face = clip.crop_landmarks(np.array([0]))[0], clip.face(0)
    flipped = augmentation.move_landmarks(points, move)
    np.testing.assert_allclose(flipped[:, 0], 1 - points[FLIP, 0], atol=1e-6)
    np.testing.assert_allclose(augmentation.move_landmarks(flipped, move), points, atol=1e-6)
    assert np.array_equal(augmentation.change_face(face, move), face[:, ::-1])


def test_picture_and_landmarks_move_together() -> None:
    face = np.zeros((128, 128, 3), np.uint8)
    face[40:43, 90:93] = 255
    spot = np.full((131, 2), [91.5 / 128, 41.5 / 128], np.float32)
    for seed in range(20):
        augmentation = Augmentation(np.random.default_rng(seed), AugmentConfig(flip=0.5, box=0.1))
        move = augmentation.draw_move()
        rows, columns = np.nonzero(augmentation.change_face(face, move)[..., 0] > 60)
        assert (
            abs(augmentation.move_landmarks(spot, move)[0] * 128 - [columns.mean() + 0.5, rows.mean() + 0.5]).max()
            < 0.7
        )


def test_colours_change_alike_in_target_and_references(clips: list[Any]) -> None:
    plain, changed = (
        RenderDataset(clips, 5, 3, SamplingConfig(augment=AugmentConfig(colour=colour))) for colour in (0.0, 0.3)
    )
    clip = plain.clips[0]
    augmentation = Augmentation(np.random.default_rng(5), changed.config.augment)
    table = augmentation.table
    assert table is not None
    for frame in (0, 9):
        face = clip.face(frame)
        expected = np.stack([table[0, face[..., channel], channel] for channel in range(3)], axis=-1)
        assert np.array_equal(augmentation.change_face(face, augmentation.draw_move()), expected)
        assert not np.array_equal(expected, face)


def test_unusable_clips_are_reported(clips: list[Any]) -> None:
    short = [clip for clip in clips if clip.name.startswith("s9/")]
    with pytest.raises(UserError, match="none of the 2 clips can be trained on: training needs 25 frames"):
        LandmarkDataset(short, 5, 15, SamplingConfig())


def test_a_clip_needs_a_frame_left_as_reference(tmp_path: Path) -> None:
    clips = [write_clip(tmp_path, name, num_frames=frames) for name, frames in (("a", 30), ("b", 31))]
    assert [clip.name for clip in LandmarkDataset(clips, 30, 15, SamplingConfig()).clips] == ["b"]


def test_nearest_references_of_a_short_clip_do_not_repeat(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, "a", 26)
    dataset = RenderDataset([clip], 5, 5, SamplingConfig(), candidates=25)
    for index in range(20):
        assert len(np.unique(dataset[index]["reference_landmarks"], axis=0)) == 5


def test_tempo_moves_mouth_and_sound_alike(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, "a", 60)
    plain = Augmentation(np.random.default_rng(0), AugmentConfig())
    references = np.arange(3)
    sample = make_sample(clip, 10 + 1.5 * np.arange(5), references, plain, tempo=1.5)
    normal = make_sample(clip, np.arange(10, 17), references, plain)
    for name in ("pose", "lip", "jaw"):
        np.testing.assert_allclose(
            sample[name][::2], normal[name][::3], rtol=1.3e-6, atol=1e-5
        )  # every third frame of the original
        between = (normal[name][1] + normal[name][2]) / 2
        np.testing.assert_allclose(sample[name][1], between, rtol=1.3e-6, atol=1e-5)
    # The same centre, and columns that lie 1.5 times as far from it.
    np.testing.assert_allclose(sample["mel"][0, 0, :, 7], normal["mel"][0, 0, :, 7], rtol=1.3e-6, atol=1e-5)
    np.testing.assert_allclose(sample["mel"][0, 0, :, 9], normal["mel"][0, 0, :, 10], rtol=1.3e-6, atol=1e-5)


def test_speeding_up_leaves_a_frame_as_reference(tmp_path: Path) -> None:
    clip = write_clip(tmp_path, "a", 26)
    dataset = LandmarkDataset([clip], 22, 3, SamplingConfig(augment=AugmentConfig(tempo=0.2)))
    for index in range(40):
        assert dataset[index]["reference"].shape == (3, 131, 2)


def test_short_clip_is_not_sped_up(tmp_path: Path) -> None:
    clips = [write_clip(tmp_path, "a", 36, missing=(5, 11, 17, 23, 29, 35))]  # runs of five frames
    dataset = LandmarkDataset(clips, 5, 3, SamplingConfig(augment=AugmentConfig(tempo=0.3)))
    for index in range(20):
        assert np.isfinite(dataset[index]["lip"]).all()
