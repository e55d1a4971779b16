"""The choice of clips, of sounds and of files."""

from pathlib import Path

import pytest

from evaluation.protocol import choose_clips, exchange_sounds, videos_by_name
from runtime.command_line import UserError

NAMES = [f"{speaker:02}/{clip:05}" for speaker in range(30) for clip in range(3)]


def test_choice_is_fixed_whatever_the_order_of_the_list() -> None:
    chosen = choose_clips(NAMES)
    assert len(chosen) == len(set(chosen)) == 45
    assert chosen == choose_clips(NAMES[::-1]) == sorted(chosen)
    assert chosen[:3] == ["00/00000", "00/00001", "01/00001"], "the committed seed and rule chose other clips"
    assert choose_clips(NAMES[:7]) == NAMES[:7]
    with pytest.raises(UserError, match="count: at least 1 is needed, not 0"):
        choose_clips(NAMES, 0)


def test_every_clip_gets_the_sound_of_another() -> None:
    chosen = choose_clips(NAMES)
    sounds = exchange_sounds(chosen)
    assert list(sounds) == chosen
    assert sorted(sounds.values()) == chosen
    assert all(clip != sound for clip, sound in sounds.items())
    assert sounds["00/00000"] == "10/00002", "the committed seed and rule gave another sound"
    with pytest.raises(UserError, match="two clips"):
        exchange_sounds(chosen[:1])


def test_videos_in_linked_folders_count(tmp_path: Path) -> None:
    (tmp_path / "other_disk").mkdir()
    (tmp_path / "other_disk" / "00001.mp4").touch()
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "main").symlink_to(tmp_path / "other_disk")
    assert list(videos_by_name(tmp_path / "videos")) == ["main/00001"]


def test_videos_are_found_by_name(tmp_path: Path) -> None:
    for name in ("main/s1/00001.mp4", "s1/00003.AVI", "s2/00001.mp4", "a.txt", ".5f.part.mp4", "s1/._00005.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = {name: path.relative_to(tmp_path).as_posix() for name, path in videos_by_name(tmp_path).items()}
    assert found == {"main/s1/00001": "main/s1/00001.mp4", "s1/00003": "s1/00003.AVI", "s2/00001": "s2/00001.mp4"}
    (tmp_path / "s1" / "00003.mkv").touch()
    with pytest.raises(UserError, match=r"s1/00003.mkv has the same name as 00003.AVI"):
        videos_by_name(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no video"):
        videos_by_name(tmp_path / "empty")
    with pytest.raises(UserError, match="not a folder"):
        videos_by_name(tmp_path / "nothing")
