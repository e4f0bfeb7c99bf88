"""A Prometheus of Debian's package that scrapes one server."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

SOON_S = 60.0


class Prometheus:
    """Its HTTP API."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, **parameters: str) -> Any:
        """The data of an answer. Raises ValueError with its error."""
        url = f"http://{self.address}/api/v1/{path}?{urlencode(parameters)}"
        try:
            with urlopen(url, timeout=SOON_S) as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            raise ValueError(f"{parameters}: {error.read().decode()}") from None

    def query(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each sample of an instant vector."""
        found = self.get("query", query=query)
        assert found["resultType"] == "vector"
        return [(sample["metric"], float(sample["value"][1])) for sample in found["result"]]

    def by(self, label: str, query: str) -> dict[str, float]:
        """The values by one label, without samples that lack it."""
        return {labels[label]: value for labels, value in self.query(query) if label in labels}

    def wait_for(self, query: str) -> None:
        """Wait until there is a sample."""
        deadline = time.monotonic() + SOON_S
        while not self._has(query):
            assert time.monotonic() < deadline, query
            time.sleep(0.2)

    def _has(self, query: str) -> bool:
        try:
            return bool(self.query(query))
        except (URLError, ConnectionError):
            return False  # it has not started yet


@contextmanager
def scraping(target: str, rules: Path, folder: Path) -> Iterator[Prometheus]:
    """One that scrapes `target` each second as the job memplan, with these rules."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "memplan", "static_configs": [{"targets": [target]}]}],
    }
    file = folder / "prometheus.yaml"
    file.write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={file}", f"--web.listen-address={address}"]
    command += [f"--storage.tsdb.path={folder / 'tsdb'}", "--log.level=error"]
    process = subprocess.Popen(command)
    try:
        prometheus = Prometheus(address)
        prometheus.wait_for("up == 1")
        yield prometheus
    finally:
        process.terminate()
        process.wait(SOON_S)
