"""Whose key this is: looked up by hash, remembered for seconds, so that a revoked key is soon worth nothing."""

import os

from vegamite_api.core.access import (
    KEY_BYTES,
    ApiKey,
    Identity,
    Scope,
    key_from_entropy,
    key_hash,
)
from vegamite_api.ports import KeyStore
from vegamite_common.domain.time import Micros
from vegamite_common.runtime.clock import wall_now

_REMEMBER_MICROS = 5_000_000
_REMEMBER_KEYS = 10_000
_MAX_KEY_LENGTH = 200


class KeyRing:
    """Answers whose a key is; keys themselves are never stored, logged or kept."""

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._found: dict[bytes, tuple[Micros, ApiKey | None]] = {}

    @staticmethod
    def digest(key: str) -> bytes:
        """Return the hash by which a key is looked up again later, so that the key itself need not be kept."""
        return key_hash(key)

    async def identify(self, key: str) -> Identity | None:
        """Return whose key it is; None for an unknown or expired one. Raises `StoreError`."""
        if not 0 < len(key) <= _MAX_KEY_LENGTH:
            return None
        return await self.identify_hash(key_hash(key))

    async def identify_hash(self, digest: bytes) -> Identity | None:
        """Return whose key has this hash; None where nobody's has, or it expired. Raises `StoreError`."""
        # Expiry is about real time, even where the markets' clock is simulated.
        now = wall_now()
        remembered = self._found.get(digest)
        if remembered is None or now - remembered[0] > _REMEMBER_MICROS:
            if len(self._found) >= _REMEMBER_KEYS:
                self._found.clear()
            remembered = (now, await self._store.find(digest))
            self._found[digest] = remembered
        found = remembered[1]
        if found is None or not found.valid_at(now):
            return None
        return Identity(found.key_id, found.scope)


async def create_key(
    store: KeyStore, *, scope: Scope, name: str, expires_time: Micros | None = None
) -> tuple[str, ApiKey]:
    """Make a new key, store its hash, and return the key, which can't be had again, and what was stored."""
    key = key_from_entropy(os.urandom(KEY_BYTES))
    return key, await store.add(key_hash(key), scope=scope, name=name, expires_time=expires_time)


async def store_admin_key(store: KeyStore, key: str, *, name: str) -> ApiKey:
    """Make a key that somebody keeps (standalone's file) an admin key; doing it again changes nothing."""
    return await store.add(key_hash(key), scope=Scope.ADMIN, name=name, expires_time=None)
