"""What the wheel has besides the sources: the modules that `compile_core.py` compiled, if it did.

With VEGAMITE_WHEEL=pure in the environment it has none: that wheel is for every Python and every machine.
"""

import os
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledCore(BuildHookInterface[Any]):
    """Puts compiled modules into the wheel, which then is one for this Python and this machine's kind."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add what is there; an editable install finds it in the sources themselves."""
        sources = Path(self.root) / "src"
        compiled = sorted(sources.rglob("*.so"))
        pure = os.environ.get("VEGAMITE_WHEEL") == "pure"
        if version == "editable" or pure or not compiled:
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for module in compiled:
            build_data["force_include"][str(module)] = str(module.relative_to(sources))
