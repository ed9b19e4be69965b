"""Where a standalone process logs: a rotating file beside a person's terminal, else lines on stderr."""

import logging
from pathlib import Path

from vegamite_common.runtime.logging import configure_logging
from vegamite_common.runtime.section import LogSection

SERVICE = "standalone"


def configure_process_log(section: LogSection, *, directory: Path, watched: bool) -> Path | None:
    """Set up the log and return its file, where it has one.

    Beside a terminal that is `watched`, stderr gets nothing but what ends the process: the display tells the rest.
    """
    if watched:
        file = section.file or directory / "log" / "vegamite.log"
        configure_logging(section.model_copy(update={"file": file}), service=SERVICE)
        for handler in logging.getLogger().handlers:
            if type(handler) is logging.StreamHandler:
                handler.setLevel(logging.CRITICAL)
        return file
    lines = "console" if section.format == "auto" else section.format
    configure_logging(section.model_copy(update={"format": lines}), service=SERVICE)
    return section.file


def configure_command_log() -> None:
    """Let a command that a person waits for say on stderr what is wrong, and nothing else."""
    configure_logging(LogSection(level="error", format="console"), service=SERVICE)
