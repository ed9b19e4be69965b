"""Which vegamite this is."""

from importlib.metadata import version


def installed_version() -> str:
    """Return the installed release's version."""
    return version("vegamite-standalone")
