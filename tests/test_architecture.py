"""The house rules that a machine can check: who may import whom, sizes of files, the exported requirements."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ["face", "media", "models", "losses", "datasets", "training", "preprocess", "evaluation", "benchmarks"]
SCRIPTS = ["train_landmark", "train_render", "inference"]
SHARED = {"command_line", "workers", "checkpoints"}
LIBRARY = {"face", "media", "models", "losses", "datasets", "training"}
# Room -> what it may import of the project besides itself and SHARED (checkpoints holds the registry of weights).
ALLOWED: dict[str, set[str]] = {
    "command_line": set(),
    "workers": set(),
    "checkpoints": set(),
    "media": set(),
    "face": {"media"},
    "models": {"face.landmarks"},
    "losses": set(),
    "datasets": {"face", "media"},
    "training": {"models.weights"},
    "preprocess": {"face", "media", "datasets", "evaluation"},
    "evaluation": {"face", "media", "datasets", "models", "training.device", "networks", "inference"},
    "benchmarks": {*LIBRARY, "preprocess", "networks", "inference", "train_landmark", "train_render"},
    "networks": LIBRARY,
    "inference": LIBRARY | {"networks"},
    "train_landmark": LIBRARY | {"evaluation.lip_sync"},  # validation by the metrics of the tables
    "train_render": LIBRARY | {"evaluation.image_quality"},
}
MOST_LINES = 6321  # that do something; to come down to 5,000
# Within evaluation the scores stay free of any model; only these files drive the Dubber or read a clip cache.
SCORES = ["image_quality", "lip_sync", "identity"]


def python_files(room: str) -> list[Path]:
    return [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").exists() else sorted((ROOT / room).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("room", ALLOWED)
def test_arrows_point_one_way(room: str) -> None:
    files = python_files(room)
    assert files, f"{room} is gone: mend the table above"
    ours = set(ALLOWED)
    for path in files:
        for name in imports(path):
            top = name.split(".")[0]
            if top not in ours or top == room or top in SHARED:
                continue
            allowed = ALLOWED[room]
            assert any(name == a or name.startswith(a + ".") for a in allowed), (
                f"{path.relative_to(ROOT)} imports {name}; {room} may import only {sorted(allowed)}"
            )


@pytest.mark.parametrize("score", SCORES)
def test_scores_know_no_model(score: str) -> None:
    for path in sorted((ROOT / "evaluation").glob(f"{score}*.py")):
        assert not {n.split(".")[0] for n in imports(path)} & {"models", "inference", "datasets"}, path


@pytest.mark.parametrize(("library", "home"), [("av", "media/ffmpeg.py"), ("mediapipe", "face/detector.py")])
def test_one_file_imports(library: str, home: str) -> None:
    users = [
        str(path.relative_to(ROOT))
        for room in ALLOWED
        for path in python_files(room)
        if library in {n.split(".")[0] for n in imports(path)}
    ]
    assert users == [home]


def lines_of_code(text: str) -> int:
    """Lines that do something: no blank lines, comments or docstrings, which are asked for and not to be saved on."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented.update(range(node.lineno, (node.end_lineno or 0) + 1))
    lines = (line.strip() for number, line in enumerate(text.splitlines(), 1) if number not in documented)
    return sum(bool(line) and not line.startswith("#") for line in lines)


def test_files_stay_short() -> None:
    texts = {path: path.read_text() for room in ALLOWED for path in python_files(room)}
    assert {str(p): n for p, text in texts.items() if (n := len(text.splitlines())) > 400} == {}
    assert sum(map(lines_of_code, texts.values())) <= MOST_LINES


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
    for room in ALLOWED:
        for path in python_files(room):
            for call in re.finditer(r"torch\.load\([^)]*\)", path.read_text()):
                assert "weights_only=True" in call.group(), f"{path}: {call.group()}"
            assert "import pickle" not in path.read_text(), path
