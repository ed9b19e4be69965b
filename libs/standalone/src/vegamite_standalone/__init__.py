"""vegamite in one process, and the `vegamite` command."""
