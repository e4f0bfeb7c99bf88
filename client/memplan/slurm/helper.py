"""The socket on which the plugins ask."""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from memplan import jobfile
from memplan.errors import (
    CancelledError,
    DeadlineExceededError,
    JobFileError,
    MemplanError,
    UnavailableError,
)
from memplan.scheduling.planner import Planner, connect
from memplan.scheduling.sentences import one_line
from memplan.slurm import plans
from memplan.slurm.config import Config
from memplan.slurm.decide import Decision, decide
from memplan.slurm.inventory import Inventory, kinds
from memplan.slurm.protocol import END, ProtocolError, line, parse_request
from memplan.types import PlanJobRequest

__all__ = ["Helper"]

log = logging.getLogger(__name__)

MARK = "memplan:"
LARGEST_REQUEST = 4 << 20
LONGEST_COMMENT = 1024
"""Slurm refuses longer ones."""
LONGEST_MESSAGE = 600
REQUEST_TIMEOUT_S = 2.0
SUBMIT_PATIENCE_S = 0.3
"""In job_submit the controller waits: half a second for everything, the start of the asking
program included."""
MOST_CONNECTIONS = 32
LATE = "memplan has no plan in time; the job is submitted as it is."


class Helper:
    """Answers plugins until it is stopped.

    with Helper(config).running():
        signal.pause()
    """

    def __init__(self, config: Config, inventory: Inventory | None = None) -> None:
        self._config = config
        self._inventory = inventory or Inventory(config.inventory_interval)
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._client = connect(
            config.server,
            retries=config.retries,
            tls=config.tls or None,
            root_certificates=config.tls_ca or None,
            client_certificate=config.tls_cert or None,
            client_key=config.tls_key or None,
            server_name=config.tls_server_name or None,
            token_file=config.token_file or None,
            plaintext_token=config.plaintext_token or None,
            keepalive=config.keepalive or None,
        )
        self._planner: Planner[plans.Plan] = Planner(self._client)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve while the block lasts. Raises OSError where the socket cannot be had."""
        path = Path(self._config.socket)
        _remove_stale(path)
        self._inventory.start()
        jobfile.parse("model: any")  # imports what reading takes before somebody waits for it
        server = _Server(str(path), _handler(self))
        # Whoever may enter the folder may ask, as whoever reaches the service may ask that.
        path.chmod(0o666)
        thread = threading.Thread(target=server.serve_forever, name="socket", daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            path.unlink(missing_ok=True)
            self._inventory.stop()
            self._planner.close()
            self._client.close()

    def serve(self, connection: socket.socket) -> None:
        """Read a request, answer it."""
        if not self._free.acquire(blocking=False):
            connection.sendall(_lines(Decision(messages=("The helper is busy.",))))
            return
        try:
            connection.settimeout(REQUEST_TIMEOUT_S)
            verb, fields = parse_request(_read_line(connection))
            connection.sendall(_lines(*self._answer(verb, fields, connection)))
        except ProtocolError as error:
            log.warning("a request is wrong: %s", error)
        except OSError as error:  # whoever asked has gone
            log.info("a connection ended: %s", error)
        except Exception:  # a defect, of ours or of the service; the job is submitted as it is
            log.exception("a request was not answered")
        finally:
            self._free.release()

    def _answer(
        self, verb: str, fields: Mapping[str, str], connection: socket.socket
    ) -> tuple[Decision, str]:
        """The decision, and the comment by which job_submit finds the job file again."""
        if verb not in ("submit", "check"):
            raise ProtocolError(f"no verb: {verb[:40]!r}")

        def working() -> None:
            connection.sendall(line(["working"]))

        if verb == "check":
            working()
        try:
            request = jobfile.parse(
                fields.get("job", ""), source="The job's description", files=False
            )
        except JobFileError as error:
            return Decision(messages=(f"{error} The job is submitted as it is.",)), ""
        patience = SUBMIT_PATIENCE_S if verb == "submit" else self._config.patience
        decision = self.decide(request, fields, patience, working if verb == "check" else None)
        return decision, _comment(request, fields) if verb == "check" else ""

    def decide(
        self,
        request: PlanJobRequest,
        fields: Mapping[str, str],
        patience_s: float,
        working: Callable[[], None] | None,
    ) -> Decision:
        """What becomes of a job with these fields."""
        config, nodes = self._config, self._inventory.nodes(fields.get("partition", ""))
        here = kinds(nodes, config.gpus, config.features)
        if not here:
            return Decision(messages=("No node with GPUs is known here.",))
        request = replace(request, gpus=())
        make = partial(plans.make, self._client, request, here)
        future = self._planner.plan(plans.key(request, here), make)
        if not self._planner.wait(future, patience_s, working):
            return Decision(messages=(LATE,))
        try:
            plan = future.result()
        except (UnavailableError, DeadlineExceededError, CancelledError):
            return Decision(messages=(LATE,))
        except MemplanError as error:
            return Decision(messages=(f"{error} The job is submitted as it is.",))
        return decide(fields, request.job, plan.judged, plan.answer, plan.accumulation)


def _comment(request: PlanJobRequest, fields: Mapping[str, str]) -> str:
    """The job's comment with its description in it, in one line; empty where that is too long."""
    data = json.loads(jobfile.dump(replace(request, gpus=()), style="json"))
    text = json.dumps(data, separators=(",", ":"))  # ASCII: a comment goes through many hands
    own = fields.get("comment", "").partition(MARK)[0].rstrip()
    comment = f"{own} {MARK}{text}".lstrip()
    return comment if len(comment.encode()) < LONGEST_COMMENT else ""


def _lines(decision: Decision, comment: str = "") -> bytes:
    """The decision as the plugins read it."""
    words = [["message", one_line(text, LONGEST_MESSAGE)] for text in decision.messages]
    if decision.refusal:
        words.append(["refuse", one_line(decision.refusal, LONGEST_MESSAGE)])
    words += [["set", name, value] for name, value in decision.changes.items()]
    words += [["env", name, value] for name, value in decision.environment.items()]
    if decision.note:
        words.append(["note", one_line(decision.note, LONGEST_MESSAGE)])
    if comment:
        words.append(["comment", comment])
    return b"".join(line(one) for one in [*words, [END]])


def _read_line(connection: socket.socket) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        part = connection.recv(65_536)
        if not part or len(data) > LARGEST_REQUEST:
            raise ProtocolError("a request has no end")
        data += part
    return bytes(data)


def _remove_stale(path: Path) -> None:
    """Take away a socket that nobody listens on. Raises OSError where somebody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)
            return
    raise OSError(f"{path}: another helper listens there")


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


def _handler(helper: Helper) -> type[socketserver.BaseRequestHandler]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                helper.serve(self.request)

    return Handler
