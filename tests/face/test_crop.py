"""The crop rule: margin, clipping, smoothing, rounding, and conversion of coordinates in both directions."""

import cv2
import numpy as np
import pytest

from face import crop


def test_margin_is_relative_and_clipped() -> None:
    points = np.array([[100, 50], [200, 150], [150, 250]], np.float32)
    np.testing.assert_allclose(crop.box_around(points, (640, 480)), [95, 40, 205, 260], atol=1e-4)
    np.testing.assert_allclose(crop.box_around(points, (203, 255)), [95, 40, 203, 255], atol=1e-4)
    np.testing.assert_allclose(crop.box_around(points - 98, (640, 480)), [0, 0, 107, 162], atol=1e-4)
    np.testing.assert_allclose(crop.box_around(points - 98), [-3, -58, 107, 162], atol=1e-4)


@pytest.mark.parametrize("centre", [(-500, -500), (900, 900), (50, 50), (-3, 20)])
def test_boxes_are_never_degenerate(centre: tuple[int, int]) -> None:
    points = np.array([centre, centre], np.float32)
    box = crop.box_around(points, (100, 80))
    rounded = crop.smooth_boxes(box[None], np.array([True]))[0]
    for b in (box, rounded):
        assert (b[2:] - b[:2] >= 2).all()
        assert (b[:2] >= 0).all()
        assert (b[2:] <= [100, 80]).all()


def test_smoothing_averages_five_frames_of_the_same_face() -> None:
    boxes = np.tile(np.array([10.0, 20, 110, 140]), (7, 1))
    boxes[3] += 5
    smooth = crop.smooth_boxes(boxes, np.ones(7, bool))
    assert smooth.dtype == np.int32
    np.testing.assert_array_equal(smooth[[0, 6]], boxes[[0, 6]])
    np.testing.assert_array_equal(smooth[1:6], boxes[[0] * 5] + 1)
    np.testing.assert_array_equal(crop.smooth_boxes(boxes[:1] + 0.5, np.ones(1, bool))[0], [11, 21, 111, 141])


def test_smoothing_keeps_off_missing_frames_and_cuts() -> None:
    boxes = np.tile(np.array([10.0, 20, 110, 140]), (6, 1))
    boxes[3:] += 300  # a cut
    boxes[1] = np.nan
    smooth = crop.smooth_boxes(boxes, np.array([1, 0, 1, 1, 1, 1], bool))
    np.testing.assert_array_equal(smooth[[0, 2]], [[10, 20, 110, 140]] * 2)
    np.testing.assert_array_equal(smooth[1], 0)
    np.testing.assert_array_equal(smooth[3:], [[310, 320, 410, 440]] * 3)
    assert crop.smooth_boxes(np.zeros((0, 4)), np.zeros(0, bool)).shape == (0, 4)
    near = np.repeat([[10.0, 20, 110, 140], [20, 20, 120, 140]], 3, axis=0)  # a cut to a face in much the same place
    np.testing.assert_array_equal(crop.smooth_boxes(near, np.ones(6, bool), np.repeat([0, 1], 3)), near)
    assert (crop.smooth_boxes(near, np.ones(6, bool)) != near).any()


def test_smoothing_steadies_a_shaking_box() -> None:
    boxes = np.array([100, 100, 200, 220]) + np.random.default_rng(0).normal(0, 3, (200, 4))
    smooth = crop.smooth_boxes(boxes, np.ones(200, bool))
    assert np.abs(np.diff(smooth, axis=0)).mean() < 0.4 * np.abs(np.diff(boxes, axis=0)).mean()


def test_overlap() -> None:
    a = np.array([0.0, 0, 10, 10])
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [30, 30, 40, 40], [np.nan] * 4], float)
    np.testing.assert_allclose(crop.overlap(a, others), [1, 1 / 3, 0, 0, 0])


def test_crop_coordinates_go_there_and_back() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 300, (4, 131, 2)).astype(np.float32)
    boxes = np.array([[10, 20, 110, 140], [0, 0, 300, 300], [7, 9, 8, 12], [250, 3, 299, 77]], np.int32)
    inside = crop.to_crop(points, boxes)
    assert inside.dtype == np.float32
    np.testing.assert_allclose(crop.to_frame(inside, boxes), points, atol=1e-3)
    np.testing.assert_allclose(crop.to_crop(np.array([[10, 140.0]]), boxes[0]), [[0, 1]])
    assert np.isnan(crop.to_crop(np.full((1, 131, 2), np.nan), np.zeros((1, 4)))).all()


@pytest.mark.parametrize("box", [(3, 4, 13, 9), (0, 0, 400, 300), (100, 100, 228, 228)])
def test_crop_face_resizes_without_shift(box: tuple[int, ...]) -> None:
    ramp = np.broadcast_to((np.arange(400) / 2)[None, :, None], (300, 400, 3)).round().astype(np.uint8)
    face = crop.crop_face(ramp, np.array(box), 64)
    assert face.shape == (64, 64, 3)
    assert face.dtype == np.uint8
    middle = (box[0] + box[2] - 1) / 4  # grey value at the box's middle column
    assert abs(face[:, 31:33].mean() - middle) < 1


@pytest.mark.parametrize("box", [(3, 4, 13, 9), (0, 0, 400, 300), (100, 100, 228, 228)])
def test_crop_detail_resizes_without_shift(box: tuple[int, ...]) -> None:
    ramp = np.broadcast_to((np.arange(400) / 2)[None, :, None], (300, 400, 3)).round().astype(np.uint8)
    face = crop.crop_face(ramp, np.array(box), 64, detail=True)
    assert face.shape == (64, 64, 3)
    assert face.dtype == np.uint8
    middle = (box[0] + box[2] - 1) / 4  # grey value at the box's middle column
    assert abs(face[:, 31:33].mean() - middle) < 1


def test_resize_detail_keeps_fine_detail_there_and_back() -> None:
    face = np.random.default_rng(0).uniform(0, 255, (140, 140, 3)).astype(np.float32)
    face = cv2.GaussianBlur(face, (0, 0), 0.7)

    def energy(picture: np.ndarray) -> float:
        return float(np.square(cv2.Laplacian(picture, cv2.CV_32F)[4:-4, 4:-4]).mean())

    again = crop.resize_face(crop.resize_face(face, (256, 256), detail=True), (140, 140), detail=True)
    blurred = crop.resize_face(crop.resize_face(face, (256, 256)), (140, 140))
    assert energy(again) > 0.9 * energy(face)
    assert energy(blurred) < 0.7 * energy(face)


def test_settings_hold_every_number_of_the_rule() -> None:
    assert crop.settings(256)["crop.size"] == 256
    assert {"crop.margin", "crop.smoothing", "crop.rounding"} <= set(crop.settings())
