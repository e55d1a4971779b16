"""Stage 1 through its main(), on made-up clips and a tiny network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import models
from command_line import UserError
from datasets.sampling import SamplingConfig
from models.landmark_generator import LandmarkGeneratorConfig
from tests.datasets.made_up import write_clip
from train_landmark import Config, main
from training import checkpoint
from training.run_folder import read_metrics

TINY = LandmarkGeneratorConfig(width=16, layers=1, heads=2, feed_forward=16, audio_width=2, landmark_width=1)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cache")
    for number in range(4):
        write_clip(root, f"speaker{number}/clip", num_frames=30, seed=number)
    return root


@pytest.fixture
def config(cache: Path, tmp_path: Path) -> Config:
    return Config(
        cache=cache, run=tmp_path / "run", model=TINY, sampling=SamplingConfig(samples_per_epoch=8), batch=2, steps=4,
        workers=0, log_every=1, validate_every=2, num_references=2, device="cpu",
    )  # fmt: skip


def last(config: Config) -> dict:
    state = checkpoint.load_latest(config.run / "checkpoints")
    assert state is not None
    return state


def test_stopped_and_continued_is_as_if_never_stopped(config: Config, tmp_path: Path) -> None:
    main(config)
    halves = replace(config, run=tmp_path / "halves")
    main(replace(halves, steps=2))
    main(halves)
    whole, resumed = last(config), last(halves)
    assert whole["step"] == resumed["step"] == 4
    for key in ("networks", "average"):
        a, b = (torch.nn.utils.parameters_to_vector(_leaves(state[key])) for state in (whole, resumed))
        assert torch.equal(a, b)
    rows, more = ([row for row in read_metrics(c.run) if row["group"] == "train"] for c in (config, halves))
    assert [row["total"] for row in rows] == [row["total"] for row in more]
    assert len({row["total"] for row in rows}) == 4


def _leaves(state: dict) -> list[torch.Tensor]:
    return [t for v in state.values() for t in (_leaves(v) if isinstance(v, dict) else [v.double()])]


def test_exports_the_averaged_weights_and_trains_on_from_them(config: Config, tmp_path: Path) -> None:
    main(config)
    exported = models.load(config.run / "landmark_generator.safetensors")
    best = torch.load(config.run / "checkpoints" / "best.pt", weights_only=True)
    assert exported.step == best["step"]
    for name, value in exported.state_dict().items():
        torch.testing.assert_close(value, best["average"][name].to(value.dtype), rtol=1e-3, atol=1e-4)
    other = replace(config, run=tmp_path / "more", init=config.run / "landmark_generator.safetensors", steps=1)
    main(replace(other, model=LandmarkGeneratorConfig()))  # its sizes come from the file
    assert last(other)["networks"]["landmark_generator"]["lip_head.weight"].shape == (80, 16)


def test_another_setting_is_refused_by_name(config: Config) -> None:
    main(config)
    with pytest.raises(UserError, match=r"--model.width: .* was started with 16, not 32"):
        main(replace(config, model=replace(TINY, width=32)))


def test_overfits_a_few_samples(config: Config) -> None:
    model = replace(TINY, dropout=0.0, reference_skip=True)
    main(replace(config, model=model, overfit=2, steps=60, learning_rate=5e-3, validate_every=60))
    losses = [row["l1"] for row in read_metrics(config.run) if row["group"] == "train"]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


def test_dry_run_writes_nothing(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    main(replace(config, dry_run=True))
    assert "parameters" in capsys.readouterr().out
    assert not config.run.exists()


def test_batch_larger_than_the_data(config: Config) -> None:
    with pytest.raises(UserError, match="--batch: 64 is more than the 8 training samples"):
        main(replace(config, batch=64))
