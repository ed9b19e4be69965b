"""The instance's admin key: made once, kept in a file that only its owner reads."""

import os
import secrets
from pathlib import Path

from vegamite_api.core.access import KEY_BYTES, key_from_entropy

KEY_FILE = "admin.key"


def ensure_admin_key(directory: Path) -> str:
    """Return the key in `<directory>/admin.key`, made with mode 0600 the first time; OSError where that can't be."""
    path = directory / KEY_FILE
    try:
        return read_key(path)
    except FileNotFoundError:
        key = key_from_entropy(secrets.token_bytes(KEY_BYTES))
        unfinished = path.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(
            unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600
        )
        with os.fdopen(descriptor, "w") as file:
            file.write(key + "\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
        return key


def read_key(path: Path) -> str:
    """Return the key that a file holds; FileNotFoundError where there is none, ValueError where it is no key."""
    key = path.read_text(encoding="utf-8").strip()
    if not key or not key.isascii() or any(character.isspace() for character in key):
        raise ValueError(f"{path} holds no key")
    return key
