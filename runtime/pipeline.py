"""Parallel work in threads, with results in order and a bounded number of them waiting.

FFmpeg, OpenCV, MediaPipe and PyTorch release Python's global lock while they compute. When a generator is closed or its
consumer raises, its threads finish the items that they have begun and end.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import count, takewhile
from typing import Any, TypeVar

Result = TypeVar("Result")
END: Any = object()


def prefetch(items: Iterable[Any], depth: int) -> Generator[Any]:
    """Yields `items`; a thread produces up to `depth` of them ahead."""
    iterator = iter(items)
    with closing(parallel_map(lambda _: next(iterator, END), count(), 1, depth)) as made:
        yield from takewhile(lambda item: item is not END, made)


def parallel_map(
    function: Callable[[Any], Result], items: Iterable[Any], workers: int, ahead: int
) -> Generator[Result]:
    """Yields `function(item)` for each item in order, computed by `workers` threads.

    At most `ahead` items are taken beyond the one whose result is yielded.
    """
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
