"""`python -m layersweep` and the command `layersweep`."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # What the terminal's encoding lacks is written as an escape.
            stream.reconfigure(errors="backslashreplace")
    try:
        from layersweep.cli import app

        app()
    except KeyboardInterrupt:
        # While the modules were still being loaded.
        sys.exit(130)


if __name__ == "__main__":
    main()
