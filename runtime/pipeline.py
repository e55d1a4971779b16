"""Work side by side in threads: results come in order, and few of them wait.

FFmpeg, OpenCV, MediaPipe and PyTorch release Python's lock while they compute. When a generator is closed, or what
consumes it raises, its threads finish what they have begun and end.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
END: Any = object()


def prefetch(items: Iterable[Item], depth: int) -> Generator[Item]:
    """Yields `items`, of which up to `depth` are made ahead by a thread."""
    iterator = iter(items)
    pool = ThreadPoolExecutor(1)
    try:
        waiting = deque(pool.submit(next, iterator, END) for _ in range(depth))
        while waiting:
            item = waiting.popleft().result()
            if item is END:
                return
            waiting.append(pool.submit(next, iterator, END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, start: Callable[[], None] | None = None
) -> Generator[Result]:
    """Yields `function(item)` for each item, computed by `workers` threads; each calls `start` first.

    One item more than there are workers is taken ahead.
    """
    pool = ThreadPoolExecutor(workers, initializer=start)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
