#!/usr/bin/python3
"""What stands in for Grafana: it refuses to start on provisioning that Grafana couldn't read, and says what it read.

The environment is Grafana's: GF_SECURITY_ADMIN_USER, GF_SECURITY_ADMIN_PASSWORD (or …__FILE), GF_AUTH_ANONYMOUS_ENABLED,
GF_PATHS_PROVISIONING. So are the addresses: /api/health, /api/datasources, /api/search, /api/dashboards/uid/<uid>.
"""

import base64
import hmac
import json
import os
import signal
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

PROVISIONING = Path(os.environ.get("GF_PATHS_PROVISIONING", "/etc/grafana/provisioning"))


def setting(name: str, default: str) -> str:
    """Return what the variable says, or the file that it names with `__FILE` behind."""
    file = os.environ.get(f"{name}__FILE")
    return Path(file).read_text().strip() if file else os.environ.get(name, default)


def refuse(reason: str) -> None:
    """End with one sentence, as Grafana does on provisioning that it can't use."""
    sys.exit(f"grafana stand-in: {reason}")


def provisioned(kind: str, key: str) -> list[dict[str, Any]]:
    """Return the entries under `key` in every file that is provisioned for `kind`; refuses what isn't well-formed."""
    entries = []
    for path in sorted((PROVISIONING / kind).glob("*.y*ml")):
        try:
            document = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError) as error:
            refuse(f"{path}: {error}")
        if not isinstance(document, dict) or document.get("apiVersion") != 1:
            refuse(f"{path}: apiVersion must be 1")
        for entry in document.get(key, []):
            if (
                not isinstance(entry, dict)
                or not entry.get("name")
                or not entry.get("type", "file")
            ):
                refuse(f"{path}: an entry of {key} lacks its name or type")
            entries.append(entry)
    return entries


def read_dashboards(providers: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the dashboards in the providers' folders by uid, each with its folder; refuses what isn't one."""
    found: dict[str, dict[str, Any]] = {}
    for provider in providers:
        folder = Path(provider.get("options", {}).get("path", ""))
        if not folder.is_dir():
            refuse(f"the folder of the provider {provider['name']} isn't there: {folder}")
        for path in sorted(folder.rglob("*.json")):
            try:
                dashboard = json.loads(path.read_text())
            except (OSError, ValueError) as error:
                refuse(f"{path}: {error}")
            uid = dashboard.get("uid") or path.stem
            if not dashboard.get("title") or not isinstance(dashboard.get("panels"), list):
                refuse(f"{path}: a dashboard has a title and panels")
            if uid in found:
                refuse(f"{path}: its uid {uid} is another dashboard's too")
            found[uid] = {"dashboard": dashboard, "folder": provider.get("folder", "")}
    return found


DATASOURCES = provisioned("datasources", "datasources")
DASHBOARDS = read_dashboards(provisioned("dashboards", "providers"))
USER = setting("GF_SECURITY_ADMIN_USER", "admin")
PASSWORD = setting("GF_SECURITY_ADMIN_PASSWORD", "admin")
ANONYMOUS = os.environ.get("GF_AUTH_ANONYMOUS_ENABLED", "false").lower() == "true"


class Handler(BaseHTTPRequestHandler):
    """Answers as Grafana's HTTP API does, as far as it goes."""

    def do_GET(self) -> None:
        """Serve the addresses named above."""
        path = self.path.split("?")[0]
        admin = self.is_admin()
        if path == "/api/health":
            self.answer({"database": "ok", "version": "stand-in"})
        elif path == "/":
            self.answer({"message": "This stands in for Grafana, and draws nothing."})
        elif admin is False or (admin is None and not ANONYMOUS):
            self.answer({"message": "Unauthorized"}, HTTPStatus.UNAUTHORIZED)
        elif path == "/api/search":
            rows = [
                (uid, row["dashboard"]["title"], row["folder"]) for uid, row in DASHBOARDS.items()
            ]
            self.answer(
                [{"uid": u, "title": t, "folderTitle": f, "type": "dash-db"} for u, t, f in rows]
            )
        elif path.startswith("/api/dashboards/uid/") and path.rsplit("/", 1)[1] in DASHBOARDS:
            self.answer(DASHBOARDS[path.rsplit("/", 1)[1]])
        elif path == "/api/datasources" and admin:
            self.answer(DATASOURCES)
        elif path == "/api/datasources":
            self.answer({"message": "Access denied"}, HTTPStatus.FORBIDDEN)
        else:
            self.answer({"message": "Not found"}, HTTPStatus.NOT_FOUND)

    def is_admin(self) -> bool | None:
        """Say whether the request proves to be the admin's; None where it brings no credentials."""
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        if kind != "Basic":
            return None
        return hmac.compare_digest(base64.b64decode(value), f"{USER}:{PASSWORD}".encode())

    def answer(self, content: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        """Send `content` as JSON."""
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing of single requests."""


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
sys.stderr.write(
    f"stand-in for Grafana: {len(DATASOURCES)} data sources, dashboards {sorted(DASHBOARDS)}\n"
)
ThreadingHTTPServer(
    ("", int(os.environ.get("GF_SERVER_HTTP_PORT", "3000"))), Handler
).serve_forever()
