"""The browser that page tests drive."""

import os
import shutil
from pathlib import Path

from vegamite_common.testing.services.process import ServiceError

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PLACES = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",)


def find_chromium() -> Path:
    """Return the browser's program: $VEGAMITE_TEST_CHROMIUM, else one of the usual names; ServiceError if none is."""
    chosen = os.environ.get("VEGAMITE_TEST_CHROMIUM")
    candidates = [chosen] if chosen else [shutil.which(name) for name in _NAMES] + list(_PLACES)
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return Path(candidate)
    raise ServiceError(
        "no browser was found; install Debian's `chromium`, or set VEGAMITE_TEST_CHROMIUM"
    )
