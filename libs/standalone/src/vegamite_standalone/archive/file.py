"""Opening archives: plain, gzip or zip, told apart by their first bytes, read line by line."""

import contextlib
import gzip
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from vegamite_standalone.archive.line import MAX_LINE_BYTES

_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"


class ArchiveError(Exception):
    """A file that can't be read as an archive, or a line in it that is no trade; the text names file and line."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line that isn't blank: where it is (`file:number`), and its bytes without the line's end."""

    where: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """One stretch of lines with one header and format: a file, or a member of a zip file."""

    name: str
    lines: Iterator[Line]


class _Stream(Protocol):
    def readline(self, size: int, /) -> bytes: ...


def read_parts(path: Path, *, consumed: Callable[[int], None]) -> Iterator[Part]:
    """Give the file's parts, each to be read before the next; ArchiveError where the file is damaged or missing.

    `consumed` is told how far into the file (bytes as stored) reading has come.
    """
    with _faults_named(path), path.open("rb") as file:
        magic = file.read(4)
        file.seek(0)
        if magic.startswith(_GZIP):
            with gzip.open(file) as unpacked:
                yield Part(str(path), _lines(str(path), unpacked, file, consumed))
        elif magic.startswith(_ZIP):
            yield from _members(path, file, consumed)
        else:
            yield Part(str(path), _lines(str(path), file, file, consumed))


def _members(path: Path, file: BinaryIO, consumed: Callable[[int], None]) -> Iterator[Part]:
    with zipfile.ZipFile(file) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        for member in members:
            name = str(path) if len(members) == 1 else f"{path}!{member.filename}"
            with archive.open(member) as unpacked:
                yield Part(name, _lines(name, unpacked, file, consumed))


def _lines(
    name: str, stream: _Stream, file: BinaryIO, consumed: Callable[[int], None]
) -> Iterator[Line]:
    with _faults_named(Path(name)):
        number = 0
        # One byte more than a line may have: whoever parses it sees that it is too long.
        while chunk := stream.readline(MAX_LINE_BYTES + 2):
            number += 1
            content = chunk.strip()
            while not chunk.endswith(b"\n") and chunk:
                chunk = stream.readline(1 << 16)
            if number % 2048 == 0:
                consumed(file.tell())
            if content:
                yield Line(f"{name}:{number}", content)


@contextlib.contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or "damaged: " + str(error)
        raise ArchiveError(f"{path}: {reason}") from error
    except (EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ArchiveError(f"{path}: damaged: {error}") from error
