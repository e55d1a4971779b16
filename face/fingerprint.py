"""Fingerprint of all settings that a cache and the weights trained on it must share."""

from collections.abc import Mapping

from face import crop, landmarks
from media import audio
from runtime.command_line import UserError


def current(size: int = crop.SIZE) -> dict[str, str | int | float]:
    """The settings of this code: mel spectrogram, landmark table and crop rule, for crops of `size` pixels."""
    return audio.settings() | landmarks.settings() | crop.settings(size)


def check(actual: Mapping[str, object], expected: Mapping[str, object], where: str) -> None:
    """Checks that `where` (a file or folder) was made with the expected settings.

    Raises:
        UserError: they differ; the message names the first field that differs and both values.
    """
    for field in sorted(actual.keys() | expected.keys()):
        theirs = actual.get(field, "nothing")
        ours = expected.get(field, "nothing")
        if theirs != ours:
            raise UserError(
                f"{where} was made with {field} = {theirs}, but {ours} is needed here; make it again or choose another"
            )
