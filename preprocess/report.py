"""The report: the outcome for each video in a line of JSON, appended during the run and sorted at the end."""

import contextlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import filelock

from runtime.command_line import UserError, write_whole, writing

# name, status ("cached", "rejected" by a filter or "failed"); reason, detail, frames, measures, notes
Record = dict[str, Any]

# Reasons that may not apply on the next run.
TEMPORARY = frozenset({"no permission", "disk full", "system error", "too little memory", "process died"})


class ReportFile:
    """The report of one shard, `report.jsonl` or `report.2-of-8.jsonl` in the cache folder.

    Raises:
        UserError: it cannot be written, or another run is writing it.
    """

    def __init__(self, root: Path, shard: str = "1/1"):
        suffix = "" if shard == "1/1" else f".{shard.replace('/', '-of-')}"
        self.path = root / f"report{suffix}.jsonl"
        self._lock = filelock.FileLock(f"{self.path}.lock")
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UserError(f"another run is writing {self.path}; wait for it or choose another shard") from None
        except OSError:  # a cluster's file system may not support locks
            pass
        with writing(self.path):
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed by finish)
        self.records = read([self.path])
        paths = sorted(root.glob("report*.jsonl"), key=lambda path: path.stat().st_mtime)
        self._earlier = read(paths)  # also of runs with other shards

    def settled(self, name: str) -> bool:
        """Whether an earlier run rejected the clip or failed on it, for a reason that still applies."""
        reason = self._earlier.get(name, {}).get("reason")  # cached clips have none
        return reason is not None and reason not in TEMPORARY

    def add(self, record: Record) -> None:
        """Writes a clip's record at once, so that a killed run can continue from here."""
        self.records[record["name"]] = record
        with writing(self.path):
            self._file.write(f"\n{_line(record)}".encode())  # a killed run may have left half a line

    def finish(self) -> None:
        """Rewrites the report sorted by name, so that it does not depend on the order of processing."""
        self._file.close()  # Windows cannot replace an open file
        write_whole(self.path, "".join(_line(self.records[name]) for name in sorted(self.records)))
        self._lock.release()


def _line(record: Record) -> str:
    return json.dumps(record, sort_keys=True) + "\n"


def read(paths: Iterable[Path]) -> dict[str, Record]:
    """Reads the last record of each clip, by name. Skips incomplete lines of killed runs."""
    records = {}
    for path in paths:
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                record = json.loads(line)
                records[record["name"]] = record
    return records


def summary(records: Iterable[Record]) -> str:
    """Counts the records by status and reason, one line each."""
    counts = Counter(f"{r['status']}: {r['reason']}" if "reason" in r else r["status"] for r in records)
    return "\n".join(f"{count:7d} {text}" for text, count in sorted(counts.items()))
