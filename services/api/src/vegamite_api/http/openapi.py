"""The OpenAPI document: made from the routes, with schemas made from the types that are served."""

from collections.abc import Iterable
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from vegamite_api.core.row import ExchangeRow
from vegamite_api.core.view import (
    CandleView,
    CoverageView,
    GapView,
    MarketView,
    TrackedView,
    TradeView,
)
from vegamite_api.http.problem import Problem

_NAMES: dict[str, type[msgspec.Struct]] = {
    "Candle": CandleView,
    "Trade": TradeView,
    "Exchange": ExchangeRow,
    "Market": MarketView,
    "Gap": GapView,
    "CoveredSpan": CoverageView,
    "TrackedMarket": TrackedView,
    "Problem": Problem,
}

_TRACKING: dict[str, Any] = {
    "type": "object",
    "required": ["markets"],
    "additionalProperties": False,
    "properties": {
        "markets": {
            "type": "array",
            "minItems": 1,
            "maxItems": 500,
            "items": {"type": "string", "pattern": r"^[a-z0-9_]{1,32}:[^/]+/.+$"},
            "description": "Each as `exchange:SYMBOL`.",
        },
        "history_from": {
            "type": ["string", "integer", "null"],
            "description": "Where coverage should start: RFC 3339 or milliseconds since the epoch, not ahead of now.",
        },
    },
}

DESCRIPTION = """Exact candles and trades of crypto markets, as history and live.

Decimals are JSON strings. Times are RFC 3339 UTC strings, or integers by `time=ms|us`. A list answers `data` and `next_cursor`; csv carries the
cursor in a `Link` header. Errors are RFC 9457 problems: go by `code`. Streams: WebSocket `/v1/ws`, described by `/asyncapi.json`.
"""


def served_schemas(template: str) -> dict[str, Any]:
    """Return the JSON schemas of everything that is served, references written by `template`."""
    _, components = msgspec.json.schema_components(list(_NAMES.values()), ref_template=template)
    return components


def build_openapi(app: FastAPI, version: str, routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """Return the application's OpenAPI document; `routes` are those that it describes."""
    document = get_openapi(
        title="vegamite",
        version=version,
        description=DESCRIPTION,
        routes=app.routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    components = document.setdefault("components", {})
    components["schemas"] = _schemas()
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for route in routes:
        if isinstance(route, APIRoute):
            for method in route.methods or ():
                operation = document["paths"][route.path_format][method.lower()]
                _finish(operation, route.openapi_extra or {}, writes=method != "GET")
                operation["operationId"] = _operation_id(route.path_format, method.lower())
    return document


def _schemas() -> dict[str, Any]:
    components = served_schemas("#/components/schemas/{name}")
    renamed = {kind.__name__: name for name, kind in _NAMES.items()}
    text = msgspec.json.encode(components).decode()
    for old, new in renamed.items():
        text = text.replace(f'"#/components/schemas/{old}"', f'"#/components/schemas/{new}"')
    schemas: dict[str, Any] = msgspec.json.decode(text)
    schemas = {renamed.get(name, name): schema for name, schema in schemas.items()}
    for name, schema in schemas.items():
        schema["title"] = name
    schemas["Problem"]["required"] = ["type", "title", "status", "code", "detail"]
    schemas["Tracking"] = _TRACKING
    return schemas


def _finish(operation: dict[str, Any], told: dict[str, Any], *, writes: bool) -> None:
    """Put what the route tells in place of what the framework made of it (it loses nulls), and say which key is needed."""
    operation.update(told)
    keys: list[dict[str, list[str]]] = [{"bearer": []}, {"header": []}]
    operation["security"] = keys if writes else [*keys, {}]


def _operation_id(path: str, method: str) -> str:
    words = path.removeprefix("/v1/").replace("-", "_").split("/")
    return "_".join([method, *words])
