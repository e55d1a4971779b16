"""The registry: found by name, verified by hash, fetched without leaving half a file."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from checkpoints import registry
from checkpoints.__main__ import Config, main
from runtime.command_line import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "FOLDER", tmp_path / "checkpoints")
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    return tmp_path / "checkpoints"


def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, published: bytes) -> None:
    """Makes "syncnet" a file of this machine whose published content is `published`."""
    (tmp_path / "source").write_bytes(content)
    digest = hashlib.sha256(published).hexdigest()
    file = registry.WeightFile(["net.model"], "a test", "1 KB", digest, "none", (tmp_path / "source").as_uri())
    monkeypatch.setitem(registry.FILES, "syncnet", file)


def test_entries_are_complete() -> None:
    for file in registry.FILES.values():
        assert re.fullmatch(r"[0-9a-f]{8,64}|", file.sha256)
        assert file.source.startswith("https://")
        assert file.licence
        if match := re.search(r"-([0-9a-f]{8,10})\.pth", file.name):
            assert file.sha256 == match[1], "the name's digits are the hash's first"


def test_find_looks_in_both_folders(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.find("lpips_alex") is None
    other = tmp_path / "other"
    other.mkdir()
    (other / "alexnet_features_torchvision.pth").touch()
    monkeypatch.setenv(registry.VARIABLE, str(other))
    assert registry.find("lpips_alex") == other / "alexnet_features_torchvision.pth"
    (folder / "alexnet-owt-7be5be79.pth").touch()
    assert registry.find("lpips_alex") == folder / "alexnet-owt-7be5be79.pth"
    assert registry.find("arcface", "lpips_alex") == folder / "alexnet-owt-7be5be79.pth"


def test_missing_names_column_file_and_remedy() -> None:
    line = registry.missing("LSE-C", "syncnet")
    assert "LSE-C" in line
    assert "syncnet_v2.model" in line
    assert "--download syncnet" in line
    assert "insightface" in registry.missing("CSIM", "arcface")
    assert "--download arcface_onnx" in registry.missing("CSIM", "arcface", "arcface_onnx"), "the one with a link"


def test_a_file_of_another_kind_is_one_line(tmp_path: Path) -> None:
    for error in (KeyError("features.0.weight"), RuntimeError("Error(s) in loading:\n\tMissing"), ValueError("")):
        expected = pytest.raises(UserError, match=r"half\.pth: not the weights of SyncNet")
        with expected as raised, registry.reading(tmp_path / "half.pth", "SyncNet"):
            raise error
        assert "\n" not in str(raised.value)


def test_download_checks_and_renames(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(tmp_path, monkeypatch, b"weights", b"weights")
    main(Config(download=("syncnet",), verify=True))
    assert (folder / "net.model").read_bytes() == b"weights"
    assert registry.verify("syncnet", folder / "net.model") == "ok"
    (folder / "net.model").write_bytes(b"damaged")
    assert registry.verify("syncnet", folder / "net.model").startswith("DIFFERS")
    with pytest.raises(SystemExit):
        main(Config(verify=True))


def test_download_without_names_takes_all_that_has_a_link(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "FILES", {k: registry.FILES[k] for k in ("arcface", "syncnet")})
    offer(tmp_path, monkeypatch, b"weights", b"weights")
    monkeypatch.setenv(registry.VARIABLE, str(tmp_path / "nothing"))
    main(Config())
    assert "nothing (no such folder)" in capsys.readouterr().out
    assert not list(folder.iterdir())
    assert tyro.cli(Config, args=["--download"]).download == ()
    main(Config(download=()))
    assert [path.name for path in folder.iterdir()] == ["net.model"]


def test_another_content_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(tmp_path, monkeypatch, b"an error page", b"weights")
    with pytest.raises(UserError, match="another file"):
        registry.download("syncnet")
    assert list(folder.iterdir()) == []


def test_no_network_is_one_line(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(tmp_path, monkeypatch, b"weights", b"weights")
    (tmp_path / "source").unlink()
    with pytest.raises(UserError, match="by hand"):
        registry.download("syncnet")
    assert list(folder.iterdir()) == []
    with pytest.raises(UserError, match="no direct link"):
        registry.download("arcface")


def test_a_dead_link_costs_one_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(tmp_path, monkeypatch, b"weights", b"weights")
    with pytest.raises(SystemExit) as end:
        main(Config(download=("arcface", "syncnet")))  # the first has no link
    assert end.value.code == 2
    assert "error: " in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["net.model"]


def test_command_line() -> None:
    done = subprocess.run([sys.executable, "-m", "checkpoints"], cwd=ROOT, capture_output=True, text=True, check=True)
    for file in registry.FILES.values():
        assert file.name in done.stdout
    wrong = subprocess.run(
        [sys.executable, "-m", "checkpoints", "--download", "nothing"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr
    assert len(wrong.stderr.splitlines()) == 1
