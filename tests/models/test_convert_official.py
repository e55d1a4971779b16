"""Conversion of released checkpoints: what it refuses, and the settings that it writes."""

from pathlib import Path

import pytest
import torch

from face import fingerprint, landmarks
from models import convert_official
from models.configs import RendererConfig
from models.renderer import Renderer
from runtime.command_line import UserError


def refused(source: Path, output: Path) -> str:
    with pytest.raises(UserError) as caught:
        convert_official.main(convert_official.ConvertConfig(source, output))
    assert not output.exists() and list(output.parent.glob(f".{output.name}*")) == []
    return str(caught.value)


def test_the_projects_settings_are_the_released_ones() -> None:
    """The released margin was 5 pixels on faces about 100 pixels wide; rounding and smoothing are as in inference."""
    released = {
        "audio.sample_rate": 16000, "audio.n_fft": 800, "audio.window": 800, "audio.hop": 200, "audio.n_mels": 80,
        "audio.fmin": 55, "audio.fmax": 7600, "audio.preemphasis": 0.97, "audio.silence": -4.0, "audio.fps": 25,
        "audio.mel_columns": 16, "crop.size": 128, "crop.margin": 0.05, "crop.smoothing": 2,
        "crop.rounding": "nearest, half up", **landmarks.settings(),
    }  # fmt: skip
    fingerprint.check(released, fingerprint.current(128), "released weights")


def test_refuses_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    text = tmp_path / "weights.pth"
    text.write_text("not a checkpoint")
    assert str(text) in refused(text, tmp_path / "out.safetensors")
    for wrong in (tmp_path / "missing.pth", tmp_path):
        assert f"SOURCE: {wrong} " in refused(wrong, tmp_path / "out.safetensors")


@pytest.mark.parametrize("content", [{"state_dict": {"a": torch.zeros(1)}}, {"state_dict": 3}, torch.zeros(2), [1, 2]])
def test_refuses_other_networks(tmp_path: Path, content: object) -> None:
    source = tmp_path / "other.pth"
    torch.save(content, source)
    message = refused(source, tmp_path / "out.safetensors")
    assert str(source) in message and "\n" not in message


@pytest.mark.parametrize("marker", ["fusion_transformer.modality.weight", "flow_module.conv1.weight"])
def test_refuses_incomplete_networks(tmp_path: Path, marker: str) -> None:
    source = tmp_path / "part.pth"
    torch.save({"state_dict": {marker: torch.zeros(4, 512)}}, source)
    assert "not a released checkpoint" in refused(source, tmp_path / "out.safetensors")


def test_refuses_converted_weights() -> None:  # a second exchange of the colours would undo the first
    with pytest.raises(UserError, match="neither"):
        convert_official.convert(Renderer(RendererConfig()).state_dict())


def test_refuses_unwritable_output(tmp_path: Path) -> None:
    (tmp_path / "in.pth").touch()
    with pytest.raises(UserError, match="safetensors"):
        convert_official.main(convert_official.ConvertConfig(tmp_path / "in.pth", tmp_path / "in.pth"))
    with pytest.raises(UserError, match="does not exist"):
        convert_official.main(convert_official.ConvertConfig(tmp_path / "in.pth", tmp_path / "no" / "out.safetensors"))


def test_unknown_names_are_not_dropped() -> None:
    state = {"fusion_transformer.modality.weight": torch.zeros(4, 512), "surprise.weight": torch.zeros(1)}
    with pytest.raises(RuntimeError, match="surprise"):
        convert_official.convert(state)
