"""As much of the Kubernetes API as the chart's Jobs use, over TLS, with the rights they have."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VERBS = {"GET": "get", "POST": "create", "PATCH": "patch"}


@dataclass(kw_only=True)
class FakeApi:
    """Objects by (resource, name), and who may do what with them."""

    rules: list[dict[str, Any]]
    """Rules of RBAC."""
    token: str = "token-of-the-job"
    objects: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def answer(self, method: str, path: str, kind: str, body: Any) -> tuple[int, dict[str, Any]]:
        """Status and object."""
        self.asked.append(f"{method} {path}")
        found = re.fullmatch(r"/apis?/(?:[\w.-]+/)*?v1/(?:namespaces/(\w+)/)?(\w+)(?:/(.+))?", path)
        assert found, path
        resource, name = found[2], found[3]
        if not self._allowed(VERBS[method], resource, name):
            return 403, {"message": f"cannot {VERBS[method]} {resource} {name}"}
        key = (resource, name or body["metadata"]["name"])
        if method == "POST":
            if key in self.objects:
                return 409, {"message": "already exists"}
            self.objects[key] = body
        elif key not in self.objects:
            return 404, {"message": "not found"}
        elif method == "PATCH":
            self._patch(self.objects[key], kind, body)
        return 200, self.objects[key]

    def _allowed(self, verb: str, resource: str, name: str | None) -> bool:
        return any(
            verb in rule["verbs"]
            and resource in rule["resources"]
            and name in rule.get("resourceNames", [name])
            for rule in self.rules
        )

    def _patch(self, target: dict[str, Any], kind: str, body: Any) -> None:
        if kind == "application/merge-patch+json":
            for name, value in body.items():
                target[name] = target[name] | value
            return
        assert kind == "application/json-patch+json"
        for change in body:
            assert change["op"] == "add"
            *way, last = change["path"].strip("/").split("/")
            place: Any = target
            for part in way:
                place = place[int(part)] if part.isdecimal() else place[part]
            place[last] = change["value"]


@contextmanager
def serving(api: FakeApi, certificate: Path, key: Path) -> Iterator[FakeApi]:
    """Serve it on a port of 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            if self.headers["Authorization"] != f"Bearer {api.token}":
                status, answer = 401, {"message": "who are you?"}
            else:
                kind = self.headers["Content-Type"]
                status, answer = api.answer(self.command, self.path, kind, body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_POST = do_PATCH = _answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    api.port = server.server_port
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
