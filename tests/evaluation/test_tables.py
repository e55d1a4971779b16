"""Tables: intervals, five formats with the same numbers, and the paper's own figures."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.figures import Report, report
from evaluation.tables import (
    COLUMNS,
    PUBLISHED,
    ClipScore,
    Table,
    bootstrap,
    output_folder,
    published,
    read_table,
    row_of,
)
from runtime.command_line import UserError

CLIPS = [
    ClipScore("a", {"PSNR": 30.0, "LipLMD": 0.01}, wanted=100, produced=100, frames=100),
    ClipScore("b", {"PSNR": 20.0, "LipLMD": 0.03}, wanted=320, produced=300, frames=300, faceless=2),
    ClipScore("c", wanted=80, reason="no video of that name"),
]


def test_means_over_frames_and_over_clips() -> None:
    cells = row_of("Ours", CLIPS, {"FID": 12.5}).cells
    assert cells["PSNR"][0] == pytest.approx(22.5), "every frame weighs the same"
    assert cells["LipLMD"][0] == pytest.approx(0.02)
    assert cells["FID"] == [12.5]
    assert cells["produced"][0] == pytest.approx(400 / 500), "a share of frames, not of clips"
    assert "LSE-C" not in cells, "what was not measured has no cell"


def test_bootstrap_covers_the_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    inside = [low <= 0 <= high for _, low, high in (bootstrap(random.standard_normal(45)) for _ in range(100))]
    assert 0.88 <= np.mean(inside) <= 0.99
    mean, low, high = bootstrap(np.array([1.0, 2, 3, np.nan]))
    assert (mean, low <= mean <= high) == (2, True)
    assert bootstrap(np.array([1.0, 2, 3])) == bootstrap(np.array([1.0, 2, 3])), "the same answer every time"
    assert bootstrap(np.array([3.0, np.nan])) == [3], "one value has no interval"
    assert np.isnan(bootstrap(np.array([np.nan]))).all()


def made() -> Table:
    return Table(
        "table1, reconstruction", [row_of("Ours_1", CLIPS), *published("table1 LRS2")], ["FID left out: no file"]
    )


def test_five_formats_say_the_same(tmp_path: Path) -> None:
    table = made()
    table.publish(tmp_path, "t")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.json", "t.md", "t.tex", "t.txt"]
    text = (tmp_path / "t.txt").read_text()
    for content in (text, (tmp_path / "t.md").read_text(), (tmp_path / "t.tex").read_text()):
        assert "22.50" in content
        assert "32.91" in content
        assert "1 of 3" in content
        assert "FID left out" in content
        assert "failed: Ours_1, c: no video of that name" in content
        assert "[20.00, 30.00]" in content
    assert r"Ours\_1 & 22.50 &" in (tmp_path / "t.tex").read_text()
    assert r"$\uparrow$" in (tmp_path / "t.tex").read_text()
    lines = list(csv.DictReader(io.StringIO((tmp_path / "t.csv").read_text())))
    assert {line["value"] for line in lines if line["clip"] == "b"} == {"20.0", "0.03"}
    assert any(line["clip"] == "c" and line["reason"] for line in lines)
    again = read_table(tmp_path / "t.json")
    assert again.text() == table.text()
    assert json.loads((tmp_path / "t.json").read_text())["rows"][0]["failed"] == {"c": "no video of that name"}


def test_names_and_gaps_spoil_no_format() -> None:
    assert r"a\_b\{\^{}\textbackslash{}\} &" in Table("t", [row_of("a_b{^\\}", [])]).latex()
    clips = [ClipScore("a", {"PSNR": 30.0, "LSE-C": float("nan")}, frames=9)]
    table = Table("t", [row_of("R&D 100% | x", clips, {"FID": float("nan")})])
    assert r"R\&D 100\% | x & 30.00 &" in table.latex()
    assert r"| R&D 100% \| x | 30.00" in table.markdown()
    assert "NaN" not in table.json()
    assert "nan" not in table.csv()
    assert table.columns == ["PSNR"]


def test_what_is_no_table_and_no_folder_is_one_line(tmp_path: Path) -> None:
    empty = (
        '{"title": "t", "notes": [], "rows": [{"name": "x", "cells": {"PSNR": []}, "clips": [], "published": false}]}'
    )
    for content in (empty, "no json", "[]", "3", '{"rows": [{"name": "x"}]}', '{"rows": [1]}'):
        (tmp_path / "t.json").write_text(content)
        with pytest.raises(UserError, match="no table"):
            read_table(tmp_path / "t.json")
    with pytest.raises(UserError, match="--output"):
        output_folder(tmp_path / "t.json")
    made().publish(tmp_path, "t")
    with pytest.raises(UserError, match=r"--sheets: .*nothing"):
        report(Report((tmp_path / "t.json",), tmp_path / "report.html", (tmp_path / "nothing.png",)))
    with pytest.raises(UserError, match=r"--output.*html"):  # the table itself
        report(Report((tmp_path / "t.json",), tmp_path / "t.json"))


def test_the_papers_figures() -> None:
    assert set(PUBLISHED) == {"table1 LRS2", "table1 LRS3", "table2", "table3", "table4", "table5"}
    assert PUBLISHED["table1 LRS3"]["IP-LAP"]["LSE-C"] == 5.63
    assert PUBLISHED["table5"]["N=25"]["FID"] == 27.93
    for rows in PUBLISHED.values():
        for cells in rows.values():
            assert cells.keys() <= COLUMNS.keys()


@pytest.mark.slow
def test_report_opens_from_disk(tmp_path: Path) -> None:
    made().publish(tmp_path, "t")
    report(Report((tmp_path / "t.json",), tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    assert "22.50" in page
    assert "data:image/png;base64," in page
    assert 'src="http' not in page
    Table("t", published("table3")).publish(tmp_path, "theirs")
    report(Report((tmp_path / "theirs.json",), tmp_path / "report.html"))
    page = (tmp_path / "report.html").read_text()
    assert "3.04" in page and "<img" not in page, "no clips, no plot"
