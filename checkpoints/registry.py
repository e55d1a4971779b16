"""External weights: what each file is, where it comes from, whether the one on disk is the published one.

None of them belongs to the project; weights.toml lists them. They are looked for by name in checkpoints/ and then in
the folder named by the environment variable IP_LAP_WEIGHTS. A missing file costs the column of a table, never the run.
"""

import hashlib
import http.client
import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.command_line import UserError

FOLDER = Path(__file__).resolve().parent
VARIABLE = "IP_LAP_WEIGHTS"


@dataclass(frozen=True)
class WeightFile:
    """A published file. `sha256` is whole, or its first digits if only the name carries them, or empty: not public."""

    names: list[str]  # the first is the published one; the others hold the same weights
    purpose: str
    size: str  # about, as published
    sha256: str
    licence: str
    source: str  # address of the file, or (without download) of the page that offers it
    download: bool = True

    @property
    def name(self) -> str:
        return self.names[0]


_TABLE = tomllib.loads((FOLDER / "weights.toml").read_text(encoding="utf-8"))
FILES = {key: WeightFile(**entry) for key, entry in _TABLE.items()}


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
def reading(path: Path | str, network: str) -> Iterator[None]:
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
