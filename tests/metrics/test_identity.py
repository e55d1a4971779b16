"""CSIM: ArcFace's network from an ONNX file, alignment, and the mean cosine."""

import struct
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from face.landmarks import EYES, FULL, NOSE_TIP
from face.tracking import track_faces
from media.video import Video
from metrics.identity import TEMPLATE, FaceEmbedder, align, five_points
from runtime.command_line import UserError


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def varint(value: int) -> bytes:
    """An integer in protobuf's encoding: seven bits a byte, the lowest first."""
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def field(number: int, value: bytes | int | float | str) -> bytes:
    """A field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def onnx_tensor(name: str, values: torch.Tensor) -> bytes:
    dims = b"".join(field(1, side) for side in values.shape)
    return dims + field(2, 1) + field(8, name) + field(9, values.detach().numpy().astype("<f4").tobytes())


def onnx_node(kind: str, inputs: list[str], output: str, attributes: bytes = b"") -> bytes:
    return b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, kind) + attributes


def onnx_value(name: str, *sizes: int | str) -> bytes:
    dims = b"".join(field(1, field(2, size) if isinstance(size, str) else field(1, size)) for size in sizes)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def as_onnx(convolution: nn.Conv2d, linear: nn.Linear) -> bytes:
    """Convolution, flattening and linear layer as an ONNX file (the onnx package is not needed)."""
    strides = field(5, field(1, "strides") + b"".join(field(8, side) for side in convolution.stride) + field(20, 7))
    transposed = field(5, field(1, "transB") + field(3, 1) + field(20, 2))
    nodes = [
        onnx_node("Conv", ["input", "kernel"], "maps", strides),
        onnx_node("Flatten", ["maps"], "flat"),
        onnx_node("Gemm", ["flat", "weight", "bias"], "output", transposed),
    ]
    assert linear.bias is not None
    tensors = [
        onnx_tensor("kernel", convolution.weight),
        onnx_tensor("weight", linear.weight),
        onnx_tensor("bias", linear.bias),
    ]
    graph = b"".join(field(1, node) for node in nodes) + field(2, "graph") + b"".join(field(5, t) for t in tensors)
    graph += field(11, onnx_value("input", "n", 3, 112, 112)) + field(12, onnx_value("output", "n", 512))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def test_onnx_file_gives_the_networks_unit_vectors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 4, 16, 16, bias=False)
    linear = nn.Linear(4 * 7 * 7, 512)
    (tmp_path / "arcface.onnx").write_bytes(as_onnx(convolution, linear))
    faces = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    embeddings = FaceEmbedder(tmp_path / "arcface.onnx")(faces)
    assert embeddings.shape == (3, 512)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    images = torch.from_numpy((faces.astype(np.float32) - 127.5) / 127.5).permute(0, 3, 1, 2)
    with torch.no_grad():
        expected = linear(convolution(images).flatten(1)).numpy()
    np.testing.assert_allclose(embeddings, unit(expected), atol=1e-5)


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "wrong.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match=r"wrong\.onnx: not the weights of ArcFace r100"):
        FaceEmbedder(tmp_path / "wrong.onnx")


def test_align_moves_the_five_points_to_the_template() -> None:
    landmarks = np.zeros((131, 2))
    angle = 0.4
    turn = 3 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = TEMPLATE @ turn.T + np.array([150, 40])
    for eye, point in zip(EYES, points[:2], strict=True):
        landmarks[eye] = point
    landmarks[NOSE_TIP], landmarks[FULL.index(61)], landmarks[FULL.index(291)] = points[2:]
    np.testing.assert_allclose(five_points(landmarks), points, atol=1e-6)
    frame = np.zeros((600, 600, 3), np.uint8)
    for x, y in points:
        cv2.circle(frame, (round(x), round(y)), 6, (255, 255, 255), -1)
    aligned = align(frame, landmarks)
    for x, y in TEMPLATE:
        assert aligned[round(y), round(x)].min() > 200


def test_eyes_are_the_eyes_of_the_mesh() -> None:
    right, left = ({FULL[i] for i in eye} for eye in EYES)
    assert {33, 133, 159, 145} <= right
    assert {263, 362, 386, 374} <= left
    assert FULL[NOSE_TIP] == 4


class MobileFaceNet(nn.Module):
    """A small face embedding (Chen et al. 2018) in place of ArcFace; takes 112 x 96 pixels."""

    def __init__(self) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int = 1, padding: int = 0,
                  groups: int = 1, activate: bool = True) -> nn.Sequential:  # fmt: skip
            layers = {
                "conv": nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False),
                "bn": nn.BatchNorm2d(outputs),
            }
            return nn.Sequential(OrderedDict(layers | ({"prelu": nn.PReLU(outputs)} if activate else {})))

        def bottleneck(inputs: int, wide: int, outputs: int, stride: int) -> nn.ModuleDict:
            parts = [
                block(inputs, wide, 1),
                block(wide, wide, 3, stride, 1, wide),
                block(wide, outputs, 1, activate=False),
            ]
            return nn.ModuleDict({"conv": nn.Sequential(*(layer for part in parts for layer in part))})

        self.conv1, self.dw_conv1 = block(3, 64, 3, 2, 1), block(64, 64, 3, 1, 1, 64)
        sizes = [(64, 128, 64, 2), *[(64, 128, 64, 1)] * 4, (64, 256, 128, 2), *[(128, 256, 128, 1)] * 6]
        sizes += [(128, 512, 128, 2), *[(128, 256, 128, 1)] * 2]
        self.steps = [stride for *_, stride in sizes]
        self.blocks = nn.ModuleList(bottleneck(*size) for size in sizes)
        self.conv2 = block(128, 512, 1)
        self.linear7, self.linear1 = (
            block(512, 512, (7, 6), groups=512, activate=False),
            block(512, 128, 1, activate=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dw_conv1(self.conv1(x))
        for stride, part in zip(self.steps, self.blocks, strict=True):
            moved = part["conv"](x)  # pyright: ignore[reportIndexIssue]
            x = moved if stride == 2 else x + moved
        return self.linear1(self.linear7(self.conv2(x))).flatten(1)


@pytest.mark.slow
def test_a_real_network_tells_aligned_faces_apart(shared: Path) -> None:
    """Two frames of a clip show one person, two clips show two: the alignment is what embeddings expect."""
    network = MobileFaceNet().eval()
    weights = torch.load(shared / "weights" / "mobilefacenet_xiaoccer_068.ckpt", map_location="cpu", weights_only=True)
    network.load_state_dict(weights["net_state_dict"])
    vectors = []
    for name in ("vox_00015", "vox_00086"):
        frames = list(Video(shared / "clips" / f"{name}.mp4").frames([0, 40]))
        track = track_faces(frames)
        faces = np.stack([align(f, marks) for f, marks in zip(frames, track.landmarks_in_frame, strict=True)])
        pictures = torch.from_numpy((faces[:, :, 8:104].astype(np.float32) - 127.5) / 128).permute(0, 3, 1, 2)
        with torch.no_grad():
            vectors.append(unit(network(pictures).numpy()))
    assert min(first @ second for first, second in vectors) > 0.6
    first, second = vectors
    assert (first @ second.T).mean() < 0.3
