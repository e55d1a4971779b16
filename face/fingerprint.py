"""Fingerprint of everything that a cache and the weights trained on it must agree on."""

from collections.abc import Mapping

from face import crop, landmarks
from media import audio
from runtime.command_line import UserError


def current(size: int = crop.SIZE) -> dict[str, str | int | float]:
    """The settings in force: mel, landmark table and crop rule, at a crop of `size` pixels."""
    return {**audio.settings(), **landmarks.settings(), **crop.settings(size)}


def check(found: Mapping[str, object], wanted: Mapping[str, object], where: str) -> None:
    """Compares the settings that `where` was made with against those wanted.

    Raises:
        UserError: they differ; the message names the first field that does, with both values.
    """
    for field in sorted(found.keys() | wanted.keys()):
        if found.get(field) != wanted.get(field):
            theirs, ours = (settings.get(field, "nothing") for settings in (found, wanted))
            problem = f"{where} was made with {field} = {theirs}, but {ours} is in force here"
            raise UserError(f"{problem}; make it again, or choose the one that fits")
