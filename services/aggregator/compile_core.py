"""Compile the aggregator's hot modules into machine code, each beside its source, where Python prefers it.

Usage: python services/aggregator/compile_core.py [--check] [--python PATH]

mypyc makes them of the very modules that run without it (docs/decisions/0014-a-compiled-core.md). It needs a C compiler and
Python's headers; `--python` names the interpreter that has what the member depends on, for the types, where it isn't this. `--check` compiles nothing: its exit status tells whether
compiler and headers are there.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from mypyc.build import mypycify
from setuptools import Distribution

SOURCES = Path(__file__).resolve().parent / "src"
COMMON = SOURCES.parents[2] / "libs" / "common" / "src"
MODULES = tuple(
    f"vegamite_aggregator/core/{name}.py" for name in ("trade_block", "block_reader", "block_fold")
)
_WANTED = "Debian, Ubuntu: apt install gcc libc6-dev python3-dev"
GROUP = "vegamite_aggregator_core"
"""What the library is named that they share."""


def check() -> None:
    """End the program unless something can be compiled here, in the same way as the core."""
    program = "#include <Python.h>\nint main(void) { return 0; }\n"
    compiler = [
        *(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split(),
        "-E",
        "-",
    ]
    include = f"-I{sysconfig.get_path('include')}"
    try:
        done = subprocess.run(
            [*compiler, include], input=program, capture_output=True, text=True, check=False
        )
    except OSError as error:
        sys.exit(f"there is no C compiler ({error}); {_WANTED}")
    if done.returncode:
        told = done.stderr.strip().splitlines()[:1]
        sys.exit(f"nothing in C can be compiled here ({told}); {_WANTED}")


def main() -> None:
    """Compile, or end with what the compiler said."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--python", default=sys.executable)
    arguments = parser.parse_args()
    check()
    if arguments.check:
        return
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
        command.run()


if __name__ == "__main__":
    main()
