"""`python -m tfx` is the command `tfx`."""

from tfx.cli.main import main

if __name__ == "__main__":
    main()
