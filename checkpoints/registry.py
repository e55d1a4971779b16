"""External weights: what each file is, where it comes from, and whether a copy is the published file.

The project contains none of them; weights.toml lists them. Files are looked up by name in checkpoints/, then in the
folder that the environment variable IP_LAP_WEIGHTS names. A missing file costs a column of a table, not the run; only
training with a VGG loss cannot do without its file.
"""

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
    """An entry of weights.toml, which explains the fields."""

    names: list[str]
    purpose: str
    size: str
    sha256: str
    licence: str
    source: str

    @property
    def name(self) -> str:
        """The published file name."""
        return self.names[0]


_TABLE = tomllib.loads((FOLDER / "weights.toml").read_text(encoding="utf-8"))
FILES = {key: WeightFile(**entry) for key, entry in _TABLE.items()}


def folders() -> list[Path]:
    """Returns the folders that are searched, in order."""
    other = os.environ.get(VARIABLE)
    return [FOLDER, Path(other)] if other else [FOLDER]


def find(key: str) -> Path | None:
    """Returns the file of an entry, or None. Does not check its content; see `verify`."""
    paths = [folder / name for folder in folders() for name in FILES[key].names]
    return next(filter(Path.is_file, paths), None)


def how_to_get(key: str) -> str:
    """Says which file is missing, where it was searched for, and how to get it."""
    places = " or ".join(map(str, folders()))
    return f"{FILES[key].name} ({FILES[key].size}) is not in {places}; python -m checkpoints --download {key}"


@contextmanager
def reading(path: Path, network: str) -> Iterator[None]:
    """Turns any error in loading the weights of `network` from `path` into a `UserError`."""
    try:
        yield
    except Exception as error:  # unpickling, protobuf, names, shapes: each library has its own errors
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UserError(
            f"{path}: not the weights of {network}, or damaged ({reason}); see python -m checkpoints"
        ) from error


def verify(key: str, path: Path) -> str:
    """Compares a file with the published hash. A result that starts with "DIFFERS" means a damaged file."""
    import pooch

    file = FILES[key]
    digest = pooch.file_hash(str(path))
    if not file.sha256:
        return f"hash not published: sha256 {digest}"
    if digest == file.sha256:
        return "ok"
    if path.name != file.name:
        return "not the published file (a copy under another name, used as it is)"
    return f"DIFFERS: sha256 {digest}, published {file.sha256}; remove it and download it again"


def download(key: str) -> None:
    """Downloads a file into checkpoints/. It gets its final name only after its hash has been checked.

    Raises:
        UserError: the hash differs, or the network failed. Nothing is left behind.
    """
    import pooch

    file = FILES[key]
    path = FOLDER / file.name
    try:
        pooch.retrieve(file.source, file.sha256 or None, file.name, FOLDER, progressbar=True)
    except (ValueError, OSError) as error:  # another hash; requests' errors are OSErrors
        reason = str(error).split("\n")[0]
        raise UserError(f"{file.source} could not be downloaded ({reason}); put it into {FOLDER} by hand") from error
    print(f"{path}: {verify(key, path)}")
