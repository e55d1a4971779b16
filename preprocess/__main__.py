"""python -m preprocess: a folder of videos -> a clip cache. Killed and started again, it goes on where it was."""

import functools
import json
import os
import sys
import time
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

from datasets.clip_cache import JPEG, is_whole, open_clip
from face import fingerprint
from face.crop import SIZE
from preprocess import report
from preprocess.clip import make_clip, record_of
from preprocess.quality import Filters, sync_scorer
from preprocess.sources import choose, find_videos
from runtime import command_line
from runtime.command_line import UserError
from runtime.workers import each

CACHE_FILE = "cache.json"
NOT_TAKEN = "not taken"
# That this process may use, which a job array may have been given only some of.
CORES = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


@dataclass(frozen=True)
class Config:
    """Turns videos into a cache of face crops, landmarks and mels that training and evaluation read."""

    # Folder of videos: LRS2, LRS3 or any tree. Sound is inside, or in a .wav of the same name beside.
    videos: Path
    # Folder to write; a clip is called as its video, path below --videos without suffix.
    cache: Path
    workers: int = CORES  # Processes.
    shard: str = "1/1"  # i/n: do only the i-th of n parts (i from 1), for job arrays.
    list: tuple[Path, ...] = ()  # Do only the clips in these lists.
    size: int = SIZE  # Pixels of a face crop's side.
    # File with lines "clip frames=-5": moves the sound of these clips, here 5 frames (at 25 fps) earlier.
    audio_shift: Path | None = None
    retry: bool = False  # Try again what an earlier run failed on or rejected.
    filters: Filters = field(default_factory=Filters)


def main(config: Config) -> None:
    """Runs the preprocessing: see `Config`.

    Raises:
        UserError: a wrong flag, or a cache folder that was made otherwise or can't be written.
    """
    filters = config.filters
    command_line.at_least(1, workers=config.workers, size=config.size)
    needed = filters.syncnet or (filters.max_offset, filters.min_confidence) != (None, None)
    if needed and not (filters.syncnet and filters.syncnet.is_file()):
        raise UserError(f"--filters.syncnet {filters.syncnet}: give SyncNet's weights; see python -m checkpoints")
    if filters.syncnet:
        sync_scorer(filters.syncnet)  # refuses a wrong file before any work
    sources, refused = find_videos(config.videos)
    chosen = choose(sources, config.list, config.shard, config.audio_shift)
    _claim(config)
    journal = report.Report(config.cache, config.shard)
    journal.records = {name: r for name, r in journal.records.items() if r.get("reason") != NOT_TAKEN}  # said anew
    for name, why in refused.items() if config.shard.startswith("1/") else ():
        journal.add({"name": name, "status": "failed", "reason": NOT_TAKEN, "detail": why})
    done = {source.name for source in chosen if is_whole(config.cache, source.name)}
    for name in done:
        if journal.records.get(name, {}).get("status") != "cached":  # killed between writing the clip and saying so
            journal.add(record_of(open_clip(config.cache, name)))
    left = [s for s in chosen if s.name not in done and (config.retry or not journal.settled(s.name))]
    print(f"{len(chosen)} clips, {len(done)} in the cache, {len(chosen) - len(done) - len(left)} failed before")
    start, frames = time.monotonic(), 0
    died = {"status": "failed", "reason": "process died", "detail": "see the messages above"}
    work = functools.partial(make_clip, cache=config.cache, size=config.size, filters=filters)
    try:
        progress = tqdm(each(work, left, config.workers), total=len(left), unit="clip", smoothing=0.05)
        for source, result in progress:
            record = result or {"name": source.name, **died}
            journal.add(record)
            frames += record.get("frames", 0)
            progress.set_postfix_str(f"{frames / (time.monotonic() - start):.0f} frames/s", refresh=False)
    finally:
        journal.finish()
    names = {source.name for source in chosen} | refused.keys()
    print(report.summary(record for record in journal.records.values() if record["name"] in names))
    print(f"report: {journal.path}")


def _claim(config: Config) -> None:
    """Makes the cache folder, or checks that it was made with the same settings, so that clips never mix."""
    shifts = config.audio_shift and f"{zlib.crc32(config.audio_shift.read_bytes()):08x}"
    filters = {f"filters.{name}": value for name, value in asdict(config.filters).items()}
    wanted = {**fingerprint.current(config.size), **filters, "jpeg": JPEG, "audio_shift": shifts}
    text = json.dumps(wanted, indent=1, sort_keys=True, default=lambda path: path.name) + "\n"
    path = config.cache / CACHE_FILE
    try:
        config.cache.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            command_line.write_whole(path, text)
        fingerprint.check(json.loads(path.read_text()), json.loads(text), f"--cache {config.cache}")
    except (OSError, ValueError) as error:
        raise UserError(f"--cache: {config.cache} cannot be used ({error})") from None


if __name__ == "__main__":
    command_line.run(main, Config, prog="python -m preprocess")
