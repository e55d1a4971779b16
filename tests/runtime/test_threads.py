"""Threads are no more than a process may use, and a user's own settings are kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import threads

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.max": "nonsense"}, 64),
        ({}, 64),
    ],
)
def test_container_quota_limits_the_cores(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(threads, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert threads.available_cores() == cores


def settings_after_import(**environment: str) -> list[str]:
    code = (
        "import os, runtime.threads\n"
        "for name in ('OMP_NUM_THREADS', 'OMP_WAIT_POLICY', 'GOMP_SPINCOUNT'):\n"
        "    print(os.environ.get(name))\n"
    )
    inherited = {name: value for name, value in os.environ.items() if "OMP_" not in name}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=inherited | environment, capture_output=True, text=True, check=True
    )
    return ended.stdout.split()


def test_threads_spin_for_a_moment_only() -> None:
    assert settings_after_import() == [str(threads.available_cores()), "PASSIVE", "2000"]


def test_settings_of_the_user_are_kept() -> None:
    assert settings_after_import(OMP_NUM_THREADS="3", OMP_WAIT_POLICY="ACTIVE") == ["3", "ACTIVE", "None"]


@pytest.mark.parametrize(
    "script", ["inference", "train_landmark", "train_render", "preprocess.__main__", "evaluation.__main__"]
)
def test_scripts_set_threads_before_pytorch_loads(script: str) -> None:
    code = (
        "import sys, importlib.abc\n"
        "class Watch(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *_):\n"
        "        if name in ('torch', 'numpy'):\n"
        "            sys.exit(None if 'runtime.threads' in sys.modules else f'{name} comes first')\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"import {script}\n"
        "sys.exit('it needs neither')\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
