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
    sources, _ = find_videos(tmp_path / "videos")
    lines = speed(sources, tmp_path / "cache")
    assert lines[0] == "1 clips of 25 frames; 1 videos became none"
    assert re.fullmatch(r"preprocessing: \d+ frames a second and core, \d+% of the detector's speed", lines[1])
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
    sources, _ = find_videos(path.parent)
    assert speed(sources, tmp_path / "cache")[0] == "1 clips of 12 frames; 0 videos became none"


@pytest.mark.slow
def test_the_whole_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    main(PreprocessingBenchmarkConfig(num_clips=2, samples=3, memory_minutes=(0.02,)))
    text = capsys.readouterr().out
    assert re.search(r"face crops: \d+ bytes a frame", text)
    assert re.search(r"LandmarkDataset: \d+ samples a second", text)
    assert re.search(r"1080p video of 0.02 minutes: \d{3,} MiB", text)


def test_a_length_without_a_frame_is_refused() -> None:
    with pytest.raises(UserError, match="--memory-minutes 0: "):
        main(PreprocessingBenchmarkConfig(memory_minutes=(0.5, 0)))
