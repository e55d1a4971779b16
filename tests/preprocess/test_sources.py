"""Layouts, lists, shards and awkward folders."""

from pathlib import Path

import pytest

from datasets.splits import select_shard
from preprocess.sources import find_sources, select_listed, shift_sounds
from runtime.command_line import UserError


def _touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_names_come_from_the_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _touch(
        tmp_path, "main/55/00002.mp4", "main/55/00001.mp4", "main/55/00001.txt", "trainval/x/1.MP4", "top.mkv", "a.wav"
    )
    _touch(tmp_path, 'with space/it\'s "quoted"/Žluťoučký 話す.mp4', "dots/a.b.mp4")
    sources = find_sources(tmp_path)
    names = [source.name for source in sources]
    assert names == sorted(names) and not capsys.readouterr().err
    assert set(names) == {
        "main/55/00001",
        "main/55/00002",
        "trainval/x/1",
        "top",
        'with space/it\'s "quoted"/Žluťoučký 話す',
        "dots/a.b",
    }


def test_the_second_video_of_a_name_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _touch(tmp_path, "s/a.mp4", "s/a.avi", "s/._a.mp4", "s/.0a1b.part.mp4")
    sources = find_sources(tmp_path)
    assert [source.path.name for source in sources] == ["a.avi"]
    assert capsys.readouterr().err == f"{tmp_path}/s/a.mp4 is not used: a.avi has the same name\n"


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    _touch(tmp_path, "videos/s/a.mp4", "elsewhere/b.mp4")
    (tmp_path / "videos/s/loop").symlink_to(tmp_path / "videos")
    (tmp_path / "videos/t").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "videos/self.mp4").symlink_to(tmp_path / "videos/self.mp4")
    sources = find_sources(tmp_path / "videos")
    assert [source.name for source in sources] == ["s/a", "self", "t/b"]


def test_no_folder_or_no_video_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent is not a folder"):
        find_sources(tmp_path / "absent")
    with pytest.raises(UserError, match=r" contains no video"):
        find_sources(tmp_path)


def test_shards_divide_the_clips(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"s{k % 3}/{k}.mp4" for k in range(20)))
    sources = find_sources(tmp_path)
    parts = [select_shard(sources, f"{k}/3") for k in (1, 2, 3)]
    assert sorted(s.name for part in parts for s in part) == [s.name for s in sources]
    assert {len(part) for part in parts} == {6, 7}
    for shard in ("0/3", "4/3", "1", "a/b", "1/0", "-1/3"):
        with pytest.raises(UserError, match=r"is not a shard: give i/n with i from 1 to n"):
            select_shard(sources, shard)


def test_lists_choose_clips(tmp_path: Path) -> None:
    _touch(tmp_path, *(f"main/s{k % 3}/{k}.mp4" for k in range(6)))
    sources = find_sources(tmp_path)
    (tmp_path / "val.txt").write_text("s0/0\ns1/4 MV\ns2/99\n")
    assert [s.name for s in select_listed(sources, [tmp_path / "val.txt"])] == ["main/s0/0", "main/s1/4"]
    (tmp_path / "twice.txt").write_text("s0/0\nmain/s0/0\n")
    assert [s.name for s in select_listed(sources, [tmp_path / "twice.txt"])] == ["main/s0/0"]
    (tmp_path / "none.txt").write_text("t/0\n")
    with pytest.raises(UserError, match=r"none\.txt: no entry, such as t/0, matches a clip"):
        select_listed(sources, [tmp_path / "none.txt"])


def test_a_file_shifts_the_sound_of_clips(tmp_path: Path) -> None:
    _touch(tmp_path, "s/a.mp4", "s/b.mp4")
    sources = find_sources(tmp_path)
    (tmp_path / "shift.txt").write_text("s/b frames=-5\ns/unknown frames=1\n")
    assert [s.sound_shift for s in shift_sounds(sources, tmp_path / "shift.txt")] == [0, -5]
    (tmp_path / "a.txt").write_text("s/a\n")  # shifts may list clips that --list leaves out
    shifted = shift_sounds(sources, tmp_path / "shift.txt")
    assert [s.name for s in select_listed(shifted, [tmp_path / "a.txt"])] == ["s/a"]
    (tmp_path / "shift.txt").write_text("t/b frames=-5\n")
    with pytest.raises(UserError, match=r"shift\.txt: no entry, such as t/b, matches a clip"):
        shift_sounds(sources, tmp_path / "shift.txt")
    (tmp_path / "shift.txt").write_text("s/b -5\n")
    with pytest.raises(UserError, match=r"shift\.txt has no frames=NUMBER after s/b"):
        shift_sounds(sources, tmp_path / "shift.txt")
