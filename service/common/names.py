"""Names that users give to what sweep documents speak of: datasets and checkpoints."""

from __future__ import annotations

import re

from service.errors import UnprocessableError

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_name(name: str, what: str) -> None:
    """Raise UnprocessableError unless `name` is lower-case letters, digits, '.', '_' and '-', at most 64 of them.

    `what` it is to name, for the message.
    """
    if not NAME_PATTERN.fullmatch(name):
        raise UnprocessableError(
            f"{name!r} cannot name a {what}: use 1 to 64 of a-z, 0-9, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
