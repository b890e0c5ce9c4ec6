"""The command `tfx`, which `python -m tfx` is, too."""

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command; Ctrl-C ends it in good order from the first import on."""
    try:
        from tfx.cli.main import main as command

        command()
    except KeyboardInterrupt:
        print("tfx: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
