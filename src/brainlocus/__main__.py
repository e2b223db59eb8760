"""``python -m brainlocus``: the same as the command."""

from brainlocus.cli.main import main

if __name__ == "__main__":
    main()
