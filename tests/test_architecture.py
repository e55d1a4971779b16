"""The house rules that a machine can check: who may import whom, sizes, the exported requirements."""

import ast
import io
import itertools
import re
import tokenize
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Room -> what it may import of the project besides itself, from the ground up. Every permission is used.
ALLOWED: dict[str, set[str]] = {
    "runtime": set(),
    "checkpoints": {"runtime"},
    "media": {"runtime"},
    "face": {"runtime", "media"},
    "losses": set(),
    "models": {"runtime", "face.crop", "face.fingerprint", "face.landmarks"},
    "metrics": {"checkpoints", "media", "face"},
    "datasets": {"runtime", "media", "face"},
    "training": {"runtime"},
    "networks": {"runtime", "media", "face", "models"},
    "preprocess": {"runtime", "checkpoints", "media", "face", "metrics.syncnet", "datasets"},
    "jobs": {"runtime"},
    "drawing": {"runtime", "media", "face", "networks"},
    "inference": {"runtime", "media", "face", "networks", "drawing", "jobs"},
    "train_landmark": {
        "runtime", "media", "face", "datasets", "losses", "models", "metrics.lip_motion", "networks", "training",
    },
    "train_render": {
        "runtime", "checkpoints", "datasets", "losses", "models", "metrics.image_quality", "training",
    },
    "evaluation": {
        "runtime", "checkpoints", "media", "face", "datasets", "metrics", "networks", "inference",
    },
    "benchmarks": {"runtime", "media", "models", "networks", "inference"},
}  # fmt: skip
MOST_TOKENS = 72_000
MOST_TOKENS_A_LINE = 10.5
MOST_LINES_OF_A_FILE = 400


def python_files(room: str) -> list[Path]:
    script = ROOT / f"{room}.py"
    return [script] if script.exists() else sorted((ROOT / room).rglob("*.py"))


FILES = [path for room in ALLOWED for path in python_files(room)]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(module + ".")


@pytest.mark.parametrize("room", ALLOWED)
def test_arrows_point_down(room: str) -> None:
    files = python_files(room)
    assert files, f"{room} is gone: mend the table above"
    used = set()
    for path in files:
        for name in imports(path):
            top = name.split(".")[0]
            if top not in ALLOWED or top == room:
                continue
            permission = {allowed for allowed in ALLOWED[room] if is_within(name, allowed)}
            assert permission, f"{path.relative_to(ROOT)} imports {name}; {room} may import {sorted(ALLOWED[room])}"
            used |= permission
    assert used == ALLOWED[room], f"{room} may import what it does not: {sorted(ALLOWED[room] - used)}"


def test_every_python_file_has_a_room() -> None:
    tops = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in ROOT.glob("*.py")}
    tops |= {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert tops - {"tests", "app"} == set(ALLOWED)


def test_the_papers_models_do_not_know_lite() -> None:
    for path in sorted((ROOT / "models").glob("*.py")):
        if path.name != "weights.py":
            assert not any(is_within(name, "models.lite") for name in imports(path)), path


@pytest.mark.parametrize(("library", "home"), [("av", "media/ffmpeg.py"), ("mediapipe", "face/detector.py")])
def test_one_file_imports(library: str, home: str) -> None:
    users = [path.relative_to(ROOT) for path in FILES if library in {name.split(".")[0] for name in imports(path)}]
    assert users == [Path(home)]


def count_lines(text: str) -> int:
    """Lines of code: no blank lines, no comments, no docstrings."""
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documentation.update(range(node.lineno, (node.end_lineno or 0) + 1))
    lines = (line.strip() for number, line in enumerate(text.splitlines(), 1) if number not in documentation)
    return sum(bool(line) and not line.startswith("#") for line in lines)


def count_tokens(text: str) -> int:
    kinds = (tokenize.NAME, tokenize.OP, tokenize.NUMBER, tokenize.STRING)
    return sum(token.type in kinds for token in tokenize.generate_tokens(io.StringIO(text).readline))


def test_the_code_stays_small_and_unpacked() -> None:
    texts = [path.read_text() for path in FILES]
    tokens = sum(map(count_tokens, texts))
    assert tokens <= MOST_TOKENS
    assert tokens / sum(map(count_lines, texts)) <= MOST_TOKENS_A_LINE


def test_files_stay_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > MOST_LINES_OF_A_FILE} == {}


def test_the_formatter_is_skipped_only_at_tables_of_numbers() -> None:
    skips = {str(path.relative_to(ROOT)) for path in FILES if "# fmt: skip" in path.read_text()}
    assert skips <= {"face/landmarks.py"}


def test_requirements_are_the_lock() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked = {(p["name"], p["version"]) for p in lock["package"] if "registry" in p.get("source", {})}
    required = set(re.findall(r"^([\w.-]+)==([\w.+!-]+)", (ROOT / "requirements.txt").read_text(), re.M))
    assert required, "requirements.txt is empty: make requirements"
    assert required <= locked, f"requirements.txt differs from uv.lock, run make requirements: {required - locked}"
    direct = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[=<>!~ ]", d)[0].lower() for d in direct}
    assert names <= {n for n, _ in required}, "a dependency is missing from requirements.txt: make requirements"


def test_unsafe_loading_is_nowhere() -> None:
    for path in FILES:
        text = path.read_text()
        for call in re.finditer(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in call.group(), f"{path}: {call.group()}"
        assert "import pickle" not in text, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_help_texts_fit_one_line(path: Path) -> None:
    """The docstrings of settings: tyro would break the help where a line ends."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            for setting, text in itertools.pairwise(node.body):
                if isinstance(setting, ast.AnnAssign) and isinstance(text, ast.Expr):
                    assert text.lineno == text.end_lineno, ast.unparse(setting)
