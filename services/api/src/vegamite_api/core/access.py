"""Who may do what: API keys by their hashes, the names a server answers to, the pages that may connect."""

import base64
import hashlib
from collections.abc import Collection
from enum import StrEnum

import msgspec

from vegamite_common.domain.time import Micros

KEY_PREFIX = "vgm_"
KEY_BYTES = 32


class Scope(StrEnum):
    """What a key is for: reading, or changing what is tracked too."""

    READ = "read"
    ADMIN = "admin"


class Identity(msgspec.Struct, frozen=True):
    """Who asks: `name` is a key's id, or `anonymous`; never the key."""

    name: str
    scope: Scope

    def may(self, scope: Scope) -> bool:
        """Whether the scope is within this identity's."""
        return self.scope is Scope.ADMIN or scope is Scope.READ


ANONYMOUS = Identity("anonymous", Scope.READ)


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is stored: everything but the key."""

    key_id: str
    scope: Scope
    name: str
    created_time: Micros
    expires_time: Micros | None = None

    def valid_at(self, now: Micros) -> bool:
        """Whether the key has not expired."""
        return self.expires_time is None or now < self.expires_time


def key_from_entropy(entropy: bytes) -> str:
    """Return the text of a new key; raise `ValueError` for less than 32 random bytes."""
    if len(entropy) < KEY_BYTES:
        raise ValueError(f"a key needs {KEY_BYTES} random bytes, not {len(entropy)}")
    return KEY_PREFIX + base64.urlsafe_b64encode(entropy).decode("ascii").rstrip("=")


def key_hash(key: str) -> bytes:
    """Return the SHA-256 of a key: keys are random, so a plain hash can't be searched."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def key_id(digest: bytes) -> str:
    """Return the public name of a key: it tells keys apart and gives nothing of them away."""
    return "k" + hashlib.sha256(b"id" + digest).hexdigest()[:12]


def host_name(header: str) -> str:
    """Return the name in a `Host` header, lower case, without port and brackets; empty where it is malformed."""
    text = header.strip().lower()
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        return name if bracket and (not rest or _is_port(rest)) else ""
    name, colon, port = text.partition(":")
    if colon and not _is_port(":" + port):
        return ""
    return name.rstrip(".")


def _is_port(text: str) -> bool:
    return text.startswith(":") and text[1:].isascii() and text[1:].isdigit()


def host_allowed(header: str, allowed: Collection[str]) -> bool:
    """Whether a `Host` header names this server: a name of the list, or below one that is written `*.example.org`."""
    name = host_name(header)
    if not name:
        return False
    for pattern in allowed:
        want = pattern.lower()
        if want == "*" or name == want.strip("[]"):
            return True
        if want.startswith("*.") and name.endswith(want[1:]):
            return True
    return False


def origin_allowed(origin: str | None, *, host: str, allowed: Collection[str]) -> bool:
    """Whether a page may open a WebSocket: no `Origin` (not a browser), one of the list, or this server's own page.

    `host` is the `Host` header, which was checked before: so an own page can't be another's name for this address.
    """
    if origin is None:
        return True
    text = origin.strip().lower()
    if text in {entry.rstrip("/").lower() for entry in allowed}:
        return True
    scheme, separator, authority = text.partition("://")
    return scheme in ("http", "https") and bool(separator) and authority == host.strip().lower()
