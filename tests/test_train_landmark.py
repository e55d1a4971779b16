"""Stage 1 through its main(), on made-up clips and a tiny network."""

import json
import multiprocessing
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import models
from datasets.sampling import SamplingConfig
from face import fingerprint
from media.video import Video, read_audio
from models import weights
from models.configs import LandmarkGeneratorConfig, RendererConfig
from models.landmark_generator import LandmarkGenerator
from models.lite.landmark_generator import LiteLandmarkGeneratorConfig
from models.renderer import Renderer
from runtime import command_line
from runtime.command_line import UserError
from tests.datasets.made_up import write_clip
from tests.models.test_weights import save_with_settings
from tests.training.toy import path_of
from train_landmark import MAX_WINDOWS, PRESETS, LandmarkTrainer, TrainLandmarkConfig, main, trainers, whole_clip
from training.config import chosen_preset
from training.engine import Engine
from training.loop import Trainer
from training.run_folder import load_latest, read_metrics

TINY = LandmarkGeneratorConfig(width=16, layers=1, heads=2, feed_forward=16, audio_width=2, landmark_width=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Uses crops of 32 pixels, because landmarks do not depend on the crop's size."""
    root = tmp_path_factory.mktemp("cache")
    for number in range(4):
        write_clip(root, f"speaker{number}/clip", num_frames=30, size=32, seed=number)
    return root


def start(config: TrainLandmarkConfig) -> list[Trainer]:
    """Returns the trainers in turn, without running them."""
    return list(trainers(config, Engine(config)))


@pytest.fixture
def config(cache: Path, tmp_path: Path) -> TrainLandmarkConfig:
    return TrainLandmarkConfig(
        cache=cache, run=tmp_path / "run", model=TINY, sampling=SamplingConfig(samples_per_epoch=8), batch=2, steps=4,
        workers=0, log_every=1, validate_every=2, num_references=2, device="cpu", precision="fp32",
    )  # fmt: skip


def last(config: TrainLandmarkConfig) -> dict:
    state = load_latest(config.run / "checkpoints")
    assert state is not None
    return state


def rows_of(config: TrainLandmarkConfig, group: str = "train") -> list[dict]:
    return [row for row in read_metrics(config.run) if row["group"] == group]


def test_stopped_run_continues_as_if_never_stopped(config: TrainLandmarkConfig, tmp_path: Path) -> None:
    main(config)
    halves = replace(config, run=tmp_path / "halves")
    main(replace(halves, steps=2))
    main(halves)
    whole, resumed = last(config), last(halves)
    assert whole["step"] == resumed["step"] == 4
    for key in ("networks", "average"):
        a, b = (torch.cat([leaf.flatten() for leaf in _leaves(state[key])]) for state in (whole, resumed))
        assert torch.equal(a, b)
    rows, more = rows_of(config), rows_of(halves)
    assert [row["L"] for row in rows] == [row["L"] for row in more]
    assert len({row["L"] for row in rows}) == 4
    assert all(row["L"] == pytest.approx(row["L_1"] + row["L_c"], rel=1e-5) for row in rows)


def test_each_validation_writes_a_video_with_sound(config: TrainLandmarkConfig) -> None:
    main(replace(config, steps=2))
    path = config.run / "landmark_generator.mp4"
    video = Video(path)
    assert len(list(video)) == 15  # half of the clip: the rest are references
    assert (video.width, video.height) == (256, 256)
    assert len(read_audio(path)) >= 15 * 640
    main(config)
    assert len(list(Video(path))) == 15


def _leaves(state: dict) -> list[torch.Tensor]:
    return [t for v in state.values() for t in (_leaves(v) if isinstance(v, dict) else [v.double()])]


def test_exports_averaged_weights_and_trains_from_them(config: TrainLandmarkConfig, tmp_path: Path) -> None:
    main(config)
    best = config.run / "landmark_generator.safetensors"
    best_step = min(rows_of(config, "validation"), key=lambda row: row["L"])["step"]
    for path, step in ((best, best_step), (config.run / "landmark_generator_last.safetensors", 4)):
        exported = models.load(path)
        assert exported.extra["step"] == step
        assert isinstance(exported, LandmarkGenerator)
        state = torch.load(path_of(config.run / "checkpoints", step), weights_only=True)
        for name, value in exported.state_dict().items():
            torch.testing.assert_close(value, state["average"][name].to(value.dtype), rtol=1e-3, atol=1e-4)
    other = replace(config, run=tmp_path / "more", init=best, steps=1)
    main(replace(other, model=LiteLandmarkGeneratorConfig()))  # its sizes come from the file
    with pytest.raises(UserError, match=r"model: .*landmark_generator.safetensors already sets the network"):
        main(replace(other, model=replace(TINY, width=32)))
    assert last(other)["networks"]["landmark_generator.lip_head.weight"].shape == (80, 16)
    [trainer] = start(other)
    assert trainer.network.training  # also for a dry run, which restores nothing


def test_another_setting_is_refused_by_name(config: TrainLandmarkConfig) -> None:
    main(replace(config, steps=1))
    with pytest.raises(UserError, match=r"model.width: .* was started with 16, not 32"):
        main(replace(config, model=replace(TINY, width=32)))
    val_list = config.run / "val.txt"
    val_list.write_text("speaker1/clip\n")
    with pytest.raises(UserError, match=r"^val_list: .* was started with None, not "):  # the flag is --val-list
        main(replace(config, val_list=val_list))


def test_overfits_a_few_samples(config: TrainLandmarkConfig) -> None:
    model = replace(TINY, dropout=0.0)
    few = SamplingConfig(overfit=2)
    main(replace(config, model=model, sampling=few, steps=60, learning_rate=5e-3, validate_every=60, ema=0.0))
    losses = [row["L_1"] for row in rows_of(config)]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


def test_validation_keeps_a_part_of_long_clips(config: TrainLandmarkConfig, tmp_path: Path) -> None:
    for name in "ab":
        write_clip(tmp_path / "long", name, num_frames=400)
    [trainer] = start(replace(config, cache=tmp_path / "long"))
    [clip] = trainer.examples
    windows = whole_clip(clip, TINY.num_frames, 2)
    starts = windows["frame"].tolist()
    assert starts == sorted(set(starts)) and len(starts) == MAX_WINDOWS < 400 // TINY.num_frames
    assert (starts[0], starts[-1]) == (0, 395) and windows["boxes"].shape == (MAX_WINDOWS, TINY.num_frames, 4)


def test_one_person_is_tuned_on_a_single_clip(config: TrainLandmarkConfig, tmp_path: Path) -> None:
    weights.save(LandmarkGenerator(TINY), tmp_path / "init.safetensors", {})
    write_clip(tmp_path / "one", "clip", num_frames=30)
    main(replace(config, cache=tmp_path / "one", init=tmp_path / "init.safetensors", steps=2))
    assert len(rows_of(config, "validation")) == 1


def test_dry_run_writes_nothing(config: TrainLandmarkConfig, capsys: pytest.CaptureFixture[str]) -> None:
    main(replace(config, dry_run=True))
    assert "parameters" in capsys.readouterr().out
    assert not config.run.exists()


def test_dry_run_estimates_a_large_batch_from_few_samples(
    config: TrainLandmarkConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = []
    train_batch = LandmarkTrainer.train_batch

    def count(trainer: LandmarkTrainer, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        sizes.append(len(batch["name"]))
        return train_batch(trainer, batch)

    monkeypatch.setattr(LandmarkTrainer, "train_batch", count)
    main(replace(config, dry_run=True, batch=96, accumulate=2, steps=500))  # more than the data's 8 samples
    assert sizes == [4, 8]
    lines = capsys.readouterr().out
    seconds, memory = re.findall(r"a step of 96 samples, 48 at a time: about (\S+) s, (\S+) GiB per process", lines)[0]
    [hours] = re.findall(r"500 steps: about (\S+) hours", lines)
    assert float(hours) == pytest.approx(500 * float(seconds) / 3600, rel=0.01)
    assert float(memory) > 0
    assert not config.run.exists()


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), RuntimeError("can't allocate memory")])
def test_too_little_memory_is_one_line(
    config: TrainLandmarkConfig, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(LandmarkTrainer, "train_batch", refuse)
    with pytest.raises(UserError, match=f"batch: {config.batch} does not fit into the memory of cpu"):
        main(config)


def test_a_lost_process_that_loads_data_is_one_line(
    config: TrainLandmarkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill_a_worker(*_: object) -> None:
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        time.sleep(60)  # ended by the loader's signal

    monkeypatch.setattr(LandmarkTrainer, "train_batch", kill_a_worker)
    with pytest.raises(UserError, match=r"workers: DataLoader worker .* is killed by signal: Killed. ; use fewer"):
        main(replace(config, workers=1))


def test_processes_that_load_data_end_with_an_unforeseen_error(
    config: TrainLandmarkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        assert multiprocessing.active_children()
        raise ValueError("unforeseen")

    monkeypatch.setattr(LandmarkTrainer, "train_batch", fail)
    with pytest.raises(ValueError, match="unforeseen"):
        main(replace(config, workers=1))
    assert not multiprocessing.active_children()


def test_processes_that_load_data_end_with_the_training(config: TrainLandmarkConfig) -> None:
    main(replace(config, workers=2))
    assert not multiprocessing.active_children()


def test_batch_may_be_larger_than_the_data(config: TrainLandmarkConfig) -> None:
    main(replace(config, batch=12, steps=2))  # 8 samples an epoch
    assert len({row["L"] for row in rows_of(config)}) == 2


def test_a_flag_that_the_config_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["train_landmark.py", "--cache", "a", "--run", "b", "--batch", "0"])
    with pytest.raises(SystemExit) as stopped:
        command_line.run(main, TrainLandmarkConfig, default=chosen_preset(PRESETS))
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: --batch: must be at least 1, not 0\n"


def test_a_config_file_gives_an_earlier_commands_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.json"
    earlier = ["train_landmark.py", "--preset", "paper", "--cache", "a", "--run", "b", "--batch", "8"]
    file.write_text(json.dumps({"config": {}, "command": earlier}))
    configs: list[TrainLandmarkConfig] = []
    monkeypatch.setattr("sys.argv", ["train_landmark.py", "--config", str(file), "--run", "c", "--seed", "1"])
    command_line.run(configs.append, TrainLandmarkConfig, default=chosen_preset(PRESETS))
    assert configs == [replace(PRESETS["paper"], cache=Path("a"), run=Path("c"), batch=8, seed=1, config=file)]
    file.write_text("{}")
    with pytest.raises(SystemExit):
        chosen_preset(PRESETS)
    assert capsys.readouterr().err == f"error: --config: {file} is not the config.json of a run ('command')\n"
    file.write_text("[]")
    with pytest.raises(SystemExit):
        chosen_preset(PRESETS)
    assert capsys.readouterr().err.startswith(f"error: --config: {file} is not the config.json of a run")


def test_unusable_init_weights_are_refused(config: TrainLandmarkConfig, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(UserError, match=r"weights.safetensors cannot be opened"):
        main(replace(config, init=path))
    sizes = RendererConfig(shallow=4, deep=8, alignment_deep=8, modulation=4, style_hidden=4, audio_width=2)
    weights.save(Renderer(sizes), path, {})
    with pytest.raises(UserError, match=r"holds a renderer \(stage 2\), but a landmark generator"):
        main(replace(config, init=path))
    save_with_settings(LandmarkGenerator(TINY), path, fingerprint.current() | {"crop.margin": 0.5})
    with pytest.raises(UserError, match=r"--init: .* was made with crop.margin = 0.5"):
        main(replace(config, init=path))
    with safe_open(path, framework="pt") as file:
        save_file({name: value[:1] for name, value in load_file(path).items() if value.ndim}, path, file.metadata())
    with pytest.raises(UserError, match="cannot load"):
        main(replace(config, init=path))
    assert not config.run.exists()


def test_unusable_data_is_refused(config: TrainLandmarkConfig, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--cache: there is no clip in"):
        main(replace(config, cache=tmp_path))
    for name in "ab":
        write_clip(tmp_path / "short", name, num_frames=20)
    with pytest.raises(UserError, match="none of the 1 clips can be trained on: training needs 25 frames"):
        main(replace(config, cache=tmp_path / "short"))
    (tmp_path / "list.txt").write_text("elsewhere/clip\n")
    with pytest.raises(UserError, match=r"list\.txt: no entry, such as elsewhere/clip, matches a clip"):
        main(replace(config, val_list=tmp_path / "list.txt"))
    write_clip(tmp_path / "other", "a", num_frames=30)
    write_clip(tmp_path / "other", "b", num_frames=30, size=64)
    with pytest.raises(UserError, match=r"crop\.size"):
        main(replace(config, cache=tmp_path / "other"))
    assert not config.run.exists()


@pytest.mark.parametrize("name", ["num_references", "val_clips"])
def test_zero_references_or_clips_are_refused(config: TrainLandmarkConfig, name: str) -> None:
    with pytest.raises(UserError, match=f"{name}: must be at least 1, not 0"):
        replace(config, **{name: 0})


@pytest.mark.parametrize(("flags", "message"), [
    ("--model.heads 3", "--model.width: 160 must be even and a multiple of --model.heads (3)"),
    ("--model.width 15 --model.heads 5", "--model.width: 15 must be even and a multiple of --model.heads (5)"),
    ("--batch 1 --num-references 1", "--batch: 1 must be a multiple of processes x accumulate"),
    ("--batch 1 --model.num-frames 1", "--batch: 1 must be a multiple of processes x accumulate"),
    ("--model.layers 0", "--model.layers: must be at least 1, not 0"),
    ("--model.num-frames -3", "--model.num-frames: must be at least 1, not -3"),
    ("--model.dropout 1", "--model.dropout: 1.0 is not a probability below 1"),
    ("--loss.velocity -1", "--loss.velocity: must be at least 0, not -1.0"),
    ("--sampling.samples-per-epoch 0", "--sampling.samples-per-epoch: must be at least 1, not 0"),
    ("--sampling.augment.box nan", "--sampling.augment.box: must be at least 0, not nan"),
    ("--learning-rate nan", "--learning-rate: must be at least 0, not nan"),
    ("--model.width 2000000000", "--batch: 16 does not fit into the memory of cpu; use a smaller one, split it"),
])  # fmt: skip
def test_impossible_settings_are_one_line_before_anything_is_written(
    cache: Path, tmp_path: Path, flags: str, message: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    arguments = ["--cache", str(cache), "--run", str(tmp_path / "run"), "--device", "cpu", *flags.split()]
    monkeypatch.setattr("sys.argv", ["train_landmark.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        command_line.run(main, TrainLandmarkConfig, default=chosen_preset(PRESETS))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}") and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_lstm_may_have_any_width(config: TrainLandmarkConfig) -> None:
    main(replace(config, model=replace(TINY, architecture="lstm", width=15), steps=1))
    assert last(config)["step"] == 1
