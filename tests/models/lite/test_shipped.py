"""The shipped weights give the outputs that were stored when they were trained."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import models
from models.lite.landmark_generator import LiteLandmarkGenerator
from models.lite.renderer import LiteRenderer
from networks import SHIPPED_WEIGHTS

STORED = Path(__file__).parent / "shipped_outputs.npz"
# Exact in one thread on the machine that stored them; with two threads they differ by 2e-6.
TOLERANCE = 1e-5


def inputs() -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Inputs of the renderer, its larger reference pictures, and inputs of the landmark generator; B = 2, N = 5."""
    generator = torch.Generator().manual_seed(3)
    batch, count, num_frames = 2, 5, 15

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def noise(*shape: int) -> Tensor:
        return 0.02 * torch.randn(*shape, generator=generator)

    def smooth(number: int) -> Tensor:
        return F.interpolate(rand(number, 3, 16, 16), size=(128, 128), mode="bicubic").clamp(0, 1)

    def sketches(number: int) -> Tensor:
        lines = (rand(batch, number, 1, 128, 128) > 0.97).float() * 0.878
        return lines.expand(-1, -1, 3, -1, -1)

    masked_target = smooth(batch).clone()
    masked_target[:, :, 64:] = 0
    target_sketches = sketches(5)
    images = smooth(batch * count).unflatten(0, (batch, count))
    reference_sketches = sketches(count)
    mel = rand(batch, 1, 80, 16) * 8 - 4
    face = rand(1, 131, 2)
    landmarks = face + noise(batch, 131, 2)
    reference_landmarks = face[:, None] + noise(batch, count, 131, 2)
    pictures = F.interpolate(images.flatten(0, 1), scale_factor=2, mode="bicubic").clamp(0, 1)
    window = rand(batch, num_frames, 1, 80, 16) * 8 - 4
    references = face[:, None] + noise(batch, 15, 131, 2)
    pose = face[:, None, :74] + noise(batch, num_frames, 74, 2)
    of_renderer = [masked_target, target_sketches, images, reference_sketches, mel, landmarks, reference_landmarks]
    return of_renderer, pictures.unflatten(0, (batch, count)), [window, pose, references]


@torch.inference_mode()
def test_shipped_weights_give_the_stored_outputs() -> None:
    of_renderer, pictures, of_landmark_generator = inputs()
    renderer = models.load(SHIPPED_WEIGHTS / "renderer.safetensors")
    landmark_generator = models.load(SHIPPED_WEIGHTS / "landmark_generator.safetensors")
    assert isinstance(renderer, LiteRenderer) and isinstance(landmark_generator, LiteLandmarkGenerator)
    output = renderer(*of_renderer)
    assert output.motion is not None
    lip, jaw = landmark_generator(*of_landmark_generator)
    outputs = {
        "face": output.face[..., ::4, ::4],
        "warped": output.warped_reference[..., ::4, ::4],
        "flow": output.motion.flow[..., ::8, ::8],
        "weight": output.motion.weight[..., ::8, ::8],
        "sharp": renderer.sharpen(output, pictures)[..., ::8, ::8],
        "lip": lip,
        "jaw": jaw,
    }
    with np.load(STORED) as stored:
        assert set(stored.files) == set(outputs)
        for name, values in outputs.items():
            torch.testing.assert_close(values, torch.from_numpy(stored[name]), rtol=0, atol=TOLERANCE, msg=name)
