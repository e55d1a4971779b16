"""Processes that work through a list. One that dies (a decoder's crash, no memory) costs its task, not the run."""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar, cast

Task = TypeVar("Task")
Result = TypeVar("Result")

TASKS_PER_PROCESS = 500  # then a fresh one takes over, so that a library's leak stays small


def each(work: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[tuple[Task, Result | None]]:
    """Yields each task with its result in the order of completion; the result is None when the process died.

    `work` and the tasks must be picklable. When the iteration ends early, or this process dies, the workers get
    SIGTERM, which reaches `work` as SystemExit.
    """
    context = multiprocessing.get_context("spawn")  # a forked MediaPipe or PyAV may hang
    waiting = deque(tasks)
    busy: dict[Any, tuple[Task, Any, int]] = {}  # connection -> task, process, tasks so far

    def give(connection: Connection | None, process: Any, done: int) -> None:
        if connection is None or done == TASKS_PER_PROCESS:
            if connection is not None:
                connection.close()
            connection, theirs = context.Pipe()
            process, done = context.Process(target=_serve, args=(work, theirs), daemon=True), 0
            process.start()
            theirs.close()
        task = waiting.popleft()
        busy[connection] = task, process, done + 1
        connection.send(task)

    try:
        while waiting and len(busy) < workers:
            give(None, None, 0)
        while busy:
            for connection in cast(list[Connection], wait(list(busy))):
                task, process, done = busy[connection]
                try:
                    result = connection.recv()
                except (EOFError, ConnectionResetError):
                    result = None
                del busy[connection]
                alive = result is not None
                if waiting:
                    give(connection if alive else None, process, done)
                else:
                    connection.close()
                    process.join()
                yield task, result
    finally:
        for _, process, _ in busy.values():
            process.terminate()
        for _, process, _ in busy.values():
            process.join()


def _follow(parent: int) -> None:
    """Ends this process soon after its parent, which may have been killed without a chance to say so."""
    wait([parent])
    os.kill(os.getpid(), signal.SIGTERM)


def _serve(work: Callable[[Task], Result], connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_follow, args=(parent.sentinel,), daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except EOFError:  # no more tasks
            return
        connection.send(work(task))
