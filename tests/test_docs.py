"""What the documents say is true: versions, links, commands and their flags."""

import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime import command_line

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class NoFlags:
    """A command without flags."""


def test_every_script_knows_its_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["inference.py", "--version"])
    command_line.run(lambda _: pytest.fail("nothing else is done"), NoFlags)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert capsys.readouterr().out == f"IP-LAP {version}\n"
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
