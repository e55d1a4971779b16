"""Shared by all command lines: typed flags, errors of one line, and checks of input and output files."""

import io
import os
import signal
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import tyro

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


class UserError(Exception):
    """A mistake that the user can correct. The message is one line that names the value or file and says what to do."""


class SettingError(UserError):
    """A setting of a config has an invalid value. Arguments: its field, such as "model.num_frames", and the problem."""

    def __str__(self) -> str:
        return ": ".join(self.args)


@contextmanager
def naming(flag: str) -> Iterator[None]:
    """Prefixes `UserError`s raised in its block with the flag that the wrong value came from."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{flag}: {error}") from error


def fail(message: str) -> NoReturn:
    """Prints one line on stderr and exits with code 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def version() -> str:
    """Returns the project's version, as set in pyproject.toml."""
    return tomllib.loads(PROJECT.read_text())["project"]["version"]


def run(
    main: Callable[[Any], None], config: type, prog: str | None = None, default: Any = tyro.MISSING_NONPROP
) -> None:
    """Parses the command line into `config` and calls `main` with it; with --version, prints the version instead.

    Settings that the command line leaves out are taken from `default`, an instance of `config`.

    Exit codes: 0 done, 1 nobody reads the output any more, 2 a user's mistake (explained on stderr), 130 interrupted by
    Ctrl-C, 143 terminated, 129 the terminal was closed. In each case half-written files are removed.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # Windows' code pages lack arrows and many letters
    if "--version" in sys.argv[1:]:
        print(f"IP-LAP {version()}")
        return
    try:
        main(tyro.cli(config, prog=prog, default=default))
        sys.stdout.flush()
    except SettingError as error:
        setting, problem = error.args
        fail(f"--{setting.replace('_', '-')}: {problem}")
    except UserError as error:
        fail(str(error))
    except BrokenPipeError:  # the reader has closed the pipe, as "| head" does
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (Python flushes it at exit)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def at_least_one(**numbers: float | None) -> None:
    """Raises a SettingError if one of these settings is below 1; None is allowed."""
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise SettingError(name, f"at least 1 is needed, not {number}")


@contextmanager
def writing(what: str | Path) -> Iterator[None]:
    """Turns an OSError, such as a full disk, into a UserError that names `what`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{what} could not be written ({reason}); free space or choose another place") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file atomically.

    Raises:
        UserError: the file cannot be written. An earlier file of this name is kept.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        try:
            with open(part, "wb") as file:
                file.write(content if isinstance(content, bytes) else content.encode(errors="backslashreplace"))
                file.flush()
                os.fsync(file.fileno())  # to survive a power cut
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def check_input(path: Path) -> None:
    """Raises a UserError unless `path` is a readable file that is not empty."""
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # also for a loop of links or a name that is too long
        raise UserError(f"{path} cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    if not path.is_file():
        raise UserError(f"{path} is a {'folder' if path.is_dir() else 'pipe or a device'}; give a file")
    if size == 0:
        raise UserError(f"{path} is empty (0 bytes)")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path} cannot be read: permission denied")


def check_output(path: Path, flag: str = "", suffixes: tuple[str, ...] = (), inputs: Iterable[Path] = ()) -> None:
    """Checks before any work is done that the file `path` can be written. Messages begin with `flag`, if given.

    Raises:
        UserError: the folder does not exist or cannot be written, `path` is itself a folder or one of `inputs`, or its
            name does not end in one of `suffixes`.
    """
    prefix = f"{flag}: " if flag else ""
    folder = path.absolute().parent
    with writing(f"{prefix}{path}"):
        if path.is_dir():
            raise UserError(f"{prefix}{path} is a folder; give the name of a file to write")
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"{prefix}{path} must end in {' or '.join(suffixes)}")
    if not folder.is_dir():
        raise UserError(f"{prefix}the folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{prefix}the folder {folder} cannot be written; choose another or change its permissions")
    if path.exists() and any(given.exists() and path.samefile(given) for given in inputs):
        raise UserError(f"{prefix}{path} would overwrite an input; choose another name")
