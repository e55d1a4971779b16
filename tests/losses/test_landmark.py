"""Loss of stage 1, compared with the released values and with values computed by hand."""

from pathlib import Path

import pytest
import torch

from losses.landmark import LandmarkLossConfig, landmark_loss
from tests.models.released import case


def test_parity(shared: Path) -> None:
    z = case(shared / "reference", "landmark_losses")
    (true_jaw, true_lip), (jaw, lip) = (
        z[name].view(2, 5, 2, 57).transpose(-1, -2).split([17, 40], dim=-2) for name in ("target", "predicted")
    )
    losses = landmark_loss(lip, jaw, true_lip, true_jaw, LandmarkLossConfig())
    for symbol, name in (("L_1", "l1"), ("L_c", "velocity")):
        assert losses[symbol].item() == pytest.approx(z[name].item(), abs=1e-5, rel=1e-6)
    assert losses["L"] == losses["L_1"] + losses["L_c"]


def test_constant_offset_has_no_continuity_error() -> None:
    lip, jaw = torch.rand(3, 5, 40, 2), torch.rand(3, 5, 17, 2)
    losses = landmark_loss(lip + 0.5, jaw - 0.5, lip, jaw, LandmarkLossConfig(velocity=3))
    assert losses["L_1"].item() == pytest.approx(0.5, abs=1e-6)
    assert losses["L_c"].item() == pytest.approx(0, abs=1e-5)


def test_single_displaced_frame_by_hand() -> None:
    true_lip, true_jaw = torch.zeros(1, 3, 40, 2), torch.zeros(1, 3, 17, 2)
    lip = true_lip.clone()
    lip[0, 1, 0] = torch.tensor([3.0, 4.0])  # a move of length 5 and the move back
    losses = landmark_loss(lip, true_jaw, true_lip, true_jaw, LandmarkLossConfig(velocity=2))
    assert losses["L_1"].item() == pytest.approx(7 / (3 * 114))
    assert losses["L_c"].item() == pytest.approx(5)
    assert losses["L"].item() == pytest.approx(7 / (3 * 114) + 10)


def test_windows_of_one_frame_have_no_continuity_error() -> None:
    lip, jaw, true_lip, true_jaw = (torch.rand(2, 1, points, 2) for points in (40, 17, 40, 17))
    losses = landmark_loss(lip, jaw, true_lip, true_jaw, LandmarkLossConfig())
    assert losses["L_c"] == 0 and losses["L"].isfinite()
