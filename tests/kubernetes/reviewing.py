"""The webhook as the API server meets it: a process, TLS, one connection for many requests."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonpatch
from processes import running

ROOT = Path(__file__).parents[2]
REVIEWS = Path(__file__).parent / "reviews"
"""AdmissionReviews that an API server has sent."""
NAME = "memplan-webhook.memplan.svc"


def load(name: str) -> dict[str, Any]:
    """An AdmissionReview of the folder."""
    review: dict[str, Any] = json.loads((REVIEWS / f"{name}.json").read_text())
    return review


def patched(review: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
    """The object as the API server makes it of the patch in a response."""
    item: dict[str, Any] = review["request"]["object"]
    if "patch" not in response:
        return item
    assert response["patchType"] == "JSONPatch"
    operations = json.loads(base64.b64decode(response["patch"], validate=True))
    found: dict[str, Any] = jsonpatch.JsonPatch(operations).apply(item)
    return found


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path
    names: str = f"DNS:{NAME}"
    """Whom the certificate is for, as OpenSSL writes it."""

    def make(self) -> None:
        """Write new ones over the old."""
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        names = ["-subj", "/CN=memplan", "-addext", f"subjectAltName={self.names}", "-days", "1"]
        files = ["-keyout", str(self.key), "-out", str(self.cert)]
        subprocess.run(
            ["openssl", "req", "-x509", *curve, *names, *files], check=True, capture_output=True
        )


@dataclass(kw_only=True)
class Webhook:
    """A running webhook."""

    process: subprocess.Popen[str]
    port: int
    metrics_port: int
    pair: Pair

    def connect(self) -> http.client.HTTPSConnection:
        """A connection that trusts the certificate as it is now, for the name of the Service."""
        context = ssl.create_default_context(cafile=str(self.pair.cert))
        connection = _Connection("127.0.0.1", self.port, timeout=30, context=context)
        connection.connect()
        return connection

    def ask(
        self,
        review: object,
        path: str = "/mutate",
        connection: http.client.HTTPSConnection | None = None,
    ) -> dict[str, Any]:
        """The response to a review."""
        status, body = self.post(json.dumps(review).encode(), path, connection=connection)
        assert status == 200, body
        answer = json.loads(body)
        assert (answer["apiVersion"], answer["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
        found: dict[str, Any] = answer["response"]
        return found

    def post(
        self,
        body: bytes,
        path: str = "/mutate",
        content_type: str = "application/json",
        connection: http.client.HTTPSConnection | None = None,
    ) -> tuple[int, bytes]:
        """Status and body of the answer."""
        used = connection or self.connect()
        try:
            used.request("POST", path, body, {"Content-Type": content_type})
            answer = used.getresponse()
            return answer.status, answer.read()
        finally:
            if connection is None:
                used.close()


class _Connection(http.client.HTTPSConnection):
    """To an address, by the name of the Service."""

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        with self.sock as plain:  # closed where the certificate is not trusted
            self.sock = self._context.wrap_socket(plain, server_hostname=NAME)  # type: ignore[attr-defined]


@contextmanager
def serving(pair: Pair, server: str, *options: str) -> Iterator[Webhook]:
    """A webhook before a planner; it has ended well when the block has."""
    words = ["webhook", "--listen", "127.0.0.1:0", "--metrics-port", "0", "--server", server]
    files = ["--cert", str(pair.cert), "--key", str(pair.key)]
    with running(*words, *files, *options) as (process, (port, metrics_port)):
        yield Webhook(process=process, port=port, metrics_port=metrics_port, pair=pair)


def timed(webhook: Webhook, review: object) -> tuple[dict[str, Any], float]:
    """The response, and the seconds that it took."""
    start = time.monotonic()
    response = webhook.ask(review)
    return response, time.monotonic() - start


def until_planned(webhook: Webhook, review: object) -> dict[str, Any]:
    """The response with a plan.

    The first plan of a model may take longer than anybody waits; it is there for who asks again.
    """
    while "patch" not in (response := webhook.ask(review)):
        assert "no plan in time" in response["warnings"][0]
        time.sleep(0.2)
    return response
