"""Checkpoints in the released format, converted as users do it, give the released networks' outputs."""

from pathlib import Path

import pytest
import torch

import models
from models import convert_official
from models.discriminator import Discriminator
from models.landmark_generator import LandmarkGenerator
from models.renderer import Renderer
from tests.models.released import case, rgb, state_dict


@pytest.fixture(scope="module")
def reference(shared: Path) -> Path:
    return shared / "reference"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("converted")


def convert(reference: Path, folder: Path, name: str) -> Path:
    """Converts a made-up checkpoint as released: a wrapped state dict with keys of a data-parallel trainer."""
    source, output = folder / f"{name}.pth", folder / f"{name}.safetensors"
    state = {f"module.{key}": value for key, value in state_dict(reference, name).items()}
    torch.save({"state_dict": state, "optimizer": None, "global_step": 12, "global_epoch": 1}, source)
    convert_official.main(convert_official.ConvertConfig(source, output))
    return output


@torch.inference_mode()
def test_landmark_generator(reference: Path, folder: Path) -> None:
    network = models.load(convert(reference, folder, "landmark_generator"), "landmark")
    assert network.extra["step"] == 12 and isinstance(network, LandmarkGenerator)
    z = case(reference, "landmark_generator")
    faces = torch.cat([z["reference_pose"], z["reference_content"]], dim=-1).transpose(-1, -2)
    lip, jaw = network(z["mel"], z["pose"].transpose(-1, -2), faces)
    found = torch.cat([jaw, lip], dim=-2).flatten(0, 1).transpose(-1, -2)
    torch.testing.assert_close(found, z["content"], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def renderer(reference: Path, folder: Path) -> Renderer:
    return models.load(convert(reference, folder, "renderer"), "render")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tolerance"), [("n1", 1e-5), ("n3", 1e-5), ("b2", 1e-5), ("n25", 1e-4)])
@torch.inference_mode()
def test_renderer(reference: Path, renderer: Renderer, name: str, tolerance: float) -> None:
    z = {key.removeprefix(f"{name}_"): value for key, value in case(reference, "renderer").items() if name in key}
    masked = rgb(z["face"][:, 0])
    masked[:, :, 64:] = 0
    output = renderer(masked, z["target_sketches"], rgb(z["reference_images"]), z["reference_sketches"], z["mel"][:, 0])
    torch.testing.assert_close(rgb(output.face), z["out"], rtol=0, atol=tolerance)
    torch.testing.assert_close(rgb(output.warped_reference), z["warped"], rtol=0, atol=tolerance)


@torch.inference_mode()
def test_discriminator(reference: Path) -> None:
    network, z = Discriminator(64), case(reference, "discriminator")
    # The full-size scale, our first, is the released scale1.
    names = {f"scales.{s}.convs.{i}.{k}": f"scale{1 - s}_layer{i}.0.{k}"
             for s in range(2) for i in range(5) for k in ("weight", "bias")}  # fmt: skip
    state = state_dict(reference, "discriminator")
    network.load_state_dict({name: state[released] for name, released in names.items()})
    for s, scale in enumerate(network(z["fake"])):
        for i, features in enumerate(scale):
            torch.testing.assert_close(features.mean((-1, -2)), z[f"s{s}_l{i}"], rtol=0, atol=1e-5)
