"""What every command line of the project shares: typed flags, and one clear line for a user's mistake."""

import io
import os
import re
import signal
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

Config = TypeVar("Config")
PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


class UserError(Exception):
    """A mistake that the user can mend. The message is one line: it names the flag or file and says what to do."""


class SettingError(UserError):
    """A setting of a config has an impossible value. `setting` is its field, such as "model.num_frames"."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")


@contextmanager
def naming(flag: str) -> Iterator[None]:
    """Prefixes the `UserError`s of a library, which knows the wrong value, with the flag that it came from."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{flag}: {error}") from error


def fail(message: str) -> NoReturn:
    """Prints one line on stderr and exits with code 2."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)


def version() -> str:
    """The project's version, which is written in pyproject.toml alone."""
    return tomllib.loads(PROJECT.read_text())["project"]["version"]


def run(
    main: Callable[[Config], None], config: type[Config], prog: str | None = None, default: Any = tyro.MISSING_NONPROP
) -> None:
    """Parses the command line into `config` and calls `main` with it; with --version prints that instead.

    Where the command line says nothing, the values of `default` hold, an instance of `config`.

    Exit codes: 0 done, 2 a user's mistake (one line on stderr), 130 interrupted by Ctrl-C, 143 terminated, 129 left
    by its terminal; in each case what was half written is removed.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) != signal.SIG_IGN:  # nohup's
            signal.signal(number, lambda number, _: sys.exit(128 + number))  # as if main had ended by itself
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: the next file to be opened would take its place
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115
        elif isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # Windows' code pages lack arrows and most names
    if "--version" in sys.argv[1:]:
        print(f"IP-LAP {version()}")
        return
    try:
        main(parse(config, prog, default))
        sys.stdout.flush()
    except SettingError as error:
        setting, problem = str(error).split(": ", maxsplit=1)
        fail(f"--{setting.replace('_', '-')}: {problem}")
    except UserError as error:
        fail(str(error))
    except BrokenPipeError:  # nobody reads on, as with "| head"
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (what is left to be written at the end)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def parse(config: type[Config], prog: str | None = None, default: Any = tyro.MISSING_NONPROP) -> Config:
    """The command line as a `config`.

    Raises:
        UserError: it cannot be made of these flags, or its own checks refuse a value.
    """
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return tyro.cli(config, prog=prog, default=default)
    except SystemExit as end:
        if not end.code:  # --help
            raise
        # tyro draws a box, or rules where UTF-8 is missing: a title, what is wrong, what may be meant, and help texts,
        # which --help shows anyway.
        lines = [line[2:].rstrip("│╯ ") for line in re.sub(r"\x1b\[.*?m", "", box.getvalue()).splitlines()[1:]]
        parts = re.split(r"\s*[─-]{9,}\s*", "\n".join(line for line in lines if not line.startswith(" " * 8)))
        raise UserError("; ".join(x for x in parts if x and not x.startswith("Argument helptext"))) from None


def at_least(lowest: int, **numbers: int | None) -> None:
    """Checks numbers by the names of their flags; None is a flag not given. Raises UserError below `lowest`."""
    for name, number in numbers.items():
        if number is not None and number < lowest:
            raise UserError(f"--{name.replace('_', '-')} {number}: at least {lowest} is needed")


@contextmanager
def writing(what: str | Path) -> Iterator[None]:
    """Turns a full disk and the like into a UserError that names `what`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{what} could not be written ({reason}); free space or choose another place") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that nobody ever finds half of it.

    Raises:
        UserError: that can't be done; what was there stays.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        try:
            part.write_bytes(content if isinstance(content, bytes) else content.encode(errors="backslashreplace"))
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


def check_output(path: Path, flag: str, suffixes: tuple[str, ...] = (), inputs: Iterable[Path] = ()) -> None:
    """Checks, before any work is done, that the file `path` can be written.

    Raises:
        UserError: its folder does not exist or cannot be written, `path` is itself a folder or one of `inputs`, or its
            name does not end in one of `suffixes`.
    """
    folder = path.absolute().parent
    try:
        is_folder = path.is_dir()
    except OSError as error:  # a name that is too long, most likely
        raise UserError(f"{flag}: {path} cannot be a file's name ({error.strerror}); choose another") from None
    if is_folder:
        raise UserError(f"{flag}: {path} is a folder; give the name of a file to write")
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"{flag}: {path} must end in {' or '.join(suffixes)}")
    if not folder.is_dir():
        raise UserError(f"{flag}: the folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{flag}: the folder {folder} cannot be written; choose another or change its permissions")
    if path.exists() and any(given.exists() and path.samefile(given) for given in inputs):
        raise UserError(f"{flag} {path}: would overwrite an input; choose another name")
