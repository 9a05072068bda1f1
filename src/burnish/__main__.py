"""The command `burnish`, also `python -m burnish`."""

import sys


def main() -> None:
    """Run it. Its modules take half a second to import, in which Ctrl-C is Ctrl-C too."""
    try:
        from burnish.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("error: stopped by Ctrl-C\n")
        sys.exit(2)
    run()


if __name__ == "__main__":
    main()
