"""Files that a command line names."""

from pathlib import Path


def require_file(path: Path) -> None:
    """Return where `path` is a file; ValueError says what it is instead."""
    if path.is_dir():
        raise ValueError(f"{path} is a directory; a file is needed")
    if not path.exists():
        raise ValueError(f"{path}: no such file")
    if not path.is_file():
        raise ValueError(f"{path} isn't a regular file")
