"""A webhook that writes down what it is asked, and lets everything pass."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from reviewing import Pair

Object = dict[str, Any]
NAME = "admission-recorder"
"""Of its configuration. Mutating webhooks are asked in this order: it is before memplan's."""


class Recorder:
    """What was asked, in its order."""

    def __init__(self) -> None:
        self.reviews: list[Object] = []

    def of(self, item: Object, operation: str = "CREATE") -> list[Object]:
        """The reviews of an object, by its kind and its name or what that is generated from."""
        wanted = (item["kind"], _name(item), operation)
        requests = [(review, review["request"]) for review in self.reviews]
        return [r for r, q in requests if (*_kind_and_name(q), q["operation"]) == wanted]


def _kind_and_name(request: Object) -> tuple[str, str]:
    return request["kind"]["kind"], _name(request["object"])


def _name(item: Object) -> str:
    metadata = item["metadata"]
    return str(metadata.get("name") or metadata.get("generateName"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    recorder: Recorder

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.recorder.reviews.append(review)
        answer = {
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": {"uid": review["request"]["uid"], "allowed": True},
        }
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def recording(folder: Path) -> Iterator[tuple[Recorder, Object]]:
    """What is recorded, and the configuration that has the API server ask."""
    pair = Pair(cert=folder / "recorder.crt", key=folder / "recorder.key", names="IP:127.0.0.1")
    pair.make()
    recorder = Recorder()
    handler = type("Handler", (_Handler,), {"recorder": recorder})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair.cert, pair.key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        server.daemon_threads, server.block_on_close = True, False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield recorder, _configuration(server.server_address[1], pair)
        finally:
            server.shutdown()


def _configuration(port: int, pair: Pair) -> Object:
    resources = {"": ["pods"], "batch": ["jobs"], "trainer.kubeflow.org": ["trainjobs"]}
    rules = [
        {
            "apiGroups": [group],
            "apiVersions": ["*"],
            "resources": names,
            "operations": ["CREATE", "UPDATE"],
        }
        for group, names in resources.items()
    ]
    client = {
        "url": f"https://127.0.0.1:{port}/",
        "caBundle": base64.b64encode(pair.cert.read_bytes()).decode(),
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": NAME},
        "webhooks": [
            {
                "name": "admission.recorder.example.org",
                "clientConfig": client,
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "rules": rules,
            }
        ],
    }
