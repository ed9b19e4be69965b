"""`vegamite markets`: which markets are tracked, asked of and told to a running instance over HTTP."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vegamite_standalone.admin_key import read_key

TIMEOUT_SECONDS = 30.0


class RequestError(Exception):
    """The instance can't be reached, or refused; the text is what a person should read."""


class NotTrackedError(RequestError):
    """One market could not be let go because the instance doesn't track it; others can."""


class Client:
    """A running instance's HTTP interface at `url`, with the key in a file, where there is one."""

    def __init__(self, url: str, key_file: Path | None) -> None:
        """Check the address; RequestError where it is none, or the key's file can't be read."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RequestError(f"{url!r} is no address; http://127.0.0.1:8000 is one")
        self._url = url.rstrip("/")
        self._key = _read_key(key_file)
        # A proxy of the environment's knows nothing of this machine's own addresses.
        local = parts.hostname in ("127.0.0.1", "localhost", "::1")
        handlers = [urllib.request.ProxyHandler({})] if local else []
        self._opener = urllib.request.build_opener(*handlers)

    def tracked(self) -> list[Mapping[str, Any]]:
        """Return every tracked market as the instance describes it."""
        found: list[Mapping[str, Any]] = []
        cursor: str | None = None
        while True:
            query = {"tracked": "true"} | ({"cursor": cursor} if cursor else {})
            page = self._ask("GET", f"/v1/markets?{urllib.parse.urlencode(query)}")
            found += page["data"]
            cursor = page.get("next_cursor")
            if not cursor:
                return found

    def track(self, markets: Sequence[str], history_from: str | None) -> None:
        """Track markets, their history from an instant (RFC 3339) on, or from now."""
        body: dict[str, Any] = {"markets": list(markets)}
        if history_from is not None:
            body["history_from"] = history_from
        self._ask("PUT", "/v1/tracked-markets", body)

    def untrack(self, market: str) -> None:
        """Stop tracking a market; what is stored stays. NotTrackedError where it isn't tracked."""
        self._ask("DELETE", f"/v1/tracked-markets?{urllib.parse.urlencode({'market': market})}")

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Accept": "application/json"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        target = self._url + path  # http or https, or the constructor had refused it
        request = urllib.request.Request(target, data=data, headers=headers, method=method)  # noqa: S310
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
                content = answer.read()
        except urllib.error.HTTPError as error:
            code, text = _problem(error)
            raise (NotTrackedError if code == "not_tracked" else RequestError)(text) from None
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise RequestError(
                f"{self._url} doesn't answer: {reason}; is vegamite running?"
            ) from None
        return json.loads(content) if content else None


def _read_key(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        return read_key(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RequestError(f"the key in {file} can't be read: {error}") from None


def _problem(error: urllib.error.HTTPError) -> tuple[str, str]:
    """Return code and words of a problem document, or words for the status where there is none."""
    code = ""
    try:
        problem = json.loads(error.read())
        text = str(problem.get("detail") or problem["title"])
        code = str(problem.get("code"))
    except (ValueError, KeyError, AttributeError, OSError):
        text = f"the answer was {error.code} {error.reason}"
    if error.code in (401, 403):
        text += " (the key comes from --api-key-file)"
    return code, text


def describe_market(market: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    """Return what the list shows of a market: name, state, last trade's time, open gaps, why its state is so."""
    last = market.get("last_trade") or {}
    return (
        str(market["market"]),
        str(market.get("state") or "pending").replace("_", " "),
        str(last.get("event_time", "none yet")),
        str(market.get("open_gaps", 0)),
        _explanation(market),
    )


def _explanation(market: Mapping[str, Any]) -> str:
    """Return the state's reason and what may have been meant, as far as the instance tells them."""
    parts = [str(market["state_reason"])] if market.get("state_reason") else []
    if suggestions := market.get("suggestions"):
        parts.append(f"did you mean {' or '.join(map(str, suggestions))}?")
    return "; ".join(parts)
