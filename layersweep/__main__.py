"""`python -m layersweep` and the command `layersweep`."""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from layersweep.cli import app

    app()


if __name__ == "__main__":
    main()
