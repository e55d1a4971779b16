"""CSIM: ArcFace's network from either kind of file, alignment, and the three ways to pair frames."""

import functools
import itertools
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from face.landmarks import FULL
from face.tracking import track_faces
from media.video import Video
from metrics.identity import EYES, NOSE_TIP, TEMPLATE, FaceEmbedder, align, csim, five_points, iresnet, resize
from runtime.command_line import UserError

TINY = (1, 1, 1, 1)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_network_has_the_published_keys_and_size() -> None:
    with torch.device("meta"):
        state = iresnet().state_dict()
    assert sum(v.numel() for k, v in state.items() if "running" not in k and "tracked" not in k) == 65_156_160  # r100
    assert tuple(state["layer3.29.conv2.weight"].shape) == (256, 256, 3, 3)
    assert tuple(state["layer4.0.downsample.0.weight"].shape) == (512, 256, 1, 1)
    assert tuple(state["fc.weight"].shape) == (512, 25088)
    assert {
        "bn1.weight",
        "prelu.weight",
        "bn2.running_mean",
        "features.running_var",
        "layer1.0.prelu.weight",
    } <= state.keys()


def test_a_file_in_half_precision_gives_the_networks_vectors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = iresnet(TINY).eval()
    half = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}  # published in fp16
    torch.save(half, tmp_path / "backbone.pth")
    embed = FaceEmbedder(tmp_path / "backbone.pth", blocks=TINY)
    faces = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    ours = embed(faces)
    assert ours.shape == (3, 512)
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, rtol=1e-5)
    network.load_state_dict(half)
    with torch.no_grad():
        expected = network(torch.from_numpy((faces.astype(np.float32) - 127.5) / 127.5).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(ours, unit(expected), atol=1e-5)
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "wrong.pth")
    with pytest.raises(UserError, match=r"wrong\.pth"):
        FaceEmbedder(tmp_path / "wrong.pth")


def test_the_same_network_as_onnx_gives_the_same_vectors_in_onnxruntime(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = iresnet(TINY).eval()
    for name, buffer in network.named_buffers():  # as if it had been trained
        if name.endswith(("running_mean", "running_var")):
            buffer.add_(0.3 * torch.rand_like(buffer))
    torch.save(network.state_dict(), tmp_path / "backbone.pth")
    (tmp_path / "backbone.onnx").write_bytes(as_onnx(network))
    faces = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    ours, theirs = FaceEmbedder(tmp_path / "backbone.pth", blocks=TINY)(faces), FaceEmbedder(tmp_path / "backbone.onnx")
    np.testing.assert_allclose(ours, theirs(faces), atol=1e-5)
    assert csim(ours, theirs(faces)) == pytest.approx(1, abs=1e-5)


def as_onnx(network: nn.Sequential) -> bytes:
    """The network as a protobuf message, field by field (the onnx package is not needed)."""
    nodes, weights = b"", b""
    names = (f"value{i}" for i in itertools.count())

    def field(number: int, value: bytes | int | float | str) -> bytes:
        if isinstance(value, int):
            return varint(number << 3) + varint(value)
        if isinstance(value, float):
            return varint(number << 3 | 5) + struct.pack("<f", value)
        content = value.encode() if isinstance(value, str) else value
        return varint(number << 3 | 2) + varint(len(content)) + content

    def varint(value: int) -> bytes:
        parts = []
        while True:
            parts.append(value & 127 | (128 if value > 127 else 0))
            value >>= 7
            if not value:
                return bytes(parts)

    def attribute(name: str, value: float | int | tuple[int, ...]) -> bytes:
        if isinstance(value, tuple):
            return field(1, name) + b"".join(field(8, v) for v in value) + field(20, 7)
        number, kind = (3, 2) if isinstance(value, int) else (2, 1)
        return field(1, name) + field(number, value) + field(20, kind)

    def weight(values: torch.Tensor) -> str:
        nonlocal weights
        name, dims = next(names), b"".join(field(1, side) for side in values.shape)
        raw = values.detach().numpy().astype("<f4").tobytes()
        weights += field(5, dims + field(2, 1) + field(8, name) + field(9, raw))
        return name

    def node(kind: str, *inputs: str, **attributes: float | int | tuple[int, ...]) -> str:
        nonlocal nodes
        output, given = next(names), b"".join(field(1, name) for name in inputs)
        settings = b"".join(field(5, attribute(*pair)) for pair in attributes.items())
        nodes += field(1, given + field(2, output) + field(4, kind) + settings)
        return output

    def add(layer: Any, x: str) -> str:
        """Name of a layer's output."""
        if isinstance(layer, nn.Sequential):
            return functools.reduce(lambda y, part: add(part, y), layer, x)
        if hasattr(layer, "conv2"):
            path = nn.Sequential(layer.bn1, layer.conv1, layer.bn2, layer.prelu, layer.conv2, layer.bn3)
            return node("Add", add(path, x), add(layer.downsample, x) if layer.downsample else x)

        def norm() -> Any:
            values = [layer.weight, layer.bias, layer.running_mean, layer.running_var]
            return "BatchNormalization", (values, {"epsilon": layer.eps})

        kinds: dict[type, Callable[[], Any]] = {
            nn.Conv2d: lambda: ("Conv", ([layer.weight], {"strides": layer.stride, "pads": layer.padding * 2})),
            nn.BatchNorm1d: norm,
            nn.BatchNorm2d: norm,
            nn.PReLU: lambda: ("PRelu", ([layer.weight[:, None, None]], {})),
            nn.Flatten: lambda: ("Flatten", ([], {})),
            nn.Linear: lambda: ("Gemm", ([layer.weight, layer.bias], {"transB": 1})),
        }
        kind, (values, attributes) = kinds[type(layer)]()
        return node(kind, x, *map(weight, values), **attributes)

    def described(name: str, *sizes: int | str) -> bytes:
        dims = b"".join(field(1, field(2, s) if isinstance(s, str) else field(1, s)) for s in sizes)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))

    output = add(network, "input")
    graph = nodes + field(2, "graph") + weights
    graph += field(11, described("input", "n", 3, 112, 112)) + field(12, described(output, "n", 512))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def test_align_brings_the_five_points_onto_the_template() -> None:
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
    assert resize(frame).shape == (112, 112, 3)


def test_eyes_are_the_meshs_eyes() -> None:
    right, left = ({FULL[i] for i in range(eye.start, eye.stop)} for eye in EYES)
    assert {33, 133, 159, 145} <= right
    assert {263, 362, 386, 374} <= left
    assert FULL[NOSE_TIP] == 4


def test_csim_pairs() -> None:
    random = np.random.default_rng(4)
    output, target = unit(random.standard_normal((5, 16))), unit(random.standard_normal((5, 16)))
    assert csim(output, output) == pytest.approx(1)
    assert csim(output, target) == pytest.approx(np.mean([o @ t for o, t in zip(output, target, strict=True)]))
    every = np.mean([o @ t for o in output for t in target])
    assert csim(output, target, "all") == pytest.approx(every)
    assert csim(output, target[:3], "all") == pytest.approx(np.mean([o @ t for o in output for t in target[:3]]))


class MobileFaceNet(nn.Module):
    """A small face embedding (Chen et al. 2018) that stands in for ArcFace in tests; takes 112 x 96 pixels."""

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
def test_a_real_network_knows_aligned_faces_apart(shared: Path) -> None:
    """Two moments of a clip show one person, two clips show two: faces are aligned as embeddings expect them."""
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
    assert min(csim(v[:1], v[1:]) for v in vectors) > 0.6
    assert csim(*vectors, pairs="all") < 0.3
