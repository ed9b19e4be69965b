"""Names, origins and keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vegamite_api.core.access import (
    ApiKey,
    Identity,
    Scope,
    host_allowed,
    host_name,
    key_from_entropy,
    key_hash,
    key_id,
    origin_allowed,
)

LOCAL = ("localhost", "127.0.0.1", "::1")


@pytest.mark.parametrize(
    ("header", "allowed", "right"),
    [
        ("localhost", LOCAL, True),
        ("LocalHost:8000", LOCAL, True),
        ("localhost.", LOCAL, True),
        ("[::1]", LOCAL, True),
        ("[::1]:8000", LOCAL, True),
        ("::1", LOCAL, False),
        ("[::1", LOCAL, False),
        ("127.0.0.1:8000", LOCAL, True),
        ("127.0.0.1:x", LOCAL, False),
        ("localhost.evil.example", LOCAL, False),
        ("evil.example", LOCAL, False),
        ("", LOCAL, False),
        (":8000", LOCAL, False),
        ("a.example.org", ("*.example.org",), True),
        ("example.org", ("*.example.org",), False),
        ("aexample.org", ("*.example.org",), False),
        ("anything", ("*",), True),
    ],
)
def test_a_host_is_one_of_the_names_or_none(
    header: str, allowed: tuple[str, ...], *, right: bool
) -> None:
    assert host_allowed(header, allowed) is right


@given(st.text())
def test_no_header_breaks_the_check(header: str) -> None:
    assert isinstance(host_name(header), str)
    assert not host_allowed(header, ("never.example",)) or "never.example" in header.lower()


@pytest.mark.parametrize(
    ("origin", "right"),
    [
        (None, True),
        ("http://localhost:8000", True),
        ("https://localhost:8000", True),
        ("HTTP://LOCALHOST:8000", True),
        ("https://charts.example.org", True),
        ("http://localhost", False),
        ("http://localhost:8001", False),
        ("file://localhost:8000", False),
        ("null", False),
        ("", False),
        ("https://charts.example.org.evil", False),
    ],
)
def test_a_page_is_ours_listed_or_refused(origin: str | None, *, right: bool) -> None:
    allowed = ("https://charts.example.org/",)
    assert origin_allowed(origin, host="localhost:8000", allowed=allowed) is right


def test_keys_are_random_and_their_ids_tell_nothing() -> None:
    key = key_from_entropy(bytes(range(32)))
    assert key.startswith("vgm_")
    assert len(key_hash(key)) == 32
    assert key_id(key_hash(key)) not in key
    assert key_id(key_hash(key))[1:] not in key_hash(key).hex()
    with pytest.raises(ValueError, match="32 random bytes"):
        key_from_entropy(b"short")


def test_scopes_and_expiry() -> None:
    assert Identity("a", Scope.ADMIN).may(Scope.READ)
    assert not Identity("a", Scope.READ).may(Scope.ADMIN)
    key = ApiKey(key_id="k", scope=Scope.READ, name="n", created_time=0, expires_time=5)
    assert key.valid_at(4)
    assert not key.valid_at(5)
