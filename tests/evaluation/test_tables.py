"""Tables: intervals, formats with the same numbers, and the paper's own figures."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from evaluation.figures import Report
from evaluation.tables import (
    COLUMNS,
    PUBLISHED,
    ClipScore,
    Table,
    bootstrap,
    make_output_folder,
    published_rows,
    summarise,
)
from runtime.command_line import UserError

from .conftest import read_table

CLIPS = [
    ClipScore("a", {"PSNR": 30.0, "LipLMD": 0.01}, expected=100, produced=100, frames=100),
    ClipScore("b", {"PSNR": 20.0, "LipLMD": 0.03}, expected=320, produced=300, frames=300),
    ClipScore("c", expected=80, reason="no video of that name"),
]


def test_means_are_over_frames_or_over_clips() -> None:
    cells = summarise("Ours", CLIPS, 12.5).cells
    assert cells["PSNR"][0] == pytest.approx(22.5), "every frame has the same weight"
    assert cells["LipLMD"][0] == pytest.approx(0.02)
    assert cells["FID"] == [12.5]
    assert cells["produced"][0] == pytest.approx(400 / 500), "a share of frames, not of clips"
    assert "LSE-C" not in cells, "a column that was not measured has no cell"


def test_bootstrap_interval_covers_the_mean() -> None:
    random = np.random.default_rng(0)
    inside = [low <= 0 <= high for _, low, high in (bootstrap(random.standard_normal(45)) for _ in range(100))]
    assert 0.88 <= np.mean(inside) <= 0.99
    mean, low, high = bootstrap(np.array([1.0, 2, 3, np.nan]))
    assert (mean, low <= mean <= high) == (2, True)
    assert bootstrap(np.array([1.0, 2, 3])) == bootstrap(np.array([1.0, 2, 3])), "the seed is fixed"
    assert bootstrap(np.array([3.0, np.nan])) == [3], "one value has no interval"
    assert np.isnan(bootstrap(np.array([np.nan]))).all()


def example_table() -> Table:
    return Table(
        "t",
        [summarise("Ours_1", CLIPS), *published_rows("table1 LRS2, reconstruction")],
        ["FID left out: no file"],
    )


def test_all_formats_hold_the_same_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = example_table()
    table.publish(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.json", "t.md"]
    for content in (capsys.readouterr().out, (tmp_path / "t.md").read_text()):
        assert "22.50" in content
        assert "32.91" in content
        assert "1 of 3" in content
        assert "FID left out" in content
        assert "failed: Ours_1, c: no video of that name" in content
        assert "[20.00, 30.00]" in content
    rows = json.loads((tmp_path / "t.json").read_text())["rows"]
    assert rows[0]["clips"][2]["reason"] == "no video of that name"
    assert rows[0]["clips"][1]["values"] == {"PSNR": 20.0, "LipLMD": 0.03}
    assert read_table(tmp_path / "t.json").markdown() == table.markdown()


def test_special_characters_and_nan_spoil_no_format(tmp_path: Path) -> None:
    clips = [ClipScore("a", {"PSNR": 30.0, "LSE-C": float("nan")}, frames=9)]
    table = Table("t", [summarise("R&D 100% | x", clips, float("nan"))], [])
    assert re.search(r"\| R&D 100% \\\| x +\| +30\.00", table.markdown())
    table.publish(tmp_path)
    assert "NaN" not in (tmp_path / "t.json").read_text()
    assert "nan" not in table.markdown()
    assert re.search(r"\| Method +\| +PSNR ↑ +\| +failed +\|", table.markdown()), "no other column"


def test_wrong_files_and_folders_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--output"):
        make_output_folder(tmp_path / "file")
    example_table().publish(tmp_path)
    with pytest.raises(UserError, match=r"nothing\.png cannot be opened"):
        Report((tmp_path / "t.md",), tmp_path / "report.md", (tmp_path / "nothing.png",)).run()
    with pytest.raises(UserError, match=r"nothing\.md cannot be opened"):
        Report((tmp_path / "nothing.md",), tmp_path / "report.md").run()
    with pytest.raises(UserError, match=r"--output.*md"):
        Report((tmp_path / "t.md",), tmp_path / "t.json").run()
    with pytest.raises(UserError, match=r"--output.*would overwrite"):
        Report((tmp_path / "t.md",), tmp_path / "t.md").run()


def test_published_figures_have_known_columns() -> None:
    assert set(PUBLISHED) == {
        "table1 LRS2, reconstruction", "table1 LRS2, dubbing", "table1 LRS3, reconstruction", "table1 LRS3, dubbing",
        "table2", "table3", "table4 LRS2, reconstruction", "table5 LRS2, reconstruction",
    }  # fmt: skip
    assert PUBLISHED["table1 LRS3, dubbing"]["IP-LAP"]["LSE-C"] == 5.63
    assert PUBLISHED["table5 LRS2, reconstruction"]["N=25"]["FID"] == 27.93
    for rows in PUBLISHED.values():
        for cells in rows.values():
            assert cells.keys() <= COLUMNS.keys()


def test_report_holds_tables_and_links_sheets(tmp_path: Path) -> None:
    example_table().publish(tmp_path)
    (tmp_path / "faces.png").write_bytes(b"picture")
    Report((tmp_path / "t.md",), tmp_path / "report.md", (tmp_path / "faces.png",)).run()
    text = (tmp_path / "report.md").read_text()
    assert "22.50" in text
    assert "![faces](faces.png)" in text
