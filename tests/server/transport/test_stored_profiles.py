"""Profiles that last, through real servers, their stubs and the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner
from postgresql import PostgreSql
from serving import SOON_S, Served, Starter, estimate, job, wait_until
from sqlalchemy import func, select

from memplan.cli.commands import cli
from memplan.types import DeviceType, MeasuredProfile
from memplan.v1 import planner_pb2 as pb
from memplan.wire import from_proto
from memplan_server.profiles import store as store_module
from memplan_server.profiles.database import PROFILES, Database
from memplan_server.profiles.store import SqlProfileStore

CODE = grpc.StatusCode
MIB = 1 << 20


@pytest.fixture
def shared(store_url: str | None) -> dict[str, Any]:
    """Settings of servers that have one database; without a URL the data directory says which."""
    return {} if store_url is None else {"profile_store_url": store_url}


def profile(served: Served, name: str = "ok", batch_size: int = 3, **fields: Any) -> Any:
    request = pb.ProfileMemoryRequest(job=job(name, batch_size), **fields)
    return list(served.stub.ProfileMemory(request, timeout=SOON_S))[-1].profile


def get(served: Served, profile_id: str) -> Any:
    return served.call("GetProfile", pb.GetProfileRequest(profile_id=profile_id)).profile


def listed(served: Served, **fields: Any) -> list[str]:
    answer = served.call("ListProfiles", pb.ListProfilesRequest(**fields))
    return [one.profile_id for one in answer.profiles]


def beside(served: Served, batch_size: int = 3, gpu_type: str = "nvidia-t4") -> Any:
    """The profile beside an estimate; None without."""
    request = estimate("ok", batch_size)
    request.gpu_type = gpu_type
    answer = served.call("EstimateMemory", request)
    assert answer.estimate.device_used_bytes > 0
    return answer.profile if answer.HasField("profile") else None


def on_gpu(found: Any, **fields: Any) -> MeasuredProfile:
    """The same job measured on a GPU, as another server stores it."""
    measured: MeasuredProfile = from_proto(found)
    return replace(
        measured,
        **{"profile_id": "", "device_type": DeviceType.CUDA, "gpu_type": "nvidia-t4"} | fields,
    )


def test_what_is_measured_is_stored(start: Starter, shared: dict[str, Any]) -> None:
    served = start(**shared)
    found = profile(served)
    assert found.profile_id
    assert found.curve
    assert get(served, found.profile_id) == found
    (in_list,) = served.call("ListProfiles", pb.ListProfilesRequest()).profiles
    assert not in_list.curve
    in_list.curve.MergeFrom(found.curve)
    assert in_list == found
    served.server.stop()
    again = start(**shared)
    assert get(again, found.profile_id) == found
    assert again.metric("memplan_profile_store_up") == 1


def test_wrong_names_and_filters_are_refused(fake: Served) -> None:
    unknown = fake.refusal("GetProfile", pb.GetProfileRequest(profile_id="nothing"))
    assert unknown.code is CODE.NOT_FOUND
    assert unknown.details["ErrorInfo"].metadata["kind"] == "profile"
    for name in ("", "\0", "x" * 201):
        request = pb.GetProfileRequest(profile_id=name)
        assert fake.refusal("GetProfile", request).fields == {"profile_id"}
    wrong = pb.ListProfilesRequest(page_size=1001, job_digest="\n")
    assert fake.refusal("ListProfiles", wrong).fields == {"page_size", "job_digest"}
    missing = fake.refusal("ListProfiles", pb.ListProfilesRequest(gpu_type="nvidia-a100"))
    assert missing.code is CODE.NOT_FOUND
    assert "nvidia-a100-80gb" in missing.details["ErrorInfo"].metadata["nearest"]
    assert listed(fake, gpu_type="Tesla T4") == []


def test_listings_are_paged_while_profiles_are_added(
    start: Starter, shared: dict[str, Any]
) -> None:
    served = start(**shared)
    kept = [profile(served, batch_size=size) for size in (1, 2, 3)]
    found, token = [], ""
    while not found or token:
        answer = served.call("ListProfiles", pb.ListProfilesRequest(page_size=1, page_token=token))
        found += [one.profile_id for one in answer.profiles]
        token = answer.next_page_token
        profile(served, batch_size=4)
    assert found == [one.profile_id for one in reversed(kept)]
    assert len(listed(served)) == 6  # what was asked before is not answered again
    assert len(listed(served, job_digest=kept[0].job_digest)) == 6
    assert listed(served, job_digest="other") == []


def test_page_tokens_are_those_that_were_given(fake: Served) -> None:
    for size in (1, 2):
        profile(fake, batch_size=size)
    first = fake.call("ListProfiles", pb.ListProfilesRequest(page_size=1))
    for wrong in (
        pb.ListProfilesRequest(page_token="nonsense"),
        pb.ListProfilesRequest(page_token=first.next_page_token, gpu_type="nvidia-t4"),
    ):
        assert fake.refusal("ListProfiles", wrong).fields == {"page_token"}


def test_estimates_say_what_was_measured(start: Starter, shared: dict[str, Any]) -> None:
    served = start(**shared)
    assert beside(served) is None
    first = profile(served)
    found = beside(served)  # the same request as before: what was kept holds no longer
    assert (found.profile_id, len(found.curve)) == (first.profile_id, 0)
    assert beside(served, batch_size=4) is None
    assert profile(served).profile_id == beside(served).profile_id != first.profile_id
    assert beside(served, gpu_type="nvidia-h200").device_type == pb.DEVICE_TYPE_CPU
    planned = served.call("PlanJob", pb.PlanJobRequest(job=job("ok", 3)))
    assert planned.profile == beside(served)
    hits = 'memplan_cache_requests_total{cache="answer",result="hit"}'
    before = served.metric(hits)
    assert beside(served)
    assert served.metric(hits) == before + 1


def test_what_another_server_stores_is_seen_soon(
    start: Starter, shared: dict[str, Any], data_dir: Path, store_url: str | None
) -> None:
    first = start(**shared)
    # SQLite: the same file; PostgreSQL: the same database.
    second = start(**shared, **({"data_dir": data_dir / "second"} if store_url else {}))
    assert beside(second) is None
    measured = profile(first)
    assert get(second, measured.profile_id) == measured
    wait_until(lambda: beside(second))
    database = Database.of_server(store_url) if store_url else Database.of_file(data_dir)
    third = SqlProfileStore(database, most=9)
    on_t4 = third.add(on_gpu(measured))
    third.close()
    for served in (first, second):
        wait_until(lambda served=served: beside(served).profile_id == on_t4.profile_id)
        assert beside(served, gpu_type="nvidia-h200").profile_id == measured.profile_id
        assert listed(served, gpu_type="nvidia-t4") == [on_t4.profile_id]
        assert len(listed(served)) == 2


def test_a_forwarded_profile_has_one_id(
    start: Starter, shared: dict[str, Any], data_dir: Path, store_url: str | None
) -> None:
    profiler = start(data_dir=data_dir / "profiler", **shared)
    target = (f"127.0.0.1:{profiler.server.port}",)
    apart = start(data_dir=data_dir / "apart", profiler=target)
    found = profile(apart)
    assert get(profiler, found.profile_id) == get(apart, found.profile_id) == found
    same = start(data_dir=data_dir / "profiler", profiler=target, **shared)
    second = profile(same)
    assert listed(same) == listed(profiler) == [second.profile_id, found.profile_id]
    assert listed(apart) == [found.profile_id]


SERVERS = 4
PREPARE = """
import sys
from pathlib import Path
from memplan_server.profiles.setup import make_profile_store
from memplan_server.settings import Settings
url = sys.argv[2] or None
settings = Settings(data_dir=Path(sys.argv[1]), profile_store_url=url)
sys.stdin.readline()
store = make_profile_store(settings)
print(store.available)
store.close()
"""


def test_several_start_at_once_on_an_empty_database(data_dir: Path, store_url: str | None) -> None:
    command = [sys.executable, "-c", PREPARE, str(data_dir), store_url or ""]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(SERVERS)
    ]
    with ThreadPoolExecutor(SERVERS) as pool:
        outputs = list(pool.map(lambda p: p.communicate("go\n", timeout=SOON_S), processes))
    assert outputs == [("True\n", "")] * SERVERS
    database = Database.of_server(store_url) if store_url else Database.of_file(data_dir)
    with database.reading() as connection:
        assert connection.scalar(select(func.count()).select_from(PROFILES)) == 0
    database.close()


@pytest.mark.integration
def test_a_database_that_is_away_costs_nothing_but_what_it_holds(
    start: Starter, postgresql: PostgreSql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "RETRY_S", 0.1)
    served = start(profile_store_url=postgresql.new_database())
    kept = profile(served)
    postgresql.kill()
    try:
        measured = profile(served, batch_size=5)
        assert measured.peak_allocated_bytes == 5 * MIB
        assert measured.profile_id == ""
        assert beside(served, batch_size=6) is None
        for method, request in (
            ("GetProfile", pb.GetProfileRequest(profile_id=kept.profile_id)),
            ("ListProfiles", pb.ListProfilesRequest()),
        ):
            refused = served.refusal(method, request)
            assert refused.code is CODE.UNAVAILABLE
            assert "does not answer" in refused.message
            assert refused.details["ErrorInfo"].reason == "NO_PROFILE_STORE"
        assert served.metric("memplan_profile_store_up") == 0
    finally:
        postgresql.start()
    served.wait_for("memplan_profile_store_up")
    assert get(served, kept.profile_id) == kept
    assert beside(served).profile_id == kept.profile_id
    again = profile(served, batch_size=6)
    assert beside(served, batch_size=6).profile_id == again.profile_id


def test_a_server_starts_without_its_database(
    start: Starter, caplog: pytest.LogCaptureFixture
) -> None:
    served = start(profile_store_url="postgresql://me:correct-horse@127.0.0.1:1/none")
    assert profile(served).profile_id == ""
    assert served.refusal("ListProfiles", pb.ListProfilesRequest()).code is CODE.UNAVAILABLE
    assert "out of reach" in caplog.text
    assert "correct-horse" not in caplog.text


def test_the_number_kept_is_bounded(start: Starter, shared: dict[str, Any]) -> None:
    served = start(profiles_kept=2, **shared)
    kept = [profile(served, batch_size=size).profile_id for size in (1, 2, 3)]
    assert listed(served) == [kept[2], kept[1]]


def test_the_command_lists_shows_and_exports(
    start: Starter, shared: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = start(**shared)
    first, second = profile(served, batch_size=2), profile(served, batch_size=3)
    monkeypatch.setenv("MEMPLAN_SERVER", f"127.0.0.1:{served.server.port}")
    monkeypatch.setenv("COLUMNS", "120")

    def run(line: str) -> str:
        result = CliRunner().invoke(cli, line.split())
        assert result.exit_code == 0, result.output
        return result.stdout

    rows = run("profiles list").splitlines()[1:]
    assert [row.split()[0] for row in rows] == [second.profile_id, first.profile_id]
    assert "fake/ok" in rows[0]
    assert len(json.loads(run("profiles list --limit 1 --json"))["profiles"]) == 1
    shown = run(f"profiles show {first.profile_id}")
    assert "batch 2" in shown
    assert first.job_digest in shown.replace("\n", "").replace(" ", "")
    assert json.loads(run(f"profiles show {first.profile_id} --json"))["curve"]
    lines = run(f"profiles export --job {first.job_digest}").splitlines()
    assert [json.loads(line)["profile_id"] for line in lines] == [
        second.profile_id,
        first.profile_id,
    ]
    curves = run("profiles export --curves").splitlines()
    assert all(json.loads(line)["curve"] for line in curves)
    missing = CliRunner().invoke(cli, ["profiles", "show", "nothing"])
    assert missing.exit_code == 2
    assert "memplan profiles list" in missing.stderr
    estimated = json.loads(run("estimate fake/ok --batch-size 2 --gpu nvidia-t4 --json"))
    assert estimated["profile"]["profile_id"] == first.profile_id
