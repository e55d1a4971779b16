"""The choice of clips, of sounds and of files."""

from pathlib import Path

import pytest

from evaluation.protocol import (
    Pair,
    choose_clips,
    exchanged_sounds,
    find_videos,
    match_videos,
    own_sounds,
    read_pairs,
    write_pairs,
)
from runtime.command_line import UserError

NAMES = [f"{speaker:02}/{clip:05}" for speaker in range(30) for clip in range(3)]


def test_choice_is_fixed_whatever_the_order_of_the_list() -> None:
    chosen = choose_clips(NAMES)
    assert len(chosen) == len(set(chosen)) == 45
    assert chosen == choose_clips(NAMES[::-1]) == sorted(chosen)
    assert chosen != choose_clips(NAMES, seed=1)
    assert chosen[:3] == ["00/00000", "00/00001", "01/00001"], "the committed seed and rule chose other clips"
    assert choose_clips(NAMES[:7]) == NAMES[:7]
    with pytest.raises(UserError, match="count: at least 1 is needed, not 0"):
        choose_clips(NAMES, 0)


def test_every_clip_gets_the_sound_of_another() -> None:
    chosen = choose_clips(NAMES)
    dubbed = exchanged_sounds(chosen)
    assert [p.clip for p in dubbed] == chosen
    assert sorted(p.sound for p in dubbed) == chosen
    assert all(p.clip != p.sound for p in dubbed)
    assert all(p.clip == p.sound for p in own_sounds(chosen))
    with pytest.raises(UserError, match="two clips"):
        exchanged_sounds(chosen[:1])


def test_lists_of_pairs_are_read_as_written(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("a b\n\nc d\n")
    assert read_pairs(tmp_path / "pairs.txt") == [Pair("a", "b", "a"), Pair("c", "d", "c")]
    (tmp_path / "pairs.txt").write_text("s/a s/b\ns/a s/c\ns/a s/b\n")  # as in Wav2Lip's lists: one video, more sounds
    assert [pair.name for pair in read_pairs(tmp_path / "pairs.txt")] == ["s/a_s_b", "s/a_s_c"]
    odd = [Pair("my clip", "b", "my clip"), Pair("Bob's/clip", "my clip", "Bob's/clip")]
    write_pairs(tmp_path / "pairs.txt", odd)
    assert read_pairs(tmp_path / "pairs.txt") == odd
    (tmp_path / "pairs.txt").write_text("Bob's/clip other\n")
    assert read_pairs(tmp_path / "pairs.txt") == [Pair("Bob's/clip", "other", "Bob's/clip")]
    (tmp_path / "bad.txt").write_text("a b\nc\n")
    (tmp_path / "quoted.txt").write_text('a "b\n')
    for name in ("bad.txt", "quoted.txt", "missing.txt"):
        with pytest.raises(UserError, match=name):
            read_pairs(tmp_path / name)


def test_videos_of_others_are_matched_by_name(tmp_path: Path) -> None:
    for name in (
        "main/s1/00001.mp4",
        "s1_00002.mp4",
        "s1-00003.AVI",
        "s2/00001.mp4",
        "x/s1/00004.mp4",
        "y/s1/00004.mp4",
        "a.txt",
        ".5f.part.mp4",
        "s1/._00005.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    clips = ["s1/00001", "s1/00002", "s1/00003", "s1/00004", "s1/00005"]
    found = match_videos(clips, find_videos(tmp_path))
    assert not any(name.rsplit("/")[-1].startswith(".") for name in find_videos(tmp_path))
    assert {clip: path.relative_to(tmp_path).as_posix() for clip, path in found.items()} == {
        "s1/00001": "main/s1/00001.mp4", "s1/00002": "s1_00002.mp4", "s1/00003": "s1-00003.AVI",
    }  # fmt: skip
    (tmp_path / "s1_00002.mkv").touch()
    with pytest.raises(UserError, match=r"s1_00002.mp4 has the same name as s1_00002.mkv"):
        find_videos(tmp_path)
    with pytest.raises(UserError, match="no video"):
        find_videos(empty(tmp_path))
    with pytest.raises(UserError, match="not a folder"):
        find_videos(tmp_path / "nothing")


@pytest.mark.parametrize(("clips", "files", "matched"), [
    ("x_y x_z y", "x_y x_z", {"x_y": "x_y", "x_z": "x_z"}),  # there is no y
    ("s1/may may", "s1_may", {"s1/may": "s1_may"}),
    ("s1/may may", "s1_may may", {"s1/may": "s1_may", "may": "may"}),
    ("a/b a_b", "a-b", {}),
    ("a/b a_b", "a_b", {"a_b": "a_b"}),
    ("a", "a main/a", {"a": "a"}),
])  # fmt: skip
def test_a_video_belongs_to_one_clip(clips: str, files: str, matched: dict[str, str]) -> None:
    found = {name: Path(name) for name in files.split()}
    assert match_videos(clips.split(), found) == {clip: Path(name) for clip, name in matched.items()}


def empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"
