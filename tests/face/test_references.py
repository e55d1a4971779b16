"""References spread over lip openness, and the nearest ones."""

import numpy as np

from face.landmarks import INNER_LIPS, LIP_SLICE, MIDDLE_LIPS
from face.references import lip_openness, nearest_references, spread_over_openness


def test_openness_is_relative_to_the_box() -> None:
    points = np.zeros((3, 131, 2))
    points[:, MIDDLE_LIPS[0, 1]] = [3, 4]
    np.testing.assert_allclose(lip_openness(points, np.array([10, 20, 50])), [0.5, 0.25, 0.1])
    assert (lip_openness(points, 10.0, INNER_LIPS) == 0).all()
    assert np.isnan(lip_openness(np.full((131, 2), np.nan), 10.0))


def test_positions_are_even_over_the_order() -> None:
    openness = np.random.default_rng(0).permutation(101) / 100
    chosen = spread_over_openness(openness, 6)
    np.testing.assert_allclose(openness[chosen], [0, 0.2, 0.4, 0.6, 0.8, 1.0])
    for frames, count in ((7, 3), (100, 25), (16, 15), (40, 2)):
        openness = np.random.default_rng(1).uniform(size=frames)
        positions = [int(i * (frames - 1) / (count - 1)) for i in range(count)]
        np.testing.assert_array_equal(spread_over_openness(openness, count), np.argsort(openness)[positions])


def test_short_clips_give_every_frame_once() -> None:
    openness = np.array([0.3, 0.1, 0.2])
    for count in (3, 4, 25):
        np.testing.assert_array_equal(spread_over_openness(openness, count), [1, 2, 0])


def test_one_reference_is_the_middle_one_and_unusable_frames_are_never_taken() -> None:
    assert spread_over_openness(np.array([0.5, 0.1, 0.9]), 1).tolist() == [0]
    assert sorted(spread_over_openness(np.array([np.nan, 0.4, np.nan, 0.2]), 5)) == [1, 3]
    assert 0 not in spread_over_openness(np.array([np.nan, 0.4, 0.3, 0.2]), 2)
    assert len(spread_over_openness(np.full(4, np.nan), 3)) == 0


def test_ties_are_broken_by_time() -> None:
    np.testing.assert_array_equal(spread_over_openness(np.zeros(5), 5), np.arange(5))


def test_nearest_references_are_sorted_by_distance_and_lips_count_double() -> None:
    candidates = np.zeros((4, 131, 2))
    candidates[1] += 0.03  # the whole face is elsewhere
    candidates[2, LIP_SLICE] += 0.04  # only the mouth differs
    candidates[3] += 0.01
    assert nearest_references(candidates[:1], candidates, 4)[0].tolist() == [0, 3, 2, 1]
    assert nearest_references(candidates[[1, 3]], candidates, 1).tolist() == [[1], [3]]
    candidates[2, LIP_SLICE] += 0.02
    assert nearest_references(candidates[:1], candidates, 4)[0].tolist() == [0, 3, 1, 2]
