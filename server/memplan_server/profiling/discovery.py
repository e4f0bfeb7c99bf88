"""Which servers the targets of `--profiler` are: of a `dns:` target, every address of its name.

    found = Discovery(("dns:///profilers:50051", "gpu-7:50051"), Remote)
    found()     # one for each address that the name has now, and gpu-7

So a headless Service of Kubernetes stands for all its pods, as they come and go.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from memplan_server.profiling.remote import Remote

__all__ = ["Discovery", "addresses"]

log = logging.getLogger(__name__)

KEPT_S = 5.0
"""How long an answer is good for: no longer than a pod takes to become ready."""
SCHEME = "dns:///"


def addresses(target: str) -> list[str]:
    """gRPC targets of all addresses of `dns:///name:port`, of the kind that comes first: a server
    with addresses of both kinds is one. Raises OSError when the name has none."""
    host, _, port = target.removeprefix(SCHEME).rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    first = found[0][0]
    own = dict.fromkeys(str(place[0]) for family, *_, place in found if family == first)
    if first == socket.AF_INET6:
        return [f"ipv6:[{address}]:{port}" for address in own]
    return [f"ipv4:{address}:{port}" for address in own]


@dataclass(kw_only=True)
class Discovery:
    """The servers there are now; called for each profile. Safe to use from several threads."""

    targets: Sequence[str]
    make: Callable[[str, str], Remote]
    """A server from its target, and the name its certificate has to have ("": the target's)."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _known: dict[str, Remote] = field(default_factory=dict)
    _until: float = 0.0

    def __call__(self) -> list[Remote]:
        """One for each server. What is not found again is forgotten; its profiles go on."""
        with self._lock:
            if time.monotonic() >= self._until:
                wanted = {place: name for t in self.targets for place, name in _places(t).items()}
                self._known = {
                    place: self._known.get(place) or self.make(place, name)
                    for place, name in wanted.items()
                }
                self._until = time.monotonic() + KEPT_S
            return list(self._known.values())

    def close(self) -> None:
        """Close all connections."""
        for remote in self._known.values():
            remote.close()


def _places(target: str) -> dict[str, str]:
    """Targets of single servers, and the name that certificates have there."""
    if not target.startswith(SCHEME):
        return {target: ""}
    name = target.removeprefix(SCHEME).rpartition(":")[0]
    try:
        return dict.fromkeys(addresses(target), name)
    except OSError as error:
        log.warning("profiler %s: %s", target, error)
        return {target: ""}  # gRPC says for itself that it is not there
