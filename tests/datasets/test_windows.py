"""Index functions agree with plain definitions."""

import numpy as np
import pytest

from datasets.windows import longest_run, sample_references, shown_frames, window_starts


@pytest.mark.parametrize("seed", range(20))
def test_window_starts_and_longest_run(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = rng.random(rng.integers(5, 40)) < 0.8
    for length in (1, 2, 5):
        starts = [s for s in range(len(found) - length + 1) if found[s : s + length].all()]
        assert window_starts(found, length).tolist() == starts
    runs = "".join("x" if f else " " for f in found).split()
    assert longest_run(found) == max(map(len, runs), default=0)


@pytest.mark.parametrize(("most", "frames"), [(4, [10, 11, 12, 13]), (20, [10, 11, 12, 13, 14, 15])])
def test_shown_frames_leave_half_of_the_longest_run(most: int, frames: list[int]) -> None:
    found = np.ones(30, dtype=bool)
    found[[3, 9, 21]] = False
    assert shown_frames(found, most).tolist() == frames


def test_references_are_distinct_and_outside_the_window() -> None:
    found = np.ones(30, dtype=bool)
    found[3] = False
    excluded = np.arange(10, 15)
    for seed in range(50):
        chosen = sample_references(np.random.default_rng(seed), found, excluded, 24)
        assert sorted(chosen) == sorted(set(range(30)) - {3, *excluded})
    chosen = sample_references(np.random.default_rng(0), found, excluded, 40)  # more than available: some repeat
    assert len(chosen) == 40 and not set(chosen) & {3, *excluded}
    with pytest.raises(ValueError, match="empty"):
        sample_references(np.random.default_rng(0), found[:5], np.arange(5), 1)
