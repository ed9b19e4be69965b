"""The `vegamite` command's entry: `vegamite …` or `python -m vegamite_standalone …`."""

import sys

EXIT_INTERRUPTED = 130


def main() -> None:
    """Run the command that was asked for, and end the process with its exit code."""
    try:
        # Imported here: a Ctrl-C in this second, too, ends the command without a traceback.
        from vegamite_standalone.cli import app

        app(prog_name="vegamite")
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
