"""A small API server: Kueue's objects, by HTTP, with watches and server-side apply of statuses.

Shapes are those of https://kueue.sigs.k8s.io/docs/reference/kueue.v1beta2/ and of events.k8s.io/v1.
"""

from __future__ import annotations

import json
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
import kubernetes_validate

Object = dict[str, Any]
GROUP = "kueue.x-k8s.io/v1beta2"
NEWEST = kubernetes_validate.latest_version().rpartition(".")[0]
TEXT = {"type": "string"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
TIME = {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"}


def strict(required: list[str], **properties: object) -> Object:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


UPDATE = strict(
    ["name"],
    name=TEXT,
    labels=TEXTS,
    annotations=TEXTS,
    nodeSelector=TEXTS,
    tolerations={
        "type": "array",
        "maxItems": 8,
        "items": strict(
            [], key=TEXT, operator={"enum": ["Exists", "Equal"]}, value=TEXT, effect=TEXT
        ),
    },
)
STATE = strict(
    ["name", "state", "message", "lastTransitionTime"],
    name=TEXT,
    state={"enum": ["Pending", "Ready", "Retry", "Rejected"]},
    message={"type": "string", "maxLength": 32768},
    lastTransitionTime=TIME,
    podSetUpdates={"type": "array", "maxItems": 8, "items": UPDATE},
)
CONDITION = strict(
    ["type", "status", "reason", "message", "lastTransitionTime"],
    type=TEXT,
    status={"enum": ["True", "False", "Unknown"]},
    reason={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
    message=TEXT,
    lastTransitionTime=TIME,
    observedGeneration={"type": "integer"},
)
APPLIED = {
    "workloads": ("admissionChecks", "name", STATE),
    "admissionchecks": ("conditions", "type", CONDITION),
}
"""Of each status that may be applied: the list, its key and what is in it."""


class FakeCluster:
    """What is stored, and what happened."""

    def __init__(self) -> None:
        self.events: list[Object] = []
        self.problems: list[str] = []
        """What a real API server would have refused."""
        self.port = 0
        self._version = 100
        self._items: dict[str, dict[tuple[str, str], Object]] = {
            "workloads": {},
            "admissionchecks": {},
            "resourceflavors": {},
        }
        self._owned: dict[tuple[str, str, str], set[str]] = {}
        """Entries of each status that were applied last."""
        self._watching: list[tuple[str, queue.Queue[Object | None]]] = []
        self._lock = threading.RLock()

    def put(self, plural: str, item: Object) -> None:
        """Store an object, and tell who watches."""
        with self._lock:
            self._version += 1
            metadata = item["metadata"]
            key = (metadata.get("namespace", ""), metadata["name"])
            event = "MODIFIED" if key in self._items[plural] else "ADDED"
            metadata["resourceVersion"] = str(self._version)
            metadata.setdefault("uid", f"uid-{metadata['name']}")
            self._items[plural][key] = item
            self._owned.pop((plural, *key), None)  # whoever writes it owns it
            self._tell(plural, {"type": event, "object": json.loads(json.dumps(item))})

    def get(self, plural: str, name: str, namespace: str = "") -> Object:
        """A copy of an object."""
        with self._lock:
            found: Object = json.loads(json.dumps(self._items[plural][(namespace, name)]))
            return found

    def drop(self, error: Object | None = None) -> None:
        """End all watches, with an error event or without."""
        with self._lock:
            for _, events in self._watching:
                if error is not None:
                    events.put({"type": "ERROR", "object": error})
                events.put(None)

    def wait_for(self, condition: Callable[[], bool], seconds: float = 15) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not come to that"
            assert not self.problems, self.problems
            time.sleep(0.02)

    def check(self, workload: str, name: str = "memplan") -> Object:
        """The state of a check of a Workload."""
        states = self.get("workloads", workload, "ml")["status"]["admissionChecks"]
        found: Object = next(one for one in states if one["name"] == name)
        return found

    def answered(self, workload: str) -> Object:
        """The state once it is no longer pending."""
        self.wait_for(lambda: self.check(workload)["state"] != "Pending")
        return self.check(workload)

    # What the API server does.

    def listed(self, plural: str) -> Object:
        """A list."""
        with self._lock:
            items = list(self._items[plural].values())
            metadata = {"resourceVersion": str(self._version)}
            return {"apiVersion": GROUP, "kind": "List", "metadata": metadata, "items": items}

    def watched(self, plural: str) -> Iterator[Object]:
        """What there is, and then what changes."""
        events: queue.Queue[Object | None] = queue.Queue()
        with self._lock:
            present = json.loads(json.dumps(list(self._items[plural].values())))
            self._watching.append((plural, events))
        try:
            for item in present:
                yield {"type": "ADDED", "object": item}
            while (event := events.get()) is not None:
                yield event
        finally:
            with self._lock:
                self._watching.remove((plural, events))

    def apply(self, plural: str, key: tuple[str, str], body: Object, query: Object) -> int:
        """Server-side apply of a status; returns the HTTP status code."""
        field, by, schema = APPLIED[plural]
        kind = {"workloads": "Workload", "admissionchecks": "AdmissionCheck"}[plural]
        if not query.get("fieldManager") or (body["apiVersion"], body["kind"]) != (GROUP, kind):
            self.problems.append(f"no apply: {query} {body}")
            return 400
        with self._lock:
            item = self.get(plural, key[1], key[0])
            wanted = body["metadata"].get("resourceVersion")
            if wanted is not None and wanted != item["metadata"]["resourceVersion"]:
                return 409
            names = {entry[by] for entry in body["status"][field]}
            if gone := self._owned.get((plural, *key), set()) - names:
                self.problems.append(f"what it had set in {gone} is taken away")
                return 422
            for entry in body["status"][field]:
                try:
                    jsonschema.validate(entry, schema)
                except jsonschema.ValidationError as error:
                    self.problems.append(str(error))
                    return 422
                entries = item.setdefault("status", {}).setdefault(field, [])
                entries[:] = [one for one in entries if one[by] != entry[by]] + [entry]
            self.put(plural, item)
            self._owned[(plural, *key)] = names
        return 200

    def event(self, body: Object) -> int:
        """Store an Event."""
        try:
            stored = {**body, "metadata": {**body["metadata"], "name": "memplan-x"}}
            kubernetes_validate.validate(stored, NEWEST, strict=True)
            assert len(body["note"].encode()) <= 1024
        except (kubernetes_validate.ValidationError, AssertionError) as error:
            self.problems.append(str(error))
            return 422
        self.events.append(body)
        return 201

    def _tell(self, plural: str, event: Object) -> None:
        for watched, events in self._watching:
            if watched == plural:
                events.put(event)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: FakeCluster

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        match = re.fullmatch(
            rf"/apis/{GROUP}/(?:namespaces/([^/]+)/)?([a-z]+)(?:/([^/]+))?", url.path
        )
        assert match is not None, self.path
        namespace, plural, name = match.groups()
        if parse_qs(url.query).get("watch") in (["true"], ["True"]):
            self._stream(plural)
        elif name is None:
            self._answer(200, self.cluster.listed(plural))
        else:
            try:
                self._answer(200, self.cluster.get(plural, name, namespace or ""))
            except KeyError:
                self._answer(404, {"kind": "Status", "code": 404, "reason": "NotFound"})

    def do_PATCH(self) -> None:
        url = urlsplit(self.path)
        match = re.fullmatch(
            rf"/apis/{GROUP}/(?:namespaces/([^/]+)/)?([a-z]+)/([^/]+)/status", url.path
        )
        assert match is not None, self.path
        assert self.headers["Content-Type"] == "application/apply-patch+yaml"
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        key = (match[1] or "", match[3])
        self._answer(self.cluster.apply(match[2], key, self._body(), query), {})

    def do_POST(self) -> None:
        assert re.fullmatch(r"/apis/events.k8s.io/v1/namespaces/ml/events", self.path), self.path
        body = self._body()
        self._answer(self.cluster.event(body), {**body, "metadata": {"name": "memplan-x"}})

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _body(self) -> Object:
        found: Object = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return found

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, plural: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with suppress(OSError):
            for event in self.cluster.watched(plural):
                data = json.dumps(event).encode() + b"\n"
                self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), OSError):  # whoever asked has gone
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def cluster() -> Iterator[FakeCluster]:
    """A cluster on a free port; nothing that it was asked for was wrong."""
    found = FakeCluster()
    handler = type("Handler", (_Handler,), {"cluster": found})
    with _Server(("127.0.0.1", 0), handler) as server:
        found.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield found
        finally:
            found.drop()
            server.shutdown()
    assert not found.problems
