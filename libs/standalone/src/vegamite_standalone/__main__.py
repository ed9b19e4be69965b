"""The `vegamite` command's entry: `vegamite …` or `python -m vegamite_standalone …`."""

from vegamite_standalone.cli import app


def main() -> None:
    """Run the command that was asked for, and end the process with its exit code."""
    app(prog_name="vegamite")


if __name__ == "__main__":
    main()
