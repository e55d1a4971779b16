"""External weights: what each file is, where it comes from, whether the one on disk is the published one.

None of them belongs to the project. They are looked for by name in checkpoints/ and then in the folder named by the
environment variable IP_LAP_WEIGHTS. A missing file costs the column of a table, never the run.
"""

import hashlib
import http.client
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from command_line import UserError

FOLDER = Path(__file__).resolve().parent
VARIABLE = "IP_LAP_WEIGHTS"


@dataclass(frozen=True)
class WeightFile:
    """A published file. `sha256` is whole, or its first digits if only the name carries them, or empty: not public."""

    names: tuple[str, ...]  # the first is the published one; the others hold the same weights
    purpose: str
    size: str  # about, as published
    sha256: str
    licence: str
    source: str  # address of the file, or (without download) of the page that offers it
    download: bool = True

    @property
    def name(self) -> str:
        return self.names[0]


FILES: dict[str, WeightFile] = {
    "vgg19": WeightFile(
        ("vgg19-dcbb9e9d.pth", "vgg19_features.pth"), "training: perceptual and style loss", "548 MB", "dcbb9e9d",
        "CC BY 4.0 (VGG), BSD-3 (torchvision)", "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
    ),
    "lpips_alex": WeightFile(
        ("alexnet-owt-7be5be79.pth", "alexnet_features_torchvision.pth"), "LPIPS (alex)", "233 MB", "7be5be79",
        "BSD-3 (torchvision)", "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    ),
    "lpips_vgg": WeightFile(
        ("vgg16-397923af.pth",), "LPIPS (vgg)", "528 MB", "397923af",
        "CC BY 4.0 (VGG), BSD-3 (torchvision)", "https://download.pytorch.org/models/vgg16-397923af.pth",
    ),
    "inception": WeightFile(
        ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth"), "FID", "91 MB",
        "6726825d", "Apache-2.0",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    ),
    "arcface": WeightFile(
        ("ms1mv3_arcface_r100_fp16.pth", "backbone.pth"), "CSIM", "249 MB", "", "non-commercial research (InsightFace)",
        "https://github.com/deepinsight/insightface/tree/master/recognition/arcface_torch", download=False,
    ),
    "arcface_onnx": WeightFile(
        ("ms1mv3_arcface_r100.onnx",), "CSIM, the same network as ONNX", "249 MB", "",
        "non-commercial research (InsightFace)",
        "https://bj.bcebos.com/paddlehub/fastdeploy/ms1mv3_arcface_r100.onnx",
    ),
    "syncnet": WeightFile(
        ("syncnet_v2.model",), "LSE-C (SyncScore), LSE-D, offset", "52 MB",
        "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442", "MIT (code); University of Oxford",
        "https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model",
    ),
    "fan": WeightFile(
        ("2DFAN4-11f355bf06.pth.tar",), "LipLMD with 68 points", "91 MB", "11f355bf06", "BSD-3",
        "https://www.adrianbulat.com/downloads/python-fan/2DFAN4-11f355bf06.pth.tar",
    ),
    "s3fd": WeightFile(
        ("s3fd-619a316812.pth",), "LipLMD with 68 points: face detector", "86 MB", "619a316812", "BSD-3",
        "https://www.adrianbulat.com/downloads/python-fan/s3fd-619a316812.pth",
    ),
}  # fmt: skip


def folders() -> list[Path]:
    """Where files are looked for, in this order."""
    other = os.environ.get(VARIABLE)
    return [FOLDER, *([Path(other)] if other else [])]


def find(*keys: str) -> Path | None:
    """The first file of the registry that is there, or None. Its content is not checked: that is `verify`."""
    candidates = (folder / name for key in keys for folder in folders() for name in FILES[key].names)
    return next((path for path in candidates if path.is_file()), None)


def missing(column: str, *keys: str) -> str:
    """The line that tells a user which file a column needs (any of `keys` will do) and how to get it."""
    key = next((key for key in keys if FILES[key].download), keys[0])
    file, places = FILES[key], " or ".join(map(str, folders()))
    how = f"python -m checkpoints --download {key}" if file.download else f"see {file.source}"
    return f"{column} left out: {file.name} ({file.size}) is not in {places}; {how}"


@contextmanager
def reading(path: Path, network: str) -> Iterator[None]:
    """Around the loading of a file: whatever another network's, or half a file, makes it raise is one UserError."""
    try:
        yield
    except Exception as error:  # unpickling, protobuf, names and shapes: every library has errors of its own
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        message = f"{path}: not the weights of {network}, or damaged ({why}); see python -m checkpoints"
        raise UserError(message) from error


def verify(key: str, path: Path) -> str:
    """Compares a file with the published one and says the result; only "DIFFERS..." is bad."""
    file = FILES[key]
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if not file.sha256:
        return f"hash not public: sha256 {found}"
    if found.startswith(file.sha256):
        return "ok"
    if path.name != file.name:
        return "not the published file (a copy under another name, taken as it is)"
    return f"DIFFERS: sha256 {found[:16]}..., published {file.sha256[:16]}...; remove it and download again"


def download(key: str) -> Path:
    """Fetches a file into checkpoints/ and checks it before it gets its name.

    Raises UserError, and leaves nothing behind, where there is no direct link, no network or other content.
    """
    file, target = FILES[key], FOLDER / FILES[key].name
    if not file.download:
        raise UserError(f"{file.name} has no direct link: get it from {file.source} and save it as {target}")
    from torch import hub  # slow to import, and only needed here

    try:  # under a name of its own until it is whole
        hub.download_url_to_file(file.source, str(target), file.sha256 or None)
    except RuntimeError as error:
        raise UserError(f"{file.source} gave another file than the published one; try again later") from error
    except (OSError, http.client.HTTPException) as error:  # no network, or it broke off
        message = f"{file.name} could not be fetched ({error}); get {file.source} by hand into {FOLDER}"
        raise UserError(message) from error
    print(f"{target}: {verify(key, target)}")
    return target
