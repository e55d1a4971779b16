"""The registry finds files by name, verifies them by hash, and downloads without leaving half a file."""

import functools
import hashlib
import http.server
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tyro

from checkpoints import registry
from checkpoints.__main__ import CheckpointsConfig, main
from runtime.command_line import UserError

ROOT = Path(__file__).parents[2]
Offer = Callable[[bytes, bytes], Path]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "FOLDER", tmp_path / "checkpoints")
    (tmp_path / "checkpoints").mkdir()
    monkeypatch.delenv(registry.VARIABLE, raising=False)
    return tmp_path / "checkpoints"


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Offer]:
    """Serves "syncnet" from a local web server: call it with the served and the published content."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = tmp_path / "served"
    served.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def offer(content: bytes, published: bytes) -> Path:
            (served / "net").write_bytes(content)
            source = f"http://127.0.0.1:{server.server_port}/net"
            digest = hashlib.sha256(published).hexdigest()
            file = registry.WeightFile(["net.model"], "a test", "1 KB", digest, "none", source)
            monkeypatch.setitem(registry.FILES, "syncnet", file)
            return served / "net"

        yield offer
        server.shutdown()


def test_entries_are_complete() -> None:
    for file in registry.FILES.values():
        assert re.fullmatch(r"[0-9a-f]{64}|", file.sha256)
        assert file.source.startswith("https://")
        assert file.licence
        if match := re.search(r"-([0-9a-f]{8,10})\.pth", file.name):
            assert file.sha256.startswith(match[1]), "the digits in the name begin the hash"


def test_find_searches_both_folders(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.find("lpips_alex") is None
    other = tmp_path / "other"
    other.mkdir()
    (other / "alexnet_features_torchvision.pth").touch()
    monkeypatch.setenv(registry.VARIABLE, str(other))
    assert registry.find("lpips_alex") == other / "alexnet_features_torchvision.pth"
    (folder / "alexnet-owt-7be5be79.pth").touch()
    assert registry.find("lpips_alex") == folder / "alexnet-owt-7be5be79.pth"


def test_missing_names_file_folder_and_remedy(folder: Path) -> None:
    line = registry.how_to_get("syncnet")
    assert "syncnet_v2.model" in line
    assert str(folder) in line
    assert "--download syncnet" in line


def test_another_networks_weights_are_reported_in_one_line(tmp_path: Path) -> None:
    for error in (KeyError("features.0.weight"), RuntimeError("Error(s) in loading:\n\tMissing"), ValueError("")):
        expected = pytest.raises(UserError, match=r"half\.pth: not the weights of SyncNet")
        with expected as raised, registry.reading(tmp_path / "half.pth", "SyncNet"):
            raise error
        assert "\n" not in str(raised.value)


def test_a_download_is_verified(folder: Path, offer: Offer) -> None:
    offer(b"weights", b"weights")
    main(CheckpointsConfig(download=("syncnet",), verify=True))
    assert (folder / "net.model").read_bytes() == b"weights"
    assert registry.verify("syncnet", folder / "net.model") == "ok"
    (folder / "net.model").write_bytes(b"damaged")
    assert registry.verify("syncnet", folder / "net.model").startswith("DIFFERS")
    with pytest.raises(SystemExit):
        main(CheckpointsConfig(verify=True))


def test_download_without_names_takes_every_file(
    folder: Path, tmp_path: Path, offer: Offer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "FILES", {"syncnet": registry.FILES["syncnet"]})
    offer(b"weights", b"weights")
    monkeypatch.setenv(registry.VARIABLE, str(tmp_path / "nothing"))
    main(CheckpointsConfig())
    assert "nothing (no such folder)" in capsys.readouterr().out
    assert not list(folder.iterdir())
    assert tyro.cli(CheckpointsConfig, args=["--download"]).download == ()
    main(CheckpointsConfig(download=()))
    assert [path.name for path in folder.iterdir()] == ["net.model"]


def test_other_content_is_refused(folder: Path, offer: Offer) -> None:
    offer(b"an error page", b"weights")
    with pytest.raises(UserError, match="does not match the known hash"):
        registry.download("syncnet")
    assert list(folder.iterdir()) == []


def test_a_failed_download_is_one_line(folder: Path, offer: Offer) -> None:
    offer(b"weights", b"weights").unlink()
    with pytest.raises(UserError, match=r"could not be downloaded .*404.* by hand") as raised:
        registry.download("syncnet")
    assert "\n" not in str(raised.value)
    assert list(folder.iterdir()) == []


def test_no_network_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    unreachable = registry.WeightFile(["net.model"], "a test", "1 KB", "", "none", "http://127.0.0.1:9/net")
    monkeypatch.setitem(registry.FILES, "syncnet", unreachable)
    with pytest.raises(UserError, match=r"could not be downloaded .* by hand"):
        registry.download("syncnet")
    assert list(folder.iterdir()) == []


def test_a_dead_link_costs_one_file(
    folder: Path, offer: Offer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offer(b"weights", b"weights")
    dead = registry.WeightFile(["dead.pth"], "a test", "1 KB", "", "none", "http://127.0.0.1:9/dead")
    monkeypatch.setitem(registry.FILES, "dead", dead)
    with pytest.raises(SystemExit) as end:
        main(CheckpointsConfig(download=("dead", "syncnet")))
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
