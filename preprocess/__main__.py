"""python -m preprocess: a folder of videos -> a clip cache. The same command continues an interrupted run."""

import runtime.threads  # isort: skip  # noqa: F401 (before PyTorch)

import functools
import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from datasets.clip_cache import ARRAYS, JPEG
from datasets.splits import select_shard
from face import fingerprint
from face.crop import SIZE
from preprocess.clip import make_clip, record_of
from preprocess.quality import Filters, sync_scorer
from preprocess.report import ReportFile, summary
from preprocess.sources import find_sources, select_listed, shift_sounds
from runtime.command_line import UserError, at_least_one, naming, run, write_whole
from runtime.threads import available_cores
from runtime.workers import map_unordered

CACHE_FILE = "cache.json"


@dataclass(frozen=True)
class PreprocessConfig:
    """Turns videos into a cache of face crops, landmarks and mel spectrograms for training and evaluation."""

    videos: Path
    """Folder of videos (LRS2, LRS3 or any layout). The sound is in the video or in a .wav file of the same name."""
    cache: Path
    """Folder to write; a clip is named after its video: the path below --videos, without suffix."""
    workers: int = available_cores()
    """Number of processes."""
    shard: str = "1/1"
    """i/n: process only part i of n (i from 1), for job arrays."""
    list: tuple[Path, ...] = ()
    """Process only the clips in these lists."""
    size: int = SIZE
    """Side of a face crop in pixels."""
    audio_shift: Path | None = None
    """File with lines "clip frames=-5": moves the sound of these clips, here 5 frames (at 25 fps) earlier."""
    retry: bool = False
    """Try the videos again that an earlier run rejected or failed on."""
    filters: Filters = field(default_factory=Filters)


def main(config: PreprocessConfig) -> None:
    """Runs the preprocessing.

    Raises:
        UserError: a flag is wrong, or the cache folder has other settings or cannot be written.
    """
    at_least_one(workers=config.workers, size=config.size)
    with naming("--videos"):
        sources = find_sources(config.videos)
    if config.audio_shift:
        with naming("--audio-shift"):
            sources = shift_sounds(sources, config.audio_shift)
    if config.list:
        with naming("--list"):
            sources = select_listed(sources, config.list)
    with naming("--shard"):
        sources = select_shard(sources, config.shard)
    if config.filters.max_offset is not None:
        with naming("--filters.max-offset"):
            sync_scorer()
    _claim_cache(config)
    with naming("--cache"):
        report = ReportFile(config.cache, config.shard)
    complete = {source.name for source in sources if (config.cache / (source.name + ARRAYS)).exists()}
    for name in complete:
        if report.records.get(name, {}).get("status") != "cached":  # killed between the clip and its line
            report.add(record_of(config.cache, name))
    remaining = [s for s in sources if s.name not in complete and (config.retry or not report.settled(s.name))]
    failed = len(sources) - len(complete) - len(remaining)
    print(f"{len(sources)} clips, {len(complete)} in the cache, {failed} failed before")
    work = functools.partial(make_clip, cache=config.cache, size=config.size, filters=config.filters)
    died = {"status": "failed", "reason": "process died", "detail": "see the messages above"}
    try:
        for source, result in tqdm(map_unordered(work, remaining, config.workers), total=len(remaining), unit="clip"):
            report.add(result or {"name": source.name, **died})
    finally:
        report.finish()
    print(summary(report.records[source.name] for source in sources if source.name in report.records))
    print(f"report: {report.path}")


def _claim_cache(config: PreprocessConfig) -> None:
    """Makes the cache folder, or checks that it has the same settings, so that a cache never mixes settings."""
    settings = {**fingerprint.current(config.size), "jpeg": list(JPEG)}
    for name, limit in vars(config.filters).items():
        if limit is not None:
            settings[f"filters.{name}"] = limit
    if config.audio_shift:
        content = zlib.crc32(config.audio_shift.read_bytes())
        settings["audio_shift"] = f"{config.audio_shift.name} {content:08x}"
    path = config.cache / CACHE_FILE
    try:
        config.cache.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_whole(path, json.dumps(settings, indent=1, sort_keys=True) + "\n")
        existing = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--cache: {config.cache} cannot be used ({error})") from None
    existing = {name: value for name, value in existing.items() if value is not None}  # filters that are off
    fingerprint.check(existing, settings, f"--cache {config.cache}")


if __name__ == "__main__":
    run(main, PreprocessConfig, prog="python -m preprocess")
