"""`--xfails FILE`: what a backend is known not to do yet."""

from __future__ import annotations

from pathlib import Path

from tfx.core.errors import DataError
from tfx.core.files import reason, shown
from tfx.testing.kit import checks


def read_known_gaps(path: Path) -> dict[str, str]:
    """The checks that a file names, one a line, each with the comment after its `#`.

    Raises:
        DataError: the file cannot be read, or a line names no check.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read known gaps from {shown(path)}: {reason(error)}") from None
    parted = (line.partition("#") for line in lines)
    known = {name.strip(): why.strip() for name, _, why in parted if name.strip()}
    strangers = known.keys() - {str(check) for check in checks()}
    if strangers:
        raise DataError(
            f"{shown(path)} names {min(strangers)!r}, which is no check; "
            "`tfx conformance --list` shows them all"
        )
    return known
