"""Worker processes for a list of tasks. If a worker dies (its decoder crashes, memory runs out), only its task is lost.

`concurrent.futures` drops all tasks when one worker dies; so does pebble's pool if the worker had not yet acknowledged
a task.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar
from unittest.mock import patch

# Each worker uses one core. Otherwise libraries start a thread per core, and their number changes how sums round.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1")
GRACE = 10.0  # seconds that a worker has to terminate

Result = TypeVar("Result")


def map_unordered(
    work: Callable[[Any], Result], tasks: Iterable[Any], workers: int
) -> Iterator[tuple[Any, Result | None]]:
    """Yields each task with its result, in the order of completion; the result is None if the worker died.

    `work` and the tasks must be picklable. When the iteration ends or this process dies, the workers receive SIGTERM,
    which raises SystemExit in `work`, and when the iteration ends also SIGKILL after `GRACE` seconds.
    """
    context = multiprocessing.get_context("spawn")  # a forked MediaPipe or PyAV may hang
    waiting = deque(tasks)
    busy = {}  # connection -> task
    idle = []
    processes = []
    connection: Any
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                if not idle:
                    connection, worker_end = context.Pipe()
                    process = context.Process(target=_serve, args=(work, worker_end), daemon=True)
                    with patch.dict(os.environ, ONE_THREAD):  # inherited
                        process.start()
                    processes.append(process)
                    worker_end.close()
                    idle.append(connection)
                connection = idle.pop()
                busy[connection] = waiting.popleft()
                with suppress(OSError):  # the worker died while idle; `recv` notices
                    connection.send(busy[connection])
            for connection in wait(list(busy)):
                result = None
                with suppress(EOFError, OSError):  # the worker died
                    result = connection.recv()
                    idle.append(connection)
                yield busy.pop(connection), result
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(GRACE)
            process.kill()  # a worker that swallowed SystemExit would wait for its next task forever
            process.join()


def _serve(work: Callable[[Any], Result], connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with_parent, args=(parent.sentinel,), daemon=True).start()
    with suppress(EOFError):  # no more tasks
        while True:
            connection.send(work(connection.recv()))


def _end_with_parent(parent: int) -> None:
    """Ends this process soon after its parent, which may have been killed before it could do so itself."""
    wait([parent])
    os.kill(os.getpid(), signal.SIGTERM)
