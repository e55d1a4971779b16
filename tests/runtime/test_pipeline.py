"""Threads keep order, take little ahead, pass errors on, and end with the generator."""

import threading
import time
from collections.abc import Iterator

import pytest

from runtime.pipeline import parallel_map, prefetch


def counted(number: int, taken: list[int]) -> Iterator[int]:
    for i in range(number):
        taken.append(i)
        yield i


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def test_prefetch_keeps_order_and_stays_ahead_by_its_depth() -> None:
    taken: list[int] = []
    items = prefetch(counted(20, taken), 3)
    assert next(items) == 0
    time.sleep(0.1)
    assert len(taken) == 4, "the one in use and three ahead"
    assert list(items) == list(range(1, 20))


def square_slowly(number: int) -> int:
    time.sleep(0.01 * (number % 3))
    return number * number


def test_parallel_map_keeps_order_and_takes_few_ahead() -> None:
    taken: list[int] = []
    results = parallel_map(square_slowly, counted(30, taken), 3, 3)
    assert next(results) == 0
    assert len(taken) == 4
    assert list(results) == [i * i for i in range(1, 30)]


def test_parallel_map_runs_side_by_side() -> None:
    barrier = threading.Barrier(3, timeout=10)
    assert len(list(parallel_map(lambda _: barrier.wait(), range(9), 3, 3))) == 9


def failing(_: int) -> int:
    raise ValueError("broken")


def test_errors_reach_the_consumer() -> None:
    with pytest.raises(ValueError, match="broken"):
        list(parallel_map(failing, range(5), 2, 2))
    with pytest.raises(ValueError, match="broken"):
        list(prefetch(map(failing, range(5)), 2))


def test_closing_ends_the_threads() -> None:
    taken: list[int] = []
    items = prefetch(counted(1000, taken), 2)
    results = parallel_map(abs, items, 2, 2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    items.close()  # type: ignore[attr-defined]
    assert len(taken) < 20
