"""Wall time by stage."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the wall time of stages, which may run side by side in several threads.

    `with stopwatch.stage("draw"): ...`; then `stopwatch.seconds["draw"]`.
    """

    def __init__(self, stages: Iterable[str]) -> None:
        self.seconds = dict.fromkeys(stages, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[name] += time.perf_counter() - start
