"""python -m checkpoints: which external weights are here, whether they are whole, and how to get the others."""

import sys
from dataclasses import dataclass

from checkpoints import registry
from runtime import command_line
from runtime.command_line import UserError


@dataclass(frozen=True)
class Config:
    """Lists the external weights; with flags also verifies or downloads them."""

    verify: bool = False
    """Compare the files that are here with the published hashes."""
    download: tuple[str, ...] | None = None
    """Fetch what is missing: names of the list's first column, or none for everything with a direct link (1.9 GB)."""


def main(config: Config) -> None:
    wanted = config.download or ()
    if config.download == ():
        wanted = [key for key, file in registry.FILES.items() if file.download]
    if unknown := [key for key in wanted if key not in registry.FILES]:
        raise UserError(f"--download {unknown[0]}: choose from {', '.join(registry.FILES)}, or give no name for all")
    print("looked for in", *(f"{f}{'' if f.is_dir() else ' (no such folder)'}" for f in registry.folders()))
    status = 0
    for key in wanted:
        try:
            _ = registry.find(key) or registry.download(key)
        except UserError as error:  # the others are fetched all the same
            print(f"error: {error}", file=sys.stderr)
            status = 2
    for key, file in registry.FILES.items():
        path = registry.find(key)
        state = f"here: {path}" if path else f"missing, {file.source}"
        if path and config.verify:
            verdict = registry.verify(key, path)
            status = status or int(verdict.startswith("DIFFERS"))
            state += f" [{verdict}]"
        print(f"{key:13} {file.name:38} {file.size:>7}  {file.purpose}; {file.licence}\n{'':13} {state}")
    if status:
        sys.exit(status)


if __name__ == "__main__":
    command_line.run(main, Config, prog="python -m checkpoints")
