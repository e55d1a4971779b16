"""Sheets and side-by-side videos of synthetic clips."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation.figures import CELL, Compare, Sheet
from media.video import Video
from runtime.command_line import UserError

from .conftest import frame, write


def test_videos_stand_side_by_side_with_names_and_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colours = {"red": (250, 0, 0), "blue": (0, 0, 250)}
    for count, (name, colour) in zip((4, 6), colours.items(), strict=True):
        write(tmp_path / f"{name}.mp4", [np.full((100, 80, 3), colour, np.uint8)] * count)
    videos = tuple(f"{name}={tmp_path / name}.mp4" for name in colours)
    Compare(videos, tmp_path / "both.mp4").run()
    assert "both.mp4: 2 videos side by side, 4 frames" in capsys.readouterr().out
    pictures = list(Video(tmp_path / "both.mp4"))
    assert len(pictures) == 4, "as long as the shorter video"
    assert pictures[0].shape[1] == 160
    for x, colour in ((40, (250, 0, 0)), (120, (0, 0, 250))):
        assert np.abs(pictures[2][-20, x].astype(int) - colour).max() < 25
    assert pictures[0][:24].max() > 200, "a strip with the names"
    assert Video(tmp_path / "both.mp4").has_audio
    with pytest.raises(UserError, match="NAME="):
        Compare(("red.mp4",), tmp_path / "both.mp4").run()
    before = (tmp_path / "red.mp4").read_bytes()
    with pytest.raises(UserError, match=r"--output: .*would overwrite"):
        Compare(videos, tmp_path / "red.mp4").run()
    assert (tmp_path / "red.mp4").read_bytes() == before


@pytest.mark.slow
def test_sheet_has_a_row_per_video_and_a_pair_per_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    original = write(tmp_path / "original.mp4", [frame(i + 4) for i in range(4)])
    cut = [cv2.resize(frame(i + 4, 40)[20:180, 20:180], (256, 256)) for i in range(4)]
    other = write(tmp_path / "other.mp4", cut)
    Sheet(original, (f"Other={other}",), tmp_path / "sheet.png", (0, 3)).run()
    assert "sheet.png: 2 videos, 2 frames of each" in capsys.readouterr().out
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    assert picture is not None
    assert picture.shape == (24 * 3 + CELL * 2, 2 * (2 * CELL + 6), 3)
    face, face_of_other = picture[48 : 48 + CELL, :CELL], picture[72 + CELL : 72 + 2 * CELL, :CELL]
    assert face_of_other.mean() - face.mean() > 20, "the other video is brighter"
    likeness = np.corrcoef(face.astype(float).ravel(), face_of_other.astype(float).ravel())[0, 1]
    assert likeness > 0.9, "both are cropped by the face, whatever their framing"
    write(other, cut[:2])
    Sheet(original, (f"Other={other}",), tmp_path / "spread.png").run()
    spread = cv2.imread(str(tmp_path / "spread.png"))
    assert spread is not None and spread.shape[1] == 2 * (2 * CELL + 6), "each frame of the shortest video once"
    with pytest.raises(UserError, match="--frames 9"):
        Sheet(original, (), tmp_path / "sheet.png", (9,)).run()
    with pytest.raises(UserError, match="--frames -1"):
        Sheet(original, (), tmp_path / "sheet.png", (-1,)).run()
    with pytest.raises(UserError, match="two are named original"):
        Sheet(original, (f"original={other}",), tmp_path / "sheet.png").run()
