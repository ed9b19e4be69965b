"""The application: routes, what surrounds them, and the documents that describe them."""

import msgspec
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.routing import APIRoute
from starlette.responses import Response

from vegamite_api.http.asyncapi import build_asyncapi
from vegamite_api.http.context import Context, Probes, context_of
from vegamite_api.http.observation import ObservationMiddleware
from vegamite_api.http.openapi import build_openapi
from vegamite_api.http.page import documentation_router, install_page
from vegamite_api.http.problem import install_problems
from vegamite_api.http.response import respond
from vegamite_api.http.routes import router as reading
from vegamite_api.http.security import HeaderMiddleware, HeadMiddleware, HostMiddleware
from vegamite_api.http.tracking import router as tracking
from vegamite_api.http.websocket import router as websocket
from vegamite_api.metrics import show_routes
from vegamite_common.runtime.management import probe_body


def create_app(context: Context) -> FastAPI:
    """Return the application over a context; it starts and owns nothing."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.context = context
    app.state.routes = (*reading.routes, *tracking.routes)
    show_routes(
        (route.path, method)
        for route in app.state.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    )
    install_problems(app)
    app.include_router(reading)
    app.include_router(tracking)
    app.include_router(websocket)
    _install_documents(app, context.version)
    app.include_router(documentation_router())
    if context.probes is not None:
        _install_probes(app, context.probes, context)
    install_page(app, context.static)
    # The last one added is the outermost.
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(context.section.allowed_origins),
        allow_methods=["GET", "PUT", "DELETE"],
        allow_headers=["Authorization", "X-API-Key", "Content-Type", "If-None-Match"],
        expose_headers=["ETag", "Link", "Retry-After"],
        max_age=600,
    )
    app.add_middleware(HostMiddleware, allowed=context.section.allowed_hosts)
    app.add_middleware(HeaderMiddleware)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(ObservationMiddleware)
    return app


def _install_documents(app: FastAPI, version: str) -> None:
    openapi = msgspec.json.encode(build_openapi(app, version, [*reading.routes, *tracking.routes]))
    asyncapi = msgspec.json.encode(build_asyncapi(version))

    async def openapi_document(request: Request) -> Response:
        return await respond(request, lambda: openapi, rows=1)

    async def asyncapi_document(request: Request) -> Response:
        return await respond(request, lambda: asyncapi, rows=1)

    app.add_api_route("/openapi.json", openapi_document, include_in_schema=False)
    app.add_api_route("/asyncapi.json", asyncapi_document, include_in_schema=False)


def _install_probes(app: FastAPI, probes: Probes, context: Context) -> None:
    async def healthz() -> Response:
        status, text = probe_body(probes.live())
        return Response(text, status, media_type="text/plain")

    async def readyz() -> Response:
        status, text = probe_body(probes.ready())
        return Response(text, status, media_type="text/plain")

    async def metrics(request: Request) -> Response:
        write = context_of(request).metrics
        assert write is not None
        body, kind = write()
        return Response(body, headers={"Content-Type": kind})

    app.add_api_route("/healthz", healthz, include_in_schema=False)
    app.add_api_route("/readyz", readyz, include_in_schema=False)
    if context.metrics is not None:
        app.add_api_route("/metrics", metrics, include_in_schema=False)
