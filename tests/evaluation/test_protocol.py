"""Which clips, whose sound, which files."""

from pathlib import Path

import pytest

from evaluation.protocol import Pair, choose, index, match, pairs, read_pairs, write_pairs
from runtime.command_line import UserError

NAMES = [f"{speaker:02}/{clip:05}" for speaker in range(30) for clip in range(3)]


def test_the_choice_is_fixed_and_does_not_depend_on_the_lists_order() -> None:
    chosen = choose(NAMES)
    assert len(chosen) == len(set(chosen)) == 45
    assert chosen == choose(NAMES[::-1]) == sorted(chosen)
    assert chosen != choose(NAMES, seed=1)
    assert chosen[:3] == ["00/00000", "00/00001", "01/00001"], "the committed seed and rule chose other clips"
    assert choose(NAMES[:7]) == NAMES[:7]
    with pytest.raises(UserError, match="count: at least 1 is needed, not 0"):
        choose(NAMES, 0)


def test_everybody_gets_somebody_elses_sound() -> None:
    chosen = choose(NAMES)
    dubbed = pairs(chosen, dubbing=True)
    assert [p.clip for p in dubbed] == chosen
    assert sorted(p.sound for p in dubbed) == chosen
    assert all(p.clip != p.sound for p in dubbed)
    assert all(p.clip == p.sound for p in pairs(chosen, dubbing=False))
    with pytest.raises(UserError, match="two clips"):
        pairs(chosen[:1], dubbing=True)


def test_pair_lists(tmp_path: Path) -> None:
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
        with pytest.raises(UserError, match="--pairs"):
            read_pairs(tmp_path / name)


def test_files_of_others_are_matched_by_name(tmp_path: Path) -> None:
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
    found = match(["s1/00001", "s1/00002", "s1/00003", "s1/00004", "s1/00005"], index(tmp_path, "--methods"))
    assert not any(name.rsplit("/")[-1].startswith(".") for name in index(tmp_path, "--methods"))
    assert {clip: path.relative_to(tmp_path).as_posix() for clip, path in found.items()} == {
        "s1/00001": "main/s1/00001.mp4", "s1/00002": "s1_00002.mp4", "s1/00003": "s1-00003.AVI",
    }  # fmt: skip
    (tmp_path / "s1_00002.mkv").touch()
    with pytest.raises(UserError, match=r"--methods: .*s1_00002.mp4 has the same name as s1_00002.mkv"):
        index(tmp_path, "--methods")
    with pytest.raises(UserError, match="no video"):
        index(empty(tmp_path), "--methods")
    with pytest.raises(UserError, match="not a folder"):
        index(tmp_path / "nothing", "--methods")


@pytest.mark.parametrize(("clips", "files", "matched"), [
    ("x_y x_z y", "x_y x_z", {"x_y": "x_y", "x_z": "x_z"}),  # y was not made
    ("s1/may may", "s1_may", {"s1/may": "s1_may"}),
    ("s1/may may", "s1_may may", {"s1/may": "s1_may", "may": "may"}),
    ("a/b a_b", "a-b", {}),
    ("a/b a_b", "a_b", {"a_b": "a_b"}),
    ("a", "a main/a", {"a": "a"}),
])  # fmt: skip
def test_no_file_serves_two_clips(clips: str, files: str, matched: dict[str, str]) -> None:
    found = {name: Path(name) for name in files.split()}
    assert match(clips.split(), found) == {clip: Path(name) for clip, name in matched.items()}


def empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"
