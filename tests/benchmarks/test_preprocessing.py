"""What a user's folder may hold, and lengths that are no video."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.preprocessing import Config, main, speed, storage, write_portrait
from media.writer import VideoWriter
from preprocess.sources import find_videos
from runtime.command_line import UserError


@pytest.mark.slow
def test_a_broken_video_costs_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_portrait(tmp_path / "videos" / "good.mp4", 1, (160, 160))
    (tmp_path / "videos" / "broken.mp4").write_bytes(b"no video")
    sources, _ = find_videos(tmp_path / "videos")
    clips = speed(sources, tmp_path / "cache")
    assert [clip.name for clip in clips] == ["good"]
    storage(clips, {source.name: source.path for source in sources})
    said = capsys.readouterr().out
    assert "1 clips of 25 frames on one core; 1 videos became none" in said
    assert "PSNR" in said
    shutil.rmtree(tmp_path / "cache")
    assert speed(sources[:1], tmp_path / "cache") == []


@pytest.mark.slow
def test_a_face_that_comes_late_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from skimage.data import astronaut

    face = astronaut()[0:240, 110:350].copy()
    path = tmp_path / "videos" / "late.mp4"
    path.parent.mkdir()
    with VideoWriter(path, 25, (240, 240), np.zeros(16000, np.float32) + 0.1, crf=23) as writer:
        for frame in range(12):
            writer.write(face if frame > 3 else np.full_like(face, 90))
    sources, _ = find_videos(path.parent)
    storage(speed(sources, tmp_path / "cache"), {"late": path})
    assert "PSNR" in capsys.readouterr().out


def test_a_length_without_a_frame_is_refused() -> None:
    with pytest.raises(UserError, match="--memory-minutes 0: "):
        main(Config(memory_minutes=(0.5, 0)))
