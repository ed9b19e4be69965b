"""The chart page and the documentation's page: files that this server serves itself, so both work offline."""

import mimetypes
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from vegamite_api.core.refusal import RefusedError

_DOCS = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>vegamite API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  validatorUrl: null,
});
"""
_DOCS_FILES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
}
_HTML_HEADERS = {"Cache-Control": "no-cache"}


class _Hashed(StaticFiles):
    """Files whose names change with their contents: kept for ever."""

    def file_response(
        self,
        full_path: str | Path,  # type: ignore[override]
        stat_result: object,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Serve a file that never changes under its name."""
        response = super().file_response(full_path, stat_result, scope, status_code)  # type: ignore[arg-type]
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def documentation_router() -> APIRouter:
    """Return the routes of `/docs`: Swagger UI over `/openapi.json`, its files from a package that is installed with us."""
    router = APIRouter(include_in_schema=False)
    package = files("fastapi_offline").joinpath("static")
    contents = {name: package.joinpath(name).read_bytes() for name in _DOCS_FILES}

    @router.get("/docs")
    async def docs() -> Response:
        return HTMLResponse(_DOCS, headers=_HTML_HEADERS)

    @router.get("/docs/{name}")
    async def docs_file(name: str) -> Response:
        if name == "start.js":
            return Response(_START, media_type="text/javascript")
        if name not in contents:
            raise RefusedError("not_found", "there is nothing at this path", allowed="GET /docs")
        return Response(contents[name], media_type=_DOCS_FILES[name])

    return router


def install_page(app: FastAPI, static: Path) -> None:
    """Serve the built chart page: `index.html` at `/`, hashed files under `/assets`, and the other files beside it."""
    index = static / "index.html"

    async def page() -> Response:
        if not index.is_file():
            raise RefusedError(
                "not_found", "the chart page is not built here", allowed="make build, or GET /docs"
            )
        return FileResponse(index, headers=_HTML_HEADERS)

    app.add_api_route("/", page, include_in_schema=False, response_model=None)
    app.mount("/assets", _Hashed(directory=static / "assets", check_dir=False), name="assets")
    beside = [path for path in static.iterdir() if path.is_file()] if static.is_dir() else []
    for path in beside:
        if path.name != "index.html":
            app.add_api_route(
                f"/{path.name}", _file_route(path), include_in_schema=False, response_model=None
            )


def _file_route(path: Path):  # type: ignore[no-untyped-def]
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"

    async def file() -> Response:
        return FileResponse(path, media_type=kind, headers=_HTML_HEADERS)

    return file
