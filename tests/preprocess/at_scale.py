"""python -m tests.preprocess.at_scale N: N made-up clips in the layouts of LRS2 and LRS3, and every kind of bad file.

Compares the caches of an undisturbed run, of a run that is killed again and again, of shards in reverse order and of a
run whose disk is full at first. `test_main` does the same with a few clips.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from preprocess.report import read
from tests.preprocess.made_up_video import UNUSUAL, face_frame, write_unusable_videos, write_video

ROOT = Path(__file__).parents[2]
PARTS = ("main", "pretrain", "trainval", "test")


def write_videos(folder: Path, count: int, frames: int = 10, odd: bool = True) -> dict[str, str]:
    """Writes good clips of several speakers and, if `odd`, all odd ones -> the expected reasons ("" if cached)."""
    expected = {}
    for k in range(count):
        name = f"{PARTS[k % len(PARTS)]}/speaker{k % 7}/{k:05d}"
        pictures = [face_frame(k + i, (128, 128)) for i in range(frames + k % 3)]
        write_video(folder / f"{name}.mp4", pictures, options={"preset": "ultrafast"})
        expected[name] = ""
    if odd:
        for name, how in UNUSUAL.items():
            write_video(folder / f"main/odd/{name}.mp4", **how)
            expected[f"main/odd/{name}"] = ""
        expected |= {f"main/odd/{name}": why for name, why in write_unusable_videos(folder / "main/odd").items()}
        (folder / "main/loop").symlink_to(folder)
    return expected


def contents(cache: Path) -> dict[str, bytes]:
    return {str(path.relative_to(cache)): path.read_bytes() for path in sorted(cache.rglob("*")) if path.is_file()}


def command(videos: Path, cache: Path, workers: int, *more: str) -> list[str]:
    flags = ["--videos", str(videos), "--cache", str(cache), "--workers", str(workers), *more]
    return [sys.executable, "-m", "preprocess", *flags]


def run_with_kills(videos: Path, cache: Path, between: int, seed: int = 0) -> Counter[str]:
    """Runs until done, killing each run after about `between` new clips; returns the signals sent."""
    chance, kills = random.Random(seed), Counter[str]()
    while True:
        before = len(list(cache.rglob("*.safetensors")))
        with subprocess.Popen(
            command(videos, cache, 2),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as run:
            while run.poll() is None and len(list(cache.rglob("*.safetensors"))) < before + between:
                time.sleep(0.05)
            time.sleep(chance.random() * 0.2)
            if run.poll() is not None:
                assert run.returncode == 0
                return kills
            how = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)[kills.total() % 3]
            kills[how.name] += 1
            os.killpg(run.pid, how) if how == signal.SIGINT else run.send_signal(how)  # as a terminal does
            run.wait(60)
            if how == signal.SIGINT:
                assert not list(cache.rglob("*.part")), "Ctrl-C leaves no half clip"


def main(count: int, folder: Path) -> None:
    start = time.monotonic()
    expected = write_videos(folder / "videos", count)
    print(f"{len(expected)} videos written in {time.monotonic() - start:.0f} s")
    for turn in ("undisturbed run", "second run"):
        start = time.monotonic()
        subprocess.run(command(folder / "videos", folder / "whole", 2), cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
        print(f"{turn}: {time.monotonic() - start:.1f} s")
    whole = contents(folder / "whole")
    reasons = {name: record.get("reason", "") for name, record in read([folder / "whole/report.jsonl"]).items()}
    print("reasons as expected:", reasons == expected)
    kills = run_with_kills(folder / "videos", folder / "killed", max(2, count // 10))
    print(f"after {dict(kills)}: the same bytes: {contents(folder / 'killed') == whole}")
    for name in [name for name, reason in expected.items() if not reason][::9]:
        part = folder / f"full/{name}.faces.part"  # where the clip is written before it has its name
        part.parent.mkdir(parents=True, exist_ok=True)
        part.symlink_to("/dev/full")
    for _ in range(2):
        full = command(folder / "videos", folder / "full", 2)
        subprocess.run(full, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    print("after a full disk: the same bytes:", contents(folder / "full") == whole)
    for shard in ("3/3", "1/3", "2/3"):
        parts = command(folder / "videos", folder / "parts", 1, "--shard", shard)
        subprocess.run(parts, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    parts = contents(folder / "parts")
    lines = sorted(line for k in (1, 2, 3) for line in parts.pop(f"report.{k}-of-3.jsonl").splitlines())
    same = parts == {name: content for name, content in whole.items() if name != "report.jsonl"}
    print("shards, one process each, in another order: the same bytes:", same)
    print("their reports together: the same lines:", lines == sorted(whole["report.jsonl"].splitlines()))


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        main(int(sys.argv[1]), Path(temporary))
