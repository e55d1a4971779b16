"""Sketches, pixel for pixel as the released code draws them."""

from pathlib import Path

import numpy as np

from face.landmarks import EDGES
from face.sketch import draw_sketch, draw_sketches


def test_equals_the_released_code(shared: Path) -> None:
    reference = np.load(shared / "reference" / "sketch.npz")
    for points, (height, width), sketch in zip(
        reference["landmarks"], reference["crop_height_width"], reference["sketch"], strict=True
    ):
        ours = draw_sketch(points.T, int(height), int(width))
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, sketch)


def test_lines_end_where_the_landmarks_are() -> None:
    points = np.full((131, 2), np.nan)
    a, b = EDGES[0]
    points[a], points[b] = (0.25, 0.5), (0.75, 0.5)
    sketch = draw_sketch(points, 128, 128)
    assert sketch.shape == (128, 128, 3)
    rows, columns = np.nonzero(sketch[..., 0])
    assert set(rows) == {64}
    assert (columns.min(), columns.max()) == (32, 96)
    assert set(np.unique(sketch)) == {0, 224}
    assert (sketch == sketch[..., :1]).all()


def test_edges_with_an_end_outside_or_missing_are_left_out() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0.1, 0.9, (131, 2))
    for wrong in (1.01, -0.01, np.nan):
        off = points.copy()
        off[EDGES[7][0], 1] = wrong
        assert 0 < (draw_sketch(off, 100, 100) > 0).sum() < (draw_sketch(points, 100, 100) > 0).sum()
    assert (draw_sketch(np.full((131, 2), np.nan), 100, 100) == 0).all()
    assert draw_sketch(np.ones((131, 2)), 100, 100)[-1, -1, 0] == 224  # 1.0 is the last pixel


def test_several_at_once_and_other_sizes() -> None:
    points = np.random.default_rng(0).uniform(0, 1, (5, 131, 2))
    many = draw_sketches(points, 90, 140, 256)
    assert many.shape == (5, 256, 256)
    for one, sketch in zip(points, many, strict=True):
        np.testing.assert_array_equal(draw_sketch(one, 90, 140, 256)[..., 2], sketch)
