"""python -m checkpoints: lists the external weights that are here, verifies them, and downloads the others."""

import sys
from dataclasses import dataclass

from checkpoints import registry
from runtime.command_line import UserError, run


@dataclass(frozen=True)
class CheckpointsConfig:
    """Lists the external weights, and optionally verifies or downloads them."""

    verify: bool = False
    """Compare the files that are here with the published hashes."""
    download: tuple[str, ...] | None = None
    """Download missing files: names from the first column, or no name for all (1.9 GB)."""


def main(config: CheckpointsConfig) -> None:
    """Downloads the chosen files, then lists every file; exits with 2 if a download failed or a hash differs."""
    keys = list(registry.FILES) if config.download == () else config.download or ()
    failed = False
    for key in keys:
        if key not in registry.FILES:
            raise UserError(f"--download {key}: choose from {', '.join(registry.FILES)}, or give no name for all")
    for folder in registry.folders():
        print(f"searched: {folder}{'' if folder.is_dir() else ' (no such folder)'}")
    for key in keys:
        try:
            if not registry.find(key):
                registry.download(key)
        except UserError as error:  # the other files are still downloaded
            print(f"error: {error}", file=sys.stderr)
            failed = True
    for key, file in registry.FILES.items():
        path = registry.find(key)
        state = f"here: {path}" if path else f"missing, {file.source}"
        if path and config.verify:
            result = registry.verify(key, path)
            state += f" [{result}]"
            failed |= result.startswith("DIFFERS")
        print(f"{key:13} {file.name:38} {file.size:>7}  {file.purpose}; {file.licence}\n{'':13} {state}")
    if failed:
        sys.exit(2)


if __name__ == "__main__":
    run(main, CheckpointsConfig, prog="python -m checkpoints")
