"""The whole command resumes, gives the same results in shards, and never leaves half a clip."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest

from datasets.clip_cache import ClipCache
from preprocess import preview
from preprocess.__main__ import PreprocessConfig, main
from preprocess.quality import Filters
from preprocess.report import read
from runtime.command_line import UserError
from tests.datasets.made_up import write_clip
from tests.preprocess.made_up_video import write_video

ROOT = Path(__file__).parents[2]


def _tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def _videos(folder: Path, count: int, frames: int = 6) -> Path:
    for k in range(count):
        write_video(folder / f"main/s{k % 2}/{k:05d}.mp4", frames + k % 3)
    (folder / "main/s0/broken.mp4").write_bytes(b"no video")
    return folder


def test_wrong_flags_are_one_line_each(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").touch()
    (tmp_path / "file").touch()
    good = {"videos": tmp_path / "videos", "cache": tmp_path / "cache"}
    for flag, value, message in (
        ("workers", 0, "workers: at least 1 is needed, not 0"),
        ("size", 0, "size: at least 1 is needed, not 0"),
        ("shard", "5/4", "--shard: 5/4"),
        ("videos", tmp_path / "absent", "--videos: .* is not a folder"),
        ("cache", tmp_path / "file", "--cache: .* cannot be used"),
        ("list", (tmp_path / "absent",), "--list: .* cannot be read"),
        ("audio_shift", tmp_path / "absent", "--audio-shift: .* cannot be read"),
    ):
        with pytest.raises(UserError, match=message) as error:
            main(PreprocessConfig(**{**good, flag: value}))
        assert "\n" not in str(error.value)
    assert not (tmp_path / "cache").exists()


def test_a_cache_has_one_kind_of_clips(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").write_bytes(b"no video")
    config = PreprocessConfig(tmp_path / "videos", tmp_path / "cache", workers=1)
    main(config)
    with pytest.raises(UserError, match=r"--cache .* was made with crop.size = 128, but .*256"):
        main(PreprocessConfig(tmp_path / "videos", tmp_path / "cache", workers=1, size=256))
    with pytest.raises(UserError, match=r"filters\.min_face = nothing, but .*50"):
        main(PreprocessConfig(tmp_path / "videos", tmp_path / "cache", workers=1, filters=Filters(min_face=50)))


def test_another_audio_shift_file_is_named(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "a.mp4").write_bytes(b"no video")
    (tmp_path / "one.txt").write_text("a frames=1\n")
    (tmp_path / "two.txt").write_text("a frames=2\n")
    main(PreprocessConfig(videos, tmp_path / "cache", workers=1, audio_shift=tmp_path / "one.txt"))
    with pytest.raises(UserError, match=r"^--cache .*cache was made with audio_shift = one\.txt .*, but .*two\.txt "):
        main(PreprocessConfig(videos, tmp_path / "cache", workers=1, audio_shift=tmp_path / "two.txt"))
    with pytest.raises(UserError, match=r"^--cache .*cache was made with audio_shift = one\.txt .*, but .*nothing"):
        main(PreprocessConfig(videos, tmp_path / "cache", workers=1))


def test_an_older_cache_that_names_filters_which_were_off_is_continued(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/a.mp4").write_bytes(b"no video")
    config = PreprocessConfig(tmp_path / "videos", tmp_path / "cache", workers=1)
    main(config)
    settings = tmp_path / "cache/cache.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"filters.syncnet": None}))
    main(config)


@pytest.mark.slow
def test_shards_workers_and_a_second_run_give_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = _videos(tmp_path / "videos", 3, 3)
    main(PreprocessConfig(videos, tmp_path / "whole", workers=2))
    assert "      3 cached\n      1 failed: not a video" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "whole").rglob("*.safetensors")}
    main(PreprocessConfig(videos, tmp_path / "whole", workers=1))
    assert "4 clips, 3 in the cache, 1 failed before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "whole").rglob("*.safetensors")} == before
    for shard in ("2/2", "1/2"):
        main(PreprocessConfig(videos, tmp_path / "parts", workers=1, shard=shard))
    whole, parts = _tree(tmp_path / "whole"), _tree(tmp_path / "parts")
    lines = sorted(line for name, text in parts.items() if name.startswith("report") for line in text.splitlines())
    assert lines == sorted(whole.pop("report.jsonl").splitlines())
    assert whole == {name: content for name, content in parts.items() if not name.startswith("report")}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_run_killed_repeatedly_gives_the_same_bytes(tmp_path: Path) -> None:
    videos = _videos(tmp_path / "videos", 24, 10)  # enough to interrupt even a fast machine often
    main(PreprocessConfig(videos, tmp_path / "undisturbed", workers=1))
    command = [sys.executable, "-m", "preprocess", "--videos", videos, "--cache", tmp_path / "killed", "--workers", "2"]
    chance, kills, finished = random.Random(0), 0, False
    while not finished:
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        done = len(list((tmp_path / "killed").rglob("*.safetensors")))
        while run.poll() is None and len(list((tmp_path / "killed").rglob("*.safetensors"))) < done + 2:
            time.sleep(0.05)
        time.sleep(chance.random() * 0.2)
        finished = run.poll() == 0
        kills += not finished
        run.send_signal(chance.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM]))
        run.wait(60)
    assert kills >= 3
    assert _tree(tmp_path / "killed") == _tree(tmp_path / "undisturbed")


def test_the_report_lists_each_clip_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = tmp_path / "videos"
    for name in ("a.mp4", "a.mkv", "b c.mp4"):
        (videos / name).parent.mkdir(exist_ok=True)
        (videos / name).write_bytes(b"no video")
    main(PreprocessConfig(videos, tmp_path / "cache", workers=1))
    records = read([tmp_path / "cache/report.jsonl"])
    assert [(name, record["reason"]) for name, record in records.items()] == [
        ("a", "not a video"),
        ("b c", "not a video"),
    ]
    assert "a.mp4 is not used: a.mkv has the same name" in capsys.readouterr().err
    with pytest.raises(UserError, match="there is no clip"):
        ClipCache(tmp_path / "cache")


def test_preview_draws_a_contact_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(9):
        write_clip(tmp_path / "cache", f"s{k % 2}/{k}", 30, missing=(k,))
    preview.main(preview.PreviewConfig(tmp_path / "cache", tmp_path / "sheet.png"))
    assert capsys.readouterr().out == "9 clips, 0.00 hours\n"
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None and sheet.shape == (8 * 192, 8 * 192, 3)


def test_preview_refuses_a_picture_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--output: .*sheet\.jpg must end in \.png$"):
        preview.main(preview.PreviewConfig(tmp_path, tmp_path / "sheet.jpg"))
