"""Sheets and side-by-side videos, drawn from made-up clips."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation.figures import CELL, Compare, Sheet, compare, mouth_box, sheet
from media.video import Video
from runtime.command_line import UserError

from .conftest import frame, write


def test_mouth_box_is_a_square_around_the_lips_within_the_frame() -> None:
    lips = np.array([[40.0, 60], [60, 60], [50, 55], [50, 65]])
    x0, y0, x1, y1 = mouth_box(lips, (200, 200))
    assert x1 - x0 == y1 - y0 == 44  # the mouth's 20 and 0.6 of it on either side
    assert (x0 + x1, y0 + y1) == (100, 120)
    assert mouth_box(lips - 45, (200, 200)).tolist() == [0, 0, 44, 44], "at the edge it stays a square"
    assert mouth_box(lips, (120, 30)).tolist() == [35, 0, 65, 30]


def test_side_by_side_in_step_with_names_and_sound(tmp_path: Path) -> None:
    colours = {"red": (250, 0, 0), "blue": (0, 0, 250)}
    for count, (name, colour) in zip((4, 6), colours.items(), strict=True):
        write(tmp_path / f"{name}.mp4", [np.full((100, 80, 3), colour, np.uint8)] * count)
    videos = tuple(f"{name}={tmp_path / name}.mp4" for name in colours)
    compare(Compare(videos, tmp_path / "both.mp4", height=50))
    pictures = list(Video(tmp_path / "both.mp4"))
    assert len(pictures) == 4, "the common part"
    assert pictures[0].shape[1] == 80
    for x, colour in ((20, (250, 0, 0)), (60, (0, 0, 250))):
        assert np.abs(pictures[2][-20, x].astype(int) - colour).max() < 25
    assert pictures[0][:24].max() > 200, "a strip for the names"
    assert Video(tmp_path / "both.mp4").has_audio
    with pytest.raises(UserError, match="NAME="):
        compare(Compare(("red.mp4",), tmp_path / "both.mp4"))
    with pytest.raises(UserError, match="height: at least 1 is needed, not 0"):
        compare(Compare(videos, tmp_path / "both.mp4", height=0))
    before = (tmp_path / "red.mp4").read_bytes()
    with pytest.raises(UserError, match=r"--output: .*would overwrite"):
        compare(Compare(videos, tmp_path / "red.mp4"))
    assert (tmp_path / "red.mp4").read_bytes() == before


@pytest.mark.slow
def test_sheet_has_a_row_for_each_video_and_a_pair_for_each_frame(tmp_path: Path) -> None:
    original = write(tmp_path / "original.mp4", [frame(i + 4) for i in range(4)])
    cut = [cv2.resize(frame(i + 4, 40)[20:180, 20:180], (256, 256)) for i in range(4)]
    other = write(tmp_path / "other.mp4", cut)
    sheet(Sheet(original, (f"Other={other}",), tmp_path / "sheet.png", (0, 3)))
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    assert picture is not None
    assert picture.shape == (24 * 3 + CELL * 2, 2 * (2 * CELL + 6), 3)
    face, face_of_other = picture[48 : 48 + CELL, :CELL], picture[72 + CELL : 72 + 2 * CELL, :CELL]
    assert face_of_other.mean() - face.mean() > 20, "the other is brighter"
    likeness = np.corrcoef(face.astype(float).ravel(), face_of_other.astype(float).ravel())[0, 1]
    assert likeness > 0.9, "both are cut by the face, whatever their framing"
    write(other, cut[:2])
    sheet(Sheet(original, (f"Other={other}",), tmp_path / "spread.png"))
    spread = cv2.imread(str(tmp_path / "spread.png"))
    assert spread is not None and spread.shape[1] == 5 * (2 * CELL + 6), "over the shortest"
    with pytest.raises(UserError, match="--frames 9"):
        sheet(Sheet(original, (), tmp_path / "sheet.png", (9,)))
    with pytest.raises(UserError, match="--frames -1"):
        sheet(Sheet(original, (), tmp_path / "sheet.png", (-1,)))
    with pytest.raises(UserError, match="two are named original"):
        sheet(Sheet(original, (f"original={other}",), tmp_path / "sheet.png"))
