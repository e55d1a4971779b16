"""Stage 2 through its main(), on made-up clips, a tiny network and a made-up VGG-19."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import models
from command_line import UserError
from datasets.sampling import SamplingConfig
from losses.render import RenderLossConfig
from models.discriminator import DiscriminatorConfig
from models.renderer import RendererConfig
from tests.datasets.made_up import write_clip
from train_render import Config, main
from training import checkpoint
from training.run_folder import read_metrics

TINY = RendererConfig(
    size=32, sketch_channels=1, shallow=4, deep=8, alignment_deep=8, modulation=4, style_hidden=4, audio_width=2
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cache")
    for number in range(4):
        write_clip(root, f"speaker{number}/clip", num_frames=30, size=32, seed=number)
    return root


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise of the right shapes, up to relu2_1."""
    path = tmp_path_factory.mktemp("vgg") / "vgg.pth"
    shapes = {0: (64, 3), 2: (64, 64), 5: (128, 64)}
    state = {f"features.{i}.weight": 0.1 * torch.randn(*shape, 3, 3) for i, shape in shapes.items()}
    torch.save(state | {f"features.{i}.bias": torch.zeros(shape[0]) for i, shape in shapes.items()}, path)
    return path


@pytest.fixture
def config(cache: Path, vgg: Path, tmp_path: Path) -> Config:
    return Config(
        cache=cache, run=tmp_path / "run", vgg=vgg, model=TINY, discriminator=DiscriminatorConfig(width=4),
        loss=RenderLossConfig(layers=(1, 2), warmup_epochs=1), sampling=SamplingConfig(samples_per_epoch=4), batch=2,
        steps=6, workers=0, log_every=1, validate_every=3, num_references=2, val_samples=2, device="cpu",
    )  # fmt: skip


def state_of(config: Config) -> dict:
    state = checkpoint.load_latest(config.run / "checkpoints")
    assert state is not None
    return state


def test_warms_up_then_trains_everything_and_resumes(config: Config, tmp_path: Path) -> None:
    main(config)
    rows = [row for row in read_metrics(config.run) if row["group"] == "train"]
    assert [sorted(set(row) & {"warp", "perceptual", "style", "adversarial", "discriminator"}) for row in rows] == (
        2 * [["warp"]] + 4 * [["adversarial", "discriminator", "perceptual", "style", "warp"]]
    )
    halves = replace(config, run=tmp_path / "halves")
    main(replace(halves, steps=4))
    main(halves)
    for name, network in state_of(config)["networks"].items():
        for key, value in network.items():
            assert torch.equal(value, state_of(halves)["networks"][name][key]), (name, key)
    assert models.load(config.run / "renderer.safetensors").config == TINY


def test_missing_vgg_weights_say_where_to_get_them(config: Config) -> None:
    with pytest.raises(UserError, match=r"vgg19-dcbb9e9d.pth and put it into checkpoints"):
        main(replace(config, vgg=Path("nowhere.pth")))
