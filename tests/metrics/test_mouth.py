"""Mouths: upright crops of the same size, and closed forms of realism and sharpness."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from face.landmarks import EYES, LIP_SLICE
from media.timing import evenly_spaced
from metrics.image_quality import LPIPS
from metrics.mouth import EXTENT, SIDE, RealMouths, laplacian_energy, mouth_crop

EYE_DISTANCE = 40.0


@pytest.fixture(scope="module")
def lpips(shared: Path) -> LPIPS:
    return LPIPS("alex", shared / "weights" / "alexnet_features_torchvision.pth")


def crops(count: int) -> np.ndarray:
    """Different parts of a photograph (n, 96, 96, 3)."""
    picture = data.astronaut()
    corners = [(9 * i % 400, 31 * i % 400) for i in range(count)]
    return np.stack([picture[y : y + SIDE, x : x + SIDE] for y, x in corners])


def landmarks(lips: tuple[float, float], angle: float = 0.0, scale: float = 1.0) -> np.ndarray:
    """A face (131, 2) with eyes 40 * scale pixels apart, tilted by an angle in radians."""
    points = np.zeros((131, 2))
    axis = np.array([np.cos(angle), np.sin(angle)]) * EYE_DISTANCE * scale
    points[EYES[0]] = -axis / 2
    points[EYES[1]] = axis / 2
    points[LIP_SLICE] = lips
    return points


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_crop_is_upright_centred_and_sized_by_the_eyes(angle: float, scale: float) -> None:
    """A bright bar along the mouth, half as long as the crop, becomes the same bar at any tilt and size."""
    centre = np.array([200.0, 160.0])
    axis = np.array([np.cos(angle), np.sin(angle)])
    frame = np.zeros((400, 400, 3), np.uint8)
    half = EXTENT * EYE_DISTANCE * scale / 4
    ends = [tuple((centre + sign * half * axis).round().astype(int).tolist()) for sign in (-1, 1)]
    cv2.line(frame, ends[0], ends[1], (255, 255, 255), max(1, round(8 * scale)))
    crop = mouth_crop(frame, landmarks((200.0, 160.0), angle, scale))
    assert crop.shape == (SIDE, SIDE, 3)
    rows, columns = np.nonzero(crop[..., 0] > 128)
    assert np.ptp(columns) + 1 == pytest.approx(SIDE / 2 + SIDE * 8 / (EXTENT * EYE_DISTANCE), abs=5)
    assert np.ptp(rows) < SIDE / 4, "horizontal"
    assert (rows.mean(), columns.mean()) == pytest.approx(((SIDE - 1) / 2, (SIDE - 1) / 2), abs=1.5)


def test_laplacian_energy_of_a_checkerboard_and_of_grey() -> None:
    squares = np.where(np.indices((32, 32)).sum(0) % 2, 255, 0).astype(np.uint8)
    board = np.repeat(squares[..., None], 3, axis=2)
    energies = laplacian_energy(np.stack([board, np.full_like(board, 90)]))
    assert energies[0] == pytest.approx((4 * 255) ** 2, rel=0.1)
    assert energies[1] == 0


def test_real_mouths_themselves_are_sharp_and_at_no_distance(lpips: LPIPS) -> None:
    scores = RealMouths(crops(8), np.arange(8) * 20, lpips).compare(crops(8))
    np.testing.assert_allclose(scores["mouth sharpness"], 1)
    np.testing.assert_allclose(scores["mouth distance"], 0, atol=0.02)
    assert not scores["mouth outliers"].any()


def test_blurred_mouths_are_below_1_in_sharpness(lpips: LPIPS) -> None:
    mouths = crops(8)
    blurred = np.stack([cv2.GaussianBlur(mouth, (0, 0), 1.0) for mouth in mouths])
    scores = RealMouths(mouths, np.arange(8) * 20, lpips).compare(blurred)
    expected = laplacian_energy(blurred) / laplacian_energy(mouths)  # each is nearest to its own picture
    np.testing.assert_allclose(scores["mouth sharpness"], expected)
    assert expected.mean() < 0.5


def test_other_pictures_are_outliers(lpips: LPIPS) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    scores = RealMouths(crops(8), np.arange(8) * 20, lpips).compare(np.concatenate([crops(2), noise]))
    assert scores["mouth outliers"].tolist() == [0, 0, 1, 1]
    assert scores["mouth distance"][2:].min() > 1


def test_real_distances_are_lpips_to_mouths_half_a_second_away(lpips: LPIPS) -> None:
    import torch

    mouths = crops(3)
    real = RealMouths(mouths, np.array([0, 12, 25]), lpips)  # the second is near the first, and 13 from the third
    images = torch.from_numpy(mouths).permute(0, 3, 1, 2).float() / 255
    first, second, third = images.split(1)
    expected = [
        float(lpips(first, third)),
        float(lpips(second, third)),
        min(float(lpips(first, third)), float(lpips(second, third))),
    ]
    np.testing.assert_allclose(real.distances, expected, atol=1e-4)


def test_a_short_video_has_only_sharpness(lpips: LPIPS) -> None:
    scores = RealMouths(crops(5), np.arange(5), lpips).compare(crops(5))
    assert scores.keys() == {"mouth sharpness"}


@pytest.mark.parametrize("side", [48, 192])
def test_crop_has_the_side_asked_for(side: int) -> None:
    frame = data.astronaut()
    crop = mouth_crop(frame, landmarks((224.0, 140.0)), side)
    usual = cv2.resize(mouth_crop(frame, landmarks((224.0, 140.0))), (side, side), interpolation=cv2.INTER_AREA)
    assert crop.shape == (side, side, 3)
    assert np.abs(crop.astype(int) - usual).mean() < 8


def test_positions_are_evenly_spaced() -> None:
    assert evenly_spaced(3, 5).tolist() == [0, 1, 2]
    assert evenly_spaced(101, 5).tolist() == [0, 25, 50, 75, 100]
