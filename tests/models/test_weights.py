"""Weight files: saving and loading, and one-line errors that name the file."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import models
from face import fingerprint
from models import weights
from models.configs import LandmarkGeneratorConfig, RendererConfig
from models.landmark_generator import LandmarkGenerator
from models.lite.landmark_generator import LiteLandmarkGeneratorConfig
from models.lite.renderer import LiteRenderer, LiteRendererConfig
from runtime.command_line import UserError
from tests.models.lite.test_renderer import inputs

SETTINGS = fingerprint.current()
SMALL = LandmarkGeneratorConfig(width=16, layers=1, heads=2, feed_forward=32, audio_width=2, landmark_width=1)


@pytest.fixture
def network() -> LandmarkGenerator:
    torch.manual_seed(0)
    return LandmarkGenerator(SMALL)


def refused(path: Path, stage: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        models.load(path, stage)
    message = str(caught.value)
    assert str(path) in message
    return message


def save_with_settings(network: Any, path: Path, settings: dict[str, Any]) -> None:
    """Saves a network as a version with these settings would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "input_settings", lambda _: settings)
        weights.save(network, path, {})


@pytest.mark.parametrize(("half", "tolerance"), [(False, 0.0), (True, 1e-3)])
def test_loads_what_was_saved(tmp_path: Path, network: LandmarkGenerator, half: bool, tolerance: float) -> None:
    path = tmp_path / "landmark.safetensors"
    weights.save(network, path, {"step": 7, "losses": {"l1": 0.5}}, half)
    loaded = models.load(path)
    assert isinstance(loaded, LandmarkGenerator) and loaded.config == SMALL and not loaded.training
    assert loaded.extra == {"step": 7, "losses": {"l1": 0.5}}
    for name, value in network.state_dict().items():
        found = loaded.state_dict()[name]
        assert found.dtype == value.dtype, name
        torch.testing.assert_close(found, value, rtol=tolerance, atol=tolerance)
    assert [file.name for file in tmp_path.iterdir()] == ["landmark.safetensors"]
    (tmp_path / "any other file").touch()
    assert path.stat().st_mode == (tmp_path / "any other file").stat().st_mode


def test_renderer_keeps_its_layout_and_output(tmp_path: Path) -> None:
    renderer = LiteRenderer(LiteRendererConfig()).eval()
    weights.save(renderer, tmp_path / "renderer.safetensors", {}, half=False)
    loaded = models.load(tmp_path / "renderer.safetensors", "render")
    assert loaded.translation.to_rgb.weight.is_contiguous(memory_format=torch.channels_last)
    assert isinstance(loaded, LiteRenderer) and loaded.config == renderer.config
    values = inputs(renderer.config, batch=1, references=2)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(*values).face, renderer(*values).face)


@pytest.mark.parametrize("config", [SMALL, LiteLandmarkGeneratorConfig(), RendererConfig(), LiteRendererConfig()])
def test_build_makes_the_network_of_the_config(config: Any) -> None:
    network = models.build(config)
    assert network.config == config
    assert type(network).__name__ == type(config).__name__.removesuffix("Config")


def test_weights_of_the_other_stage_are_refused(tmp_path: Path, network: LandmarkGenerator) -> None:
    path = tmp_path / "a.safetensors"
    weights.save(network, path, {})
    message = refused(path, "render")
    assert "holds a landmark generator (stage 1)" in message and "a renderer (stage 2) is needed" in message


def test_weights_made_with_other_settings_are_refused(tmp_path: Path, network: LandmarkGenerator) -> None:
    path = tmp_path / "a.safetensors"
    save_with_settings(network, path, SETTINGS | {"audio.hop": 160})
    assert "made with audio.hop = 160, but 200" in refused(path)
    renderer = LiteRenderer(LiteRendererConfig(size=64))
    weights.save(renderer, path, {})
    assert models.load(path).config == renderer.config
    save_with_settings(renderer, path, SETTINGS)
    assert "made with crop.size = 128, but 64" in refused(path)


@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.99])
def test_truncated_files_are_damaged(tmp_path: Path, network: LandmarkGenerator, kept: float) -> None:
    path = tmp_path / "a.safetensors"
    weights.save(network, path, {})
    content = path.read_bytes()
    path.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    assert ("damaged" if kept else "empty") in refused(path)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    assert "no.safetensors cannot be opened: No such file" in refused(tmp_path / "no.safetensors")
    assert "is a folder" in refused(tmp_path)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    assert "convert_official" in refused(foreign)
    save_file(
        {"a": torch.zeros(1)},
        foreign,
        {"stage": "vocoder", "family": "lite", "config": "{}", "settings": "{}", "extra": "{}"},
    )
    assert "no weights of this project" in refused(foreign)
    pickled = tmp_path / "weights.pth"
    torch.save({"a": torch.zeros(1)}, pickled)
    assert "PyTorch checkpoint" in refused(pickled) and "python -m models.convert_official" in refused(pickled)
    renamed = pickled.rename(tmp_path / "weights.safetensors")
    assert "python -m models.convert_official" in refused(renamed)


def test_weights_of_another_version_are_refused(tmp_path: Path, network: LandmarkGenerator) -> None:
    path = tmp_path / "a.safetensors"
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    metadata = {"stage": "landmark", "family": "paper", "settings": "{}", "extra": "{}"}
    save_file(state, path, metadata | {"config": json.dumps({"wheels": 4})})
    assert "cannot load" in refused(path)
    save_file(state, path, metadata | {"config": json.dumps({"width": 24})})
    assert "cannot load" in refused(path)


def test_failed_save_leaves_the_old_file(
    tmp_path: Path, network: LandmarkGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    weights.save(network, path, {})
    before = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        os.truncate(descriptor, 100)
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(UserError, match=r"a.safetensors could not be written .No space left on device.; free space"):
        weights.save(network, path, {})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
