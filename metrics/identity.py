"""Does the person stay the same: CSIM, the cosine of face embeddings of the output and of the original (ArcFace)."""

from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.transform import estimate_transform
from torch import Tensor, nn

from checkpoints import registry
from face.landmarks import FULL, MOUTH_CORNERS

SIDE = 112
# Where ArcFace's training put eyes, nose tip and mouth corners (each pair from left to right as seen), in pixels.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
EYES = [slice(FULL.index(corner), FULL.index(corner) + 16) for corner in (33, 362)]  # rings of mesh points: right, left
NOSE_TIP = FULL.index(4)
BLOCKS = (3, 13, 30, 3)  # ArcFace r100
WIDTHS = (64, 128, 256, 512)
FEATURES = 512


class _Block(nn.Module):
    """Improved residual block: BN, conv, BN, PReLU, conv (stride), BN, plus the input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2, self.prelu = nn.BatchNorm2d(outputs), nn.PReLU(outputs)
        self.conv2, self.bn3 = nn.Conv2d(outputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.downsample = shortcut if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (self.downsample(x) if self.downsample else x)


def iresnet(blocks: tuple[int, ...] = BLOCKS) -> nn.Sequential:
    """InsightFace's improved ResNet, with the key names of its published files (`backbone.pth`).

    It takes (n, 3, 112, 112) in [-1, 1] and gives (n, 512), not normalised.
    """
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(3, WIDTHS[0], 3, padding=1, bias=False),
        "bn1": nn.BatchNorm2d(WIDTHS[0]),
        "prelu": nn.PReLU(WIDTHS[0]),
    }
    for i, (inputs, width, count) in enumerate(zip((WIDTHS[0], *WIDTHS[:-1]), WIDTHS, blocks, strict=True)):
        rest = (_Block(width, width, 1) for _ in range(count - 1))
        layers[f"layer{i + 1}"] = nn.Sequential(_Block(inputs, width, 2), *rest)
    layers |= {
        "bn2": nn.BatchNorm2d(WIDTHS[-1]),
        "flat": nn.Flatten(),
        "fc": nn.Linear(WIDTHS[-1] * (SIDE // 16) ** 2, FEATURES),
        "features": nn.BatchNorm1d(FEATURES),
    }
    return nn.Sequential(OrderedDict(layers))


class FaceEmbedder:
    """ArcFace r100 from InsightFace's backbone.pth, or the same network as ONNX."""

    def __init__(self, path: Path, device: str = "cpu", blocks: tuple[int, ...] = BLOCKS) -> None:
        """Raises UserError if the file holds another network."""
        self.device = device
        with registry.reading(path, "ArcFace r100"):
            if path.suffix == ".onnx":
                import onnxruntime

                session = onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers())
                name = session.get_inputs()[0].name
                self.network = lambda faces: torch.from_numpy(session.run(None, {name: faces.cpu().numpy()})[0])
            else:
                self.network = iresnet(blocks).to(device).requires_grad_(False).eval()
                self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    @torch.inference_mode()
    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """`faces` (n, 112, 112, 3) RGB uint8 -> unit vectors (n, 512)."""
        pictures = (torch.from_numpy(faces).to(self.device).float() - 127.5) / 127.5
        return nn.functional.normalize(self.network(pictures.permute(0, 3, 1, 2).contiguous())).cpu().numpy()


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eyes' centres, nose tip and mouth corners (5, 2) of the 131 points of a face (131, 2)."""
    return np.stack([*(landmarks[eye].mean(0) for eye in EYES), landmarks[NOSE_TIP], *landmarks[list(MOUTH_CORNERS)]])


def align(frame: np.ndarray, landmarks_in_frame: np.ndarray) -> np.ndarray:
    """The face (112, 112, 3) as ArcFace saw faces in training: 5 points moved to the template by a similarity."""
    similarity = estimate_transform("similarity", five_points(landmarks_in_frame), TEMPLATE)
    return cv2.warpAffine(frame, similarity.params[:2], (SIDE, SIDE))


def resize(crop: np.ndarray) -> np.ndarray:
    """The face crop, only resized (112, 112, 3)."""
    return cv2.resize(crop, (SIDE, SIDE))


def csim(output: np.ndarray, target: np.ndarray, pairs: str = "frame") -> float:
    """Mean cosine of unit vectors (n, 512) and (m, 512).

    pairs "frame": frame i with frame i (n = m, default of the tables). Else every output frame with every original
    one, which is the product of the mean vectors: of a clip or of a whole set, whichever is given. The latter is what
    the helper that the paper points to computes, by mistake.
    """
    if pairs == "frame":
        return float((output * target).sum(1).mean())
    return float(output.mean(0) @ target.mean(0))
