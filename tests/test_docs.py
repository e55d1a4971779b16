"""What the documents say is true: versions, links, figures, commands and their flags."""

import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from media.video import read_audio
from media.writer import VideoWriter
from runtime import command_line

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        ROOT / "evaluation" / "METHODS.md",
        ROOT / "checkpoints" / "lite" / "CARD.md",
    ]
)
MOST_WORDS_OF_README = 1600
# Programs of others: what they need is said in the text around them.
OTHERS = {
    "cd", "cp", "docker", "ffmpeg", "find", "git", "grep", "head", "ls", "mkdir", "sed", "source", "tail",
    "tensorboard", "while", "do", "done", "sbatch", "make", "torchrun", "python", ".venv/bin/python", ".uv/bin/uv",
    "python3.11", ".venv/bin/pip",
}  # fmt: skip
SEPARATORS = {"&&", "|", ";", "(", ")", "||", "&"}


@dataclass(frozen=True)
class NoFlags:
    """A command without flags."""


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """The fenced blocks of a language: (document and number, text)."""
    for document in DOCUMENTS:
        found = re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.M | re.S)
        for number, text in enumerate(found):
            yield f"{document.relative_to(ROOT)}:{number}", text


def commands(block: str) -> Iterator[list[str]]:
    """The single commands of a block of shell lines, as words."""
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in SEPARATORS:
                words.append(word)
            elif words:
                yield words
                words = []


COMMANDS = [
    pytest.param(words, id=f"{place} {' '.join(words)[:60]}")
    for place, block in blocks("bash")
    for words in commands(block)
]


def own_command(words: list[str]) -> list[str]:
    """The script or module of this project that a command runs, and its flags; nothing if it runs none."""
    if words[0] == "torchrun":
        return words[words.index("--") + 1 :]
    if words[0] == "sbatch":
        script = next(number for number, word in enumerate(words) if word.endswith(".sbatch"))
        arguments = words[script + 1 :]
        return arguments if arguments[0].endswith(".py") else ["-m", "preprocess", "--videos", "V", "--cache", "C"]
    return words[1:] if words[0].endswith("python") else []


def test_every_script_knows_its_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["inference.py", "--version"])
    command_line.run(lambda _: pytest.fail("nothing else is done"), NoFlags)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert capsys.readouterr().out == f"IP-LAP {version}\n"
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_evaluation_knows_its_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["evaluation", "--version"])
    runpy.run_module("evaluation", run_name="__main__")
    assert capsys.readouterr().out == f"IP-LAP {command_line.version()}\n"


@pytest.mark.parametrize("words", COMMANDS)
def test_documented_command_is_understood(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert words[0] in OTHERS, "a program that this test does not know"
    if words[0] == "make":
        target = next(word for word in words[1:] if "=" not in word)
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
    for word in words:
        if word.startswith(("assets/", "examples/")) or word.endswith(".sbatch"):
            assert (ROOT / word).is_file(), f"{word} does not exist"
    command = own_command(words)
    if command and command[0].endswith(".py"):
        assert (ROOT / command[0]).is_file(), f"{command[0]} does not exist"
    if command[:1] == ["app.py"]:
        pytest.importorskip("gradio")
    if not command or command[:1] == ["-c"] or command[:2] == ["-m", "pytest"]:
        return
    parsed: list[Any] = []

    run = command_line.run

    def parse(_: object, *arguments: Any, **named: Any) -> None:
        run(parsed.append, *arguments, **named)

    monkeypatch.setattr(command_line, "run", parse)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.chdir(ROOT)
    is_help = "--help" in command
    try:
        if command[0] == "-m":
            monkeypatch.setattr(sys, "argv", command[1:])
            runpy.run_module(command[1], run_name="__main__", alter_sys=False)
        else:
            monkeypatch.setattr(sys, "argv", command)
            runpy.run_path(str(ROOT / command[0]), run_name="__main__")
    except SystemExit as end:
        assert is_help, f"exit code {end.code}"
        assert not end.code
        return
    assert parsed, "the command did not parse its flags"


@pytest.mark.parametrize(("place", "block"), list(blocks("bash")))
def test_lists_of_training_are_preprocessed(place: str, block: str) -> None:
    lists: dict[str, set[str]] = {}  # by cache, of the commands of a block that preprocess only the clips in lists
    for words in commands(block):
        flags = own_command(words)
        cache = flags[flags.index("--cache") + 1] if "--cache" in flags else ""
        if flags[:2] == ["-m", "preprocess"] and "--list" in flags:
            lists[cache] = {word for word in flags if word.endswith(".txt")}
        elif cache in lists:
            assert {word for word in flags if word.endswith(".txt")} <= lists[cache], place


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"[`*_]|\[|\]\([^)]*\)", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), f"{target} does not exist"
        if anchor:
            linked = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
            anchors = {slug(heading) for heading in re.findall(r"^#+ (.*)$", linked, re.M)}
            assert anchor in anchors, f"{target}: no such heading"


def test_every_document_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for document in ROOT.glob("docs/*.md"):
        assert f"(docs/{document.name})" in readme, document.name


def test_contributing_names_every_room() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    rooms = [path.name for path in ROOT.glob("*.py")]
    rooms += [f"{path.parent.name}/" for path in ROOT.glob("*/__init__.py")]
    assert [room for room in rooms if f"\n{room} " not in text and f" {room} " not in text] == []


def test_readme_fits_on_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= MOST_WORDS_OF_README


def test_readme_figures_are_those_of_the_card() -> None:
    readme = (ROOT / "README.md").read_text()
    card = (ROOT / "checkpoints" / "lite" / "CARD.md").read_text()
    table = re.search(r"<!-- figures: begin.*?-->(.*)<!-- figures: end -->", readme, re.S)
    assert table
    rows = [line for line in table[1].splitlines() if line.startswith("|") and "paper" not in line]
    figures = [figure for row in rows for figure in re.findall(r"-?\d+\.\d+", row)]
    assert len(figures) > 8
    assert [figure for figure in figures if figure not in card] == []


def test_readme_picture_moves_and_is_small() -> None:  # make picture
    path = ROOT / "assets" / "dub.webp"
    assert path.stat().st_size < 2e6
    with Image.open(path) as picture:
        assert getattr(picture, "n_frames", 1) > 50


@pytest.mark.parametrize("script", sorted(ROOT.glob("examples/slurm/*")), ids=lambda path: path.name)
def test_cluster_script_is_valid_shell(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)


@pytest.mark.slow
def test_python_examples_run(tmp_path: Path) -> None:
    size = (128, 128)
    with Image.open(ROOT / "assets" / "portrait.png") as portrait:
        face = portrait.convert("RGB").crop((130, 0, 330, 200)).resize(size)
    wav = read_audio(ROOT / "assets" / "speech.flac")[:8000]
    wavfile.write(tmp_path / "speech.wav", 16000, wav)
    with VideoWriter(tmp_path / "talk.mp4", 25, size, [(tmp_path / "speech.wav", 0.0)]) as writer:
        for _ in range(12):
            writer.write(np.asarray(face))
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    examples = [text for _, text in blocks("python") if "dub(" in text]
    assert len(examples) >= 2
    for text in examples:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", text]
        done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        assert (tmp_path / "dubbed.mp4").is_file()
        (tmp_path / "dubbed.mp4").unlink()


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    cells = json.loads((ROOT / "examples" / "tour.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    for name in ("inference.py", "assets", "checkpoints"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg"}
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=tmp_path, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert (tmp_path / "outputs" / "tour.mp4").is_file()
    assert all(not cell["outputs"] for cell in cells if cell["cell_type"] == "code"), "clear the outputs"


def test_smaller_installation_leaves_out_only_what_nvidia_gpus_need() -> None:
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    [pattern] = re.findall(r"grep -vE '(.*)' requirements.txt", text)
    packages = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.M)
    left_out = [package for package in packages if re.match(pattern, package)]
    assert {"torch", "torchvision", "mediapipe", "av"} <= set(packages) - set(left_out)
    assert len(left_out) > 10, "NVIDIA's libraries"
