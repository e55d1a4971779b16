"""Landmarks of face-alignment, loaded from synthetic files of the published shapes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metrics.landmarks68 import COUNT, LIPS, Landmarks68
from runtime.command_line import UserError


@pytest.mark.slow
def test_files_of_the_published_shapes_load_offline(tmp_path: Path) -> None:
    from face_alignment.detection.sfd.net_s3fd import s3fd
    from face_alignment.models.fan import FAN

    torch.manual_seed(0)
    fan = FAN(4)
    torch.save(fan.state_dict(), tmp_path / "2DFAN4.pth.tar")
    torch.save(s3fd().state_dict(), tmp_path / "s3fd.pth")
    points = Landmarks68(tmp_path / "2DFAN4.pth.tar", tmp_path / "s3fd.pth")
    (tmp_path / "half.pth").write_bytes(b"half")
    with pytest.raises(UserError, match=r"half\.pth: not the weights of 2DFAN4 and S3FD"):
        Landmarks68(tmp_path / "2DFAN4.pth.tar", tmp_path / "half.pth")
    assert points.network.flip_input, "averages the landmarks with those of the mirrored image"
    network: Any = points.network.face_alignment_net
    loaded = network.state_dict()
    for name, weight in fan.state_dict().items():
        torch.testing.assert_close(loaded[name], weight)


def test_largest_face_is_used_and_no_face_is_nan() -> None:
    small = np.random.default_rng(0).random((COUNT, 2)) * 20
    found: list[list[np.ndarray] | None] = [[small, small * 3 + 5, small * 2], None]
    points = Landmarks68.__new__(Landmarks68)
    network: Any = type("Network", (), {"get_landmarks_from_image": lambda *_: found.pop(0)})()
    points.network = network
    frame = np.zeros((100, 100, 3), np.uint8)
    np.testing.assert_array_equal(points(frame), small * 3 + 5)
    assert np.isnan(points(frame)).all()
    assert len(range(COUNT)[LIPS]) == 20
