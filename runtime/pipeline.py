"""Work side by side in threads: results come in order, and few of them wait.

FFmpeg, OpenCV, MediaPipe and PyTorch release Python's lock while they compute. When a generator is closed, or what
consumes it raises, its threads finish what they have begun and end.
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
    """Yields `items`, of which up to `depth` are made ahead by a thread."""
    iterator = iter(items)
    with closing(parallel_map(lambda _: next(iterator, END), count(), 1, depth)) as made:
        yield from takewhile(lambda item: item is not END, made)


def parallel_map(
    function: Callable[[Any], Result], items: Iterable[Any], workers: int, ahead: int
) -> Generator[Result]:
    """Yields `function(item)` for each item, computed by `workers` threads.

    Up to `ahead` items more than the one whose result is yielded are taken.
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
