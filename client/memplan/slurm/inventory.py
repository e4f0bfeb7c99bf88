"""Which GPUs the cluster has: the nodes as `sinfo` lists them.

`sinfo` is asked beside the submissions, never in one: within job_submit the controller holds the
locks that it would need to answer.
"""

from __future__ import annotations

import logging
import re
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Inventory", "Kind", "Node", "kinds", "parse_nodes"]

log = logging.getLogger(__name__)

COMMAND = ("sinfo", "--noheader", "--all", "--Node", "--format=%N|%P|%G|%f")
TIMEOUT_S = 10.0
_GPU = re.compile(r"gpu(?::(?P<type>[^:()]+?))??(?::(?P<count>\d+))?(?:\(.*\))?")
_COMMA = re.compile(r",(?![^(]*\))")
"""Commas that are not within parentheses, as in `gpu:a100:4(S:0-1,3)`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A node with GPUs."""

    name: str
    partitions: frozenset[str]
    gres_types: tuple[str, ...]
    """Types of its GPUs in slurm.conf; "" is one without a type."""
    features: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """GPUs of a cluster that are alike."""

    gres_type: str
    gpu_type: str
    """What they are in memplan's catalog; empty where it is not known."""
    nodes: tuple[Node, ...]


def parse_nodes(text: str) -> tuple[tuple[Node, ...], str]:
    """The nodes with GPUs, and the default partition ("" without one)."""
    found: dict[str, tuple[set[str], str, str]] = {}
    default = ""
    for row in text.splitlines():
        name, partition, gres, features = (cell.strip() for cell in row.split("|", 3))
        if partition.endswith("*"):
            partition = default = partition[:-1]
        found.setdefault(name, (set(), gres, features))[0].add(partition)
    nodes = (
        Node(
            name=name,
            partitions=frozenset(partitions),
            gres_types=_gres_types(gres),
            features=frozenset(features.split(",")) - {"(null)", ""},
        )
        for name, (partitions, gres, features) in found.items()
    )
    return tuple(node for node in nodes if node.gres_types), default


def _gres_types(gres: str) -> tuple[str, ...]:
    matches = (_GPU.fullmatch(part) for part in _COMMA.split(gres))
    return tuple(dict.fromkeys(m["type"] or "" for m in matches if m))


def kinds(
    nodes: Iterable[Node], gpus: Mapping[str, str], features: Mapping[str, str]
) -> tuple[Kind, ...]:
    """The GPUs of some nodes by what they are, as the two tables of the configuration say.

    A GRES type that no table has is taken for a name of the catalog: those that Slurm finds itself
    (AutoDetect=nvml) are.
    """
    found: dict[tuple[str, str], list[Node]] = {}
    for node in nodes:
        by_feature = next((features[f] for f in sorted(node.features) if f in features), "")
        for gres_type in node.gres_types:
            gpu_type = gpus.get(gres_type) or by_feature or gres_type
            found.setdefault((gres_type, gpu_type), []).append(node)
    return tuple(
        Kind(gres_type=gres_type, gpu_type=gpu_type, nodes=tuple(of))
        for (gres_type, gpu_type), of in found.items()
    )


class Inventory:
    """The nodes as they were a short time ago."""

    def __init__(self, interval_s: float, command: Sequence[str] = COMMAND) -> None:
        self._interval_s = interval_s
        self._command = command
        self._nodes: tuple[Node, ...] = ()
        self._default = ""
        self._stopped = threading.Event()

    def start(self) -> None:
        """Look now, and again and again from a thread of its own."""
        self.refresh()
        threading.Thread(target=self._keep_fresh, name="inventory", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def refresh(self) -> None:
        """Look now; where that fails, what was seen last stays."""
        try:
            done = subprocess.run(
                self._command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True
            )
            self._nodes, self._default = parse_nodes(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            log.warning("the nodes could not be listed: %s", error)

    def nodes(self, partitions: str) -> tuple[Node, ...]:
        """The nodes with GPUs of some partitions, `a,b`; of the default one for ""."""
        wanted = set(filter(None, (partitions or self._default).split(",")))
        return tuple(n for n in self._nodes if not wanted or n.partitions & wanted)

    def _keep_fresh(self) -> None:
        # A controller that starts together with the helper answers a little later.
        while not self._stopped.wait(self._interval_s if self._nodes else min(1, self._interval_s)):
            self.refresh()
