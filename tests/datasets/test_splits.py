"""Lists are followed, a speaker is in one set only, and no clip is in two."""

from pathlib import Path

import pytest

from datasets import splits
from datasets.splits import SplitConfig, match, quoted, read_list, speaker_of, split
from runtime.command_line import UserError


def _list(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_lists_have_comments_and_further_words(tmp_path: Path) -> None:
    entries = read_list(_list(tmp_path / "l.txt", "a/1 NF", "", "# note", "b/2  MV speaker=eve x=1"))
    assert entries == {"a/1": {}, "b/2": {"speaker": "eve", "x": "1"}}


def test_names_with_spaces_stand_in_quotes(tmp_path: Path) -> None:
    names = ["a/my talk", "a/don't", "a/it is  it"]
    lines = [f"{quoted(name)} frames={k}" for k, name in enumerate(names)]
    entries = read_list(_list(tmp_path / "l.txt", *lines))
    assert entries == {name: {"frames": str(k)} for k, name in enumerate(names)}
    assert read_list(_list(tmp_path / "l.txt", '"a/my talk')) == {'"a/my': {}}, "which matches no clip"


def test_a_clip_in_main_is_preferred() -> None:
    assert match(["1/2"], ["main/1/2", "pretrain/1/2"], "--list") == {"1/2": "main/1/2"}
    assert match(["main/1/2"], ["main/1/2", "pretrain/1/2"], "--list") == {"main/1/2": "main/1/2"}


@pytest.mark.parametrize("content", [b"", b"# only a note\n", b"\xff\xfe\x00"])
def test_bad_lists_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "l.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"l\.txt (cannot be read|lists no clip)"):
        split(["a"], SplitConfig(val_list=tmp_path / "l.txt"))
    with pytest.raises(UserError, match=r"absent\.txt cannot be read"):
        split(["a"], SplitConfig(val_list=tmp_path / "absent.txt"))


def test_entries_match_below_any_folder() -> None:
    names = ["main/55/01", "pretrain/55/01", "pretrain/55/02", "x/y/main/66/03"]
    assert match(["55/01", "55/02", "66/03", "77/04"], names, "--list") == {
        "55/01": "main/55/01",
        "55/02": "pretrain/55/02",
        "66/03": "x/y/main/66/03",
    }
    assert match(["01"], ["main/55/01"], "--list") == {"01": "main/55/01"}
    assert match(["a"], ["a", "main/a"], "--list") == {"a": "a"}
    with pytest.raises(UserError, match=r"list entry 01 matches several clips \(a/01, b/01\)"):
        match(["01"], ["a/01", "b/01"], "--list")


@pytest.mark.parametrize(
    "entry",
    [
        "main/55/01.mp4",
        "55/01.MP4",
        r"main\55\01",
        "./main/55/01",
        r".\main\55\01.mp4",
        "/data/LRS2/main/55/01.mp4",
        r"C:\data\LRS2\main\55\01.mp4",
    ],
)
def test_entries_may_be_written_as_paths(entry: str) -> None:
    names = ["main/55/01", "pretrain/55/02", "a.mp4"]
    assert match([entry], names, "--list") == {entry: "main/55/01"}


def test_a_name_as_it_is_comes_before_a_path() -> None:
    names = ["a.mp4", "a", r"b\c", "b/c", "d.e"]
    assert match(["a.mp4", r"b\c", "d.e", "d.e.mkv"], names, "--list") == {
        "a.mp4": "a.mp4",
        r"b\c": r"b\c",
        "d.e": "d.e",
        "d.e.mkv": "d.e",
    }


def test_an_absolute_path_must_end_with_the_whole_name() -> None:
    with pytest.raises(UserError, match="no entry"):
        match(["/elsewhere/55/01.mp4"], ["main/55/01"], "--list")


def test_published_lists_are_followed(tmp_path: Path) -> None:
    names = [f"main/{s}/{c:05d}" for s in range(4) for c in range(3)] + ["pretrain/0/00000"]
    config = SplitConfig(
        train_list=_list(tmp_path / "train.txt", "0/00000", "0/00001", "9/00009"),
        val_list=_list(tmp_path / "val.txt", "1/00000"),
        test_list=_list(tmp_path / "test.txt", "2/00000 NF", "2/00001 MV"),
    )
    found = split(names, config)
    assert found.train == ["main/0/00000", "main/0/00001"]
    assert found.val == ["main/1/00000"]
    assert found.test == ["main/2/00000", "main/2/00001"]
    assert found.speakers["main/2/00000"] == "2"


def test_a_clip_in_two_lists_is_refused(tmp_path: Path) -> None:
    a, b = _list(tmp_path / "a.txt", "x", "y"), _list(tmp_path / "b.txt", "y", "z")
    with pytest.raises(UserError, match=r"a\.txt and .*b\.txt both list y"):
        split("xyz", SplitConfig(val_list=a, test_list=b))


def test_speakers_stay_together_when_clips_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "SHARE", 0.1)
    names = [f"trainval/s{s}/{c}" for s in range(200) for c in range(3)]
    found = split(names, SplitConfig())
    sides = [{speaker_of(name) for name in side} for side in (found.train, found.val, found.test)]
    assert sum(map(len, sides)) == 200 and all(len(side) > 5 for side in sides)
    assert sorted(found.train + found.val + found.test) == sorted(names)
    more = split(reversed([*names, "pretrain/s7/9", "trainval/new/1"]), SplitConfig())
    assert set(found.val) <= set(more.val) and set(found.test) <= set(more.test)
    same = [side for side in (more.train, more.val, more.test) if "trainval/s7/0" in side]
    assert "pretrain/s7/9" in same[0]


def test_a_folder_named_test_is_the_test_set() -> None:
    found = split([f"{part}/s{s}/1" for part in ("trainval", "test") for s in range(40)], SplitConfig())
    assert found.test == sorted(f"test/s{s}/1" for s in range(40))
    assert found.val and all(name.startswith("trainval/") for name in found.train + found.val)


def test_few_speakers_still_validate() -> None:
    found = split(["a/1", "a/2", "b/1"], SplitConfig())
    assert len({speaker_of(name) for name in found.val}) == 1 and found.train
    one = split([f"a/{c}" for c in range(5)], SplitConfig())
    assert len(one.val) == 1 and len(one.train) == 4
    for name in map(str, range(50)):  # whatever its hash
        alone = split([name], SplitConfig())
        assert (alone.train, alone.val, alone.test) == ([name], [], [])


def test_shipped_lists_do_not_overlap() -> None:
    folder = Path(__file__).parents[2] / "checkpoints"
    train = read_list(folder / "clips_train.txt") | read_list(folder / "clips_render.txt")
    val = read_list(folder / "clips_val.txt")
    assert not train.keys() & val.keys()
    both = {who["speaker"] for who in train.values()} & {who["speaker"] for who in val.values()}
    assert both == {"grid_s1"}  # the validation clips of this speaker are other sentences


def test_byte_order_marks_and_lists_that_match_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bom.txt").write_text("a/1\na/9\n", encoding="utf-8-sig")
    assert split(["a/1", "a/2"], SplitConfig(test_list=tmp_path / "bom.txt")).test == ["a/1"]
    assert "bom.txt: 1 of 2 entries match no clip, such as a/9" in capsys.readouterr().err
    wrong = _list(tmp_path / "wrong.txt", "b/1.mp4")
    with pytest.raises(
        UserError, match=r"wrong\.txt: no entry, such as b/1\.mp4, matches a clip; clips have names like a/1"
    ):
        split(["a/1", "a/2"], SplitConfig(test_list=wrong))
