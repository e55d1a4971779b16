"""Identity preservation (CSIM): the cosine similarity of the ArcFace embeddings of output and original."""

from pathlib import Path

import cv2
import numpy as np
from numpy import ndarray
from skimage.transform import estimate_transform

from checkpoints import registry
from face.landmarks import EYES, MOUTH_CORNERS, NOSE_TIP

SIDE = 112  # pixels of ArcFace's input
# Positions of eyes, nose tip and mouth corners (left to right in the image) in ArcFace's training crops, in pixels.
TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


class FaceEmbedder:
    """InsightFace's ArcFace r100 from an ONNX file."""

    def __init__(self, path: Path):
        """Raises UserError if the file is not this network."""
        import onnxruntime

        with registry.reading(path, "ArcFace r100"):
            providers = onnxruntime.get_available_providers()
            self.session = onnxruntime.InferenceSession(path, providers=providers)
            self.input_name = self.session.get_inputs()[0].name

    def __call__(self, faces: ndarray) -> ndarray:
        """Embeds faces (n, 112, 112, 3), RGB uint8, as unit vectors (n, 512). The dot product of two is their CSIM."""
        images = cv2.dnn.blobFromImages(list(faces), 1 / 127.5, mean=(127.5, 127.5, 127.5))  # (n, 3, 112, 112)
        embeddings = np.asarray(self.session.run(None, {self.input_name: images})[0])
        return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def five_points(landmarks: ndarray) -> ndarray:
    """The centres of the eyes, the nose tip and the mouth corners, (5, 2), from landmarks (131, 2)."""
    eyes = [landmarks[eye].mean(axis=0) for eye in EYES]
    return np.stack([*eyes, landmarks[NOSE_TIP], *landmarks[MOUTH_CORNERS]])


def align(frame: ndarray, landmarks_in_frame: ndarray) -> ndarray:
    """Aligns a face as in ArcFace's training: a similarity transform maps its five points to the template.

    Args:
        frame: (H, W, 3) uint8 RGB.
        landmarks_in_frame: (131, 2) in pixels.

    Returns:
        (112, 112, 3) uint8 RGB.
    """
    similarity = estimate_transform("similarity", five_points(landmarks_in_frame), TEMPLATE)
    return cv2.warpAffine(frame, similarity.params[:2], (SIDE, SIDE))
