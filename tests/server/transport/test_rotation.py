"""An authority and all its certificates are replaced, on both sides, under calls: none fails."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from authority import Authority
from serving import SOON_S, Starter, wait_until

from memplan import Client
from memplan.errors import UnavailableError


def write(path: Path, *authorities: Authority) -> None:
    """Trust these, at once."""
    bundle = b"".join(authority.certificate.read_bytes() for authority in authorities)
    path.with_suffix(".next").write_bytes(bundle)
    os.replace(path.with_suffix(".next"), path)


class Side:
    """The files of a server or a client."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder, self.trusted = folder, folder / "trusted.pem"
        authority.issue(folder)
        write(self.trusted, authority)

    @property
    def of_server(self) -> dict[str, Path]:
        names = ("cert.pem", "key.pem", "trusted.pem")
        keys = ("tls_cert", "tls_key", "tls_client_ca")
        return {key: self.folder / name for key, name in zip(keys, names, strict=True)}

    @property
    def of_client(self) -> dict[str, Path]:
        names = ("cert.pem", "key.pem", "trusted.pem")
        keys = ("client_certificate", "client_key", "root_certificates")
        return {key: self.folder / name for key, name in zip(keys, names, strict=True)}


@contextmanager
def calls(client: Client, failures: list[Exception]) -> Iterator[Callable[[], int]]:
    """Calls from several threads; how many were answered so far."""
    stop, answered = threading.Event(), [0] * 3

    def ask(index: int) -> None:
        while not stop.is_set():
            try:
                next(client.list_gpu_types("t4"))
                answered[index] += 1
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(answered))]
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum(answered)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def lets_in(target: str, files: dict[str, Any]) -> bool:
    with Client(target, **files, retries=0, timeout=SOON_S) as client:
        try:
            return bool(next(client.list_gpu_types("t4")))
        except UnavailableError:
            return False


def test_no_call_fails_while_an_authority_is_replaced(
    start: Starter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Connections end often, so that calls meet every state of the files.
    monkeypatch.setattr("memplan_server.app.CONNECTION_AGE_MS", 200)
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    server, client = Side(tmp_path / "server", old), Side(tmp_path / "client", old)
    left = Side(tmp_path / "left", old)
    served = start(**server.of_server)
    target = f"localhost:{served.server.port}"
    failures: list[Exception] = []
    with Client(target, **client.of_client) as asking, calls(asking, failures) as answered:
        for step in (
            lambda: [write(side.trusted, old, new) for side in (server, client)],
            lambda: [new.issue(side.folder) for side in (server, client)],
            lambda: [write(side.trusted, new) for side in (server, client)],
        ):
            before = answered()
            wait_until(lambda before=before: answered() > before + 50)
            step()
            time.sleep(0.5)
        before = answered()
        wait_until(lambda: answered() > before + 50)
    assert failures == []
    assert lets_in(target, client.of_client)
    assert not lets_in(target, left.of_client)
    trusting = {**client.of_client, "root_certificates": new.certificate}
    assert lets_in(target, trusting)
    stranger = {**left.of_client, "root_certificates": new.certificate}
    assert not lets_in(target, stranger)
