"""The objects of Kueue, by the API of the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException

__all__ = ["ApiException", "Cluster", "connect", "now"]

GROUP, VERSION = "kueue.x-k8s.io", "v1beta2"
API_VERSION = f"{GROUP}/{VERSION}"
MANAGER = "memplan-planner"
"""Who owns, by server-side apply, what is written here."""
APPLY = "application/apply-patch+yaml"
WATCH_S = 240
"""Then a watch begins anew with everything that there is."""
CALL_S = 10.0
LONGEST_NOTE = 1000
"""An Event takes 1,024 bytes."""

Object = dict[str, Any]


def connect(kubeconfig: Path | None) -> Cluster:
    """The cluster of a kubeconfig, else the one that this runs in.

    Raises ValueError where there is none.
    """
    settings = client.Configuration()
    settings.retries = 0  # what fails is tried again here, with what is so by then
    try:
        if kubeconfig is not None:
            config.load_kube_config(str(kubeconfig), client_configuration=settings)
        else:
            config.load_incluster_config(client_configuration=settings)
    except config.ConfigException as error:
        raise ValueError(
            f"no cluster: {str(error).rstrip('.')}. Name a file with --kubeconfig."
        ) from error
    return Cluster(client.ApiClient(settings))


def now() -> str:
    """The time as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Cluster:
    """What is read and written. Safe to use from several threads. Raises ApiException."""

    def __init__(self, api: Any) -> None:
        self._objects = client.CustomObjectsApi(api)
        self._events = client.EventsV1Api(api)
        self._watches: set[Any] = set()

    def close(self) -> None:
        """End the watches."""
        for one in tuple(self._watches):
            one.stop()

    def reach(self, plural: str) -> None:
        """Raise what keeps the objects from being listed."""
        self._objects.list_cluster_custom_object(
            GROUP, VERSION, plural, limit=1, _request_timeout=CALL_S
        )

    def watch(self, plural: str) -> Iterator[tuple[str, Object]]:
        """What there is and then what changes, for some minutes: ADDED, MODIFIED or DELETED."""
        watching = watch.Watch()
        self._watches.add(watching)
        try:
            for event in watching.stream(
                self._objects.list_cluster_custom_object,
                GROUP,
                VERSION,
                plural,
                timeout_seconds=WATCH_S,
                _request_timeout=(CALL_S, WATCH_S + CALL_S),
            ):
                if event is not None and event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                    yield event["type"], event["raw_object"]
        finally:
            self._watches.discard(watching)

    def workload(self, namespace: str, name: str) -> Object | None:
        """The Workload as it is now; None where it is gone."""
        try:
            found: Object = self._objects.get_namespaced_custom_object(
                GROUP, VERSION, namespace, "workloads", name, _request_timeout=CALL_S
            )
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return found

    def flavor(self, name: str) -> Object:
        """A ResourceFlavor."""
        found: Object = self._objects.get_cluster_custom_object(
            GROUP, VERSION, "resourceflavors", name, _request_timeout=CALL_S
        )
        return found

    def apply_checks(self, workload: Object, states: Sequence[Object]) -> None:
        """Set the states of checks of a Workload, unless that has changed meanwhile (409).

        A state that was set here before and is not among them is taken away.
        """
        metadata = workload["metadata"]
        body = {
            "apiVersion": API_VERSION,
            "kind": "Workload",
            "metadata": {
                name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion")
            },
            "status": {"admissionChecks": list(states)},
        }
        self._objects.patch_namespaced_custom_object_status(
            GROUP,
            VERSION,
            metadata["namespace"],
            "workloads",
            metadata["name"],
            body,
            field_manager=MANAGER,
            force=True,
            _content_type=APPLY,
            _request_timeout=CALL_S,
        )

    def apply_condition(self, check: Object, condition: Object) -> None:
        """Set a condition of an AdmissionCheck."""
        name = check["metadata"]["name"]
        body = {
            "apiVersion": API_VERSION,
            "kind": "AdmissionCheck",
            "metadata": {"name": name},
            "status": {"conditions": [condition]},
        }
        self._objects.patch_cluster_custom_object_status(
            GROUP,
            VERSION,
            "admissionchecks",
            name,
            body,
            field_manager=MANAGER,
            force=True,
            _content_type=APPLY,
            _request_timeout=CALL_S,
        )

    def tell(self, workload: Object, *, reason: str, note: str, warning: bool) -> None:
        """Events about a Workload and about what it belongs to, the Job that its user knows."""
        for item in (_reference(workload), *_owners(workload)):
            self._event(item, workload["metadata"]["namespace"], reason, note, warning)

    def _event(
        self, item: Mapping[str, str], namespace: str, reason: str, note: str, warning: bool
    ) -> None:
        body = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"generateName": "memplan-", "namespace": namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": "memplan.dev/planner",
            "reportingInstance": MANAGER,
            "action": "Planning",
            "reason": reason,
            "note": note.encode()[:LONGEST_NOTE].decode(errors="ignore"),
            "type": "Warning" if warning else "Normal",
            "regarding": {**item, "namespace": namespace},
        }
        self._events.create_namespaced_event(namespace, body, _request_timeout=CALL_S)


def _reference(workload: Object) -> dict[str, str]:
    metadata = workload["metadata"]
    return {
        "apiVersion": API_VERSION,
        "kind": "Workload",
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


def _owners(workload: Object) -> Sequence[dict[str, str]]:
    owners = workload["metadata"].get("ownerReferences") or []
    return [{name: o[name] for name in ("apiVersion", "kind", "name", "uid")} for o in owners]
