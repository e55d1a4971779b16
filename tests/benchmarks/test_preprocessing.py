"""What a user's folder may contain, and lengths that are no video."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.portrait import write_portrait
from benchmarks.preprocessing import PreprocessingBenchmarkConfig, main, speed
from datasets.clip_cache import ClipCache
from media.writer import VideoWriter
from preprocess.sources import find_videos
from runtime.command_line import UserError


@pytest.mark.slow
def test_a_broken_video_costs_itself(tmp_path: Path) -> None:
    write_portrait(tmp_path / "videos" / "good.mp4", 1, (160, 160))
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    sources = find_videos(tmp_path / "videos")
    line = speed(sources, tmp_path / "cache")
    rates = r"\d+ frames a second and core, \d+% of reading and detection's speed"
    assert re.fullmatch(f"1 of 2 videos became clips: {rates}", line)
    assert ClipCache(tmp_path / "cache").names == ["good"]
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(UserError, match="--videos: no video became a clip"):
        speed(sources[:1], tmp_path / "cache")


@pytest.mark.slow
def test_a_late_face_is_measured(tmp_path: Path) -> None:
    from skimage.data import astronaut

    face = astronaut()[0:240, 110:350].copy()
    path = tmp_path / "videos" / "late.mp4"
    path.parent.mkdir()
    with VideoWriter(path, 25, (240, 240), np.zeros(16000, np.float32) + 0.1, crf=23) as writer:
        for frame in range(12):
            writer.write(face if frame > 3 else np.full_like(face, 90))
    sources = find_videos(path.parent)
    assert speed(sources, tmp_path / "cache").startswith("1 of 1 videos became clips")


@pytest.mark.slow
def test_the_whole_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    main(PreprocessingBenchmarkConfig(num_clips=2, memory_minutes=(0.02,)))
    text = capsys.readouterr().out
    assert re.search(r"LandmarkDataset: \d+ samples a second", text)
    assert re.search(r"1080p video of 0.02 minutes: \d{3,} MiB", text)
