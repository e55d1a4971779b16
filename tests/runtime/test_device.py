"""Which device is chosen, and what a missing one tells the user."""

import pytest
import torch

from runtime.command_line import UserError
from runtime.device import pick_device


def test_each_process_uses_only_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[str] = []
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch, "zeros", lambda _, device: touched.append(str(device)) or torch.ones(1))
    assert pick_device("auto", 3) == pick_device("cuda", 3) == torch.device("cuda:3")
    assert pick_device("cpu", 3) == torch.device("cpu")
    assert pick_device("cuda") == torch.device("cuda")
    assert touched == ["cuda:3", "cuda:3", "cpu", "cuda"]  # no process takes memory on another's GPU


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "meta"])
def test_missing_device_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match=f"device {name}: not usable on this machine; use cpu or auto") as error:
        pick_device(name)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
