"""Compile the aggregator's hot modules into machine code, each beside its source, where Python prefers it.

Usage: python services/aggregator/compile_core.py [--python PATH]

mypyc makes them of the very modules that run without it (docs/decisions/0014-a-compiled-core.md). It needs a C compiler and
Python's headers; `--python` names the interpreter that has what the member depends on, for the types, where it isn't this.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from mypyc.build import mypycify
from setuptools import Distribution
from setuptools.errors import BaseError

SOURCES = Path(__file__).resolve().parent / "src"
COMMON = SOURCES.parents[2] / "libs" / "common" / "src"
MODULES = tuple(
    f"vegamite_aggregator/core/{name}.py" for name in ("trade_block", "block_reader", "block_fold")
)
GROUP = "vegamite_aggregator_core"
"""What the library is named that they share."""


def main() -> None:
    """Compile, or end with what the compiler said."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default=sys.executable)
    arguments = parser.parse_args()
    os.chdir(SOURCES)
    os.environ["MYPYPATH"] = f"{SOURCES}{os.pathsep}{COMMON}"
    for compiled in SOURCES.rglob("*.so"):
        compiled.unlink()
    with tempfile.TemporaryDirectory(prefix="vegamite-compile-") as folder:
        settings = [
            "--config-file=",
            f"--python-executable={arguments.python}",
            f"--cache-dir={folder}",
        ]
        extensions = mypycify([*settings, *MODULES], target_dir=folder, group_name=GROUP)
        distribution = Distribution({"name": "vegamite-aggregator", "ext_modules": extensions})
        command = distribution.get_command_obj("build_ext")
        command.inplace = True
        command.build_temp = command.build_lib = folder
        command.ensure_finalized()
        try:
            command.run()
        except BaseError as error:
            sys.exit(
                f"the core can't be compiled: {error}\n"
                "it takes a C compiler and Python's headers (Debian, Ubuntu: apt install gcc libc6-dev python3-dev)"
            )


if __name__ == "__main__":
    main()
