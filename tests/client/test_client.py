"""The client against a real server with canned answers."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_server import ESTIMATE, PROFILE, FakePlanner, bad_request, plan, serving, stored
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

import memplan
from memplan import (
    AccessDeniedError,
    CancelledError,
    Client,
    DeadlineExceededError,
    DeviceType,
    EstimateMemoryResponse,
    GpuTarget,
    InvalidRequestError,
    LimitExceededError,
    MeasuredProfile,
    MemplanError,
    PlanJobResponse,
    ProfileMemoryRequest,
    ProfileMemoryResponse,
    ProfileProgress,
    ServerError,
    TrainingJob,
    UnavailableError,
    UnknownNameError,
    UnsupportedError,
    Verdict,
    Violation,
    errors,
)

JOB = TrainingJob(micro_batch_size=64)


@pytest.fixture
def client(planner: FakePlanner) -> Any:
    with Client(planner.target, timeout=10) as client:
        yield client


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class TestMethods:
    def test_estimate_memory(self, client: Client, planner: FakePlanner) -> None:
        answer = client.estimate_memory(JOB, gpu_type="nvidia-t4", confidence=0.9)
        assert answer == EstimateMemoryResponse(estimate=ESTIMATE)
        [request] = planner.requests
        assert request == memplan.EstimateMemoryRequest(
            job=JOB, gpu_type="nvidia-t4", confidence=0.9
        )

    def test_recommend_batch_size(self, client: Client, planner: FakePlanner) -> None:
        gpus = ["a", GpuTarget(gpu_type="b", free_bytes=5)]
        [found] = client.recommend_batch_size(JOB, gpus, headroom_fraction=0.0, multiple_of=4)
        assert found.max_batch_size == 170
        [request] = planner.requests
        assert request.gpus == (GpuTarget(gpu_type="a"), GpuTarget(gpu_type="b", free_bytes=5))
        assert (request.headroom_fraction, request.multiple_of) == (0.0, 4)

    def test_plan_accumulation(self, client: Client, planner: FakePlanner) -> None:
        found = client.plan_accumulation(JOB, "a", global_batch_size=1024, data_parallel_size=2)
        assert found.accumulation_steps == 18
        [request] = planner.requests
        assert (request.gpu.gpu_type, request.global_batch_size) == ("a", 1024)
        assert (request.data_parallel_size, request.headroom_fraction) == (2, None)

    def test_every_plan_may_name_its_confidence(self, client: Client, planner: FakePlanner) -> None:
        client.recommend_batch_size(JOB, confidence=0.9)
        client.plan_accumulation(JOB, "a", global_batch_size=8, confidence=0.95)
        client.plan_job(JOB, confidence=0.98)
        client.plan_job(JOB)
        assert [request.confidence for request in planner.requests] == [0.9, 0.95, 0.98, 0.0]

    def test_plan_job(self, client: Client) -> None:
        assert client.plan_job(JOB) == plan(Verdict.FITS, Verdict.DOES_NOT_FIT)

    def test_what_was_measured_comes_along(self, client: Client, planner: FakePlanner) -> None:
        planner.answers["EstimateMemory"] = lambda request: EstimateMemoryResponse(profile=PROFILE)
        planner.answers["PlanJob"] = lambda request: PlanJobResponse(profile=PROFILE)
        assert client.estimate_memory(JOB).profile == PROFILE
        assert client.plan_job(JOB, measurement_budget=timedelta(seconds=9)).profile == PROFILE
        assert planner.requests[1].measurement_budget == timedelta(seconds=9)

    def test_one_gpu_given_as_text_is_refused(self, client: Client) -> None:
        with pytest.raises(TypeError, match=r"\['nvidia-t4'\]"):
            client.plan_job(JOB, "nvidia-t4")

    def test_listings_walk_over_pages(self, client: Client, planner: FakePlanner) -> None:
        names = [gpu.name for gpu in client.list_gpu_types("gpu", page_size=2)]
        assert names == [f"gpu-{i}" for i in range(5)]
        assert [r.page_token for r in planner.requests] == ["", "2", "4"]
        assert {r.filter for r in planner.requests} == {"gpu"}
        assert [m.name for m in client.list_models()] == ["torchvision/resnet50"]

    def test_listings_fetch_no_more_than_needed(self, client: Client, planner: FakePlanner) -> None:
        next(client.list_gpu_types(page_size=2))
        assert len(planner.requests) == 1

    def test_profile_memory(self, client: Client, planner: FakePlanner) -> None:
        events = [
            ProfileMemoryResponse(progress=ProfileProgress(step=1)),
            ProfileMemoryResponse(profile=MeasuredProfile(device_name="x")),
        ]
        planner.answers["ProfileMemory"] = lambda request: iter(events)
        wanted: dict[str, Any] = {
            "step_count": 7,
            "warmup_step_count": 1,
            "memory_limit_bytes": 1 << 33,
            "time_limit": timedelta(seconds=5),
            "device_type": DeviceType.CUDA,
            "gpu_type": "nvidia-t4",
            "wait_for_gpu": True,
            "find_batch_size": True,
        }
        assert list(client.profile_memory(JOB, **wanted)) == events
        assert planner.requests == [ProfileMemoryRequest(job=JOB, **wanted)]

    def test_a_profile_that_nobody_reads_on_is_cancelled(
        self, client: Client, planner: FakePlanner
    ) -> None:
        gone = threading.Event()

        def events(request: Any) -> Any:
            try:
                while True:
                    yield ProfileMemoryResponse(progress=ProfileProgress(step=1))
                    time.sleep(0.01)
            finally:
                gone.set()

        planner.answers["ProfileMemory"] = events
        stream = client.profile_memory(JOB)
        next(stream)
        stream.close()
        assert gone.wait(5)

    def test_no_profiler(self, client: Client) -> None:
        with pytest.raises(UnsupportedError):
            next(client.profile_memory(JOB))

    def test_get_profile(self, client: Client, planner: FakePlanner) -> None:
        assert client.get_profile("p-1") == stored("p-1")
        assert planner.requests[0].profile_id == "p-1"

    def test_list_profiles(self, client: Client, planner: FakePlanner) -> None:
        found = client.list_profiles(gpu_type="t4", job_digest="d", page_size=2)
        assert [p.profile_id for p in found] == ["p-5", "p-4", "p-3", "p-2", "p-1"]
        assert [r.page_token for r in planner.requests] == ["", "2", "4"]
        assert {(r.gpu_type, r.job_digest) for r in planner.requests} == {("t4", "d")}


class TestDeadlines:
    def test_every_call_has_one(self, client: Client, planner: FakePlanner) -> None:
        planner.answers["ProfileMemory"] = lambda request: iter(())
        client.plan_job(JOB)
        list(client.list_models())
        list(client.profile_memory(JOB))
        client.plan_job(JOB, timeout=2)
        assert all(9 < seconds < 11 for seconds in planner.seconds_left[:2])
        assert 69 < planner.seconds_left[2] < 71
        assert 1 < planner.seconds_left[3] < 3

    def test_time_to_measure_comes_on_top(self, client: Client, planner: FakePlanner) -> None:
        planner.answers["ProfileMemory"] = lambda request: iter(())
        client.plan_job(JOB, measurement_budget=timedelta(seconds=100))
        list(client.profile_memory(JOB, time_limit=timedelta(seconds=5)))
        client.plan_job(JOB, measurement_budget=timedelta(seconds=100), timeout=2)
        # above 100 s gRPC rounds up to whole seconds
        assert planner.seconds_left == pytest.approx([110, 15, 2], abs=1.1)

    def test_it_is_kept(self, client: Client, planner: FakePlanner) -> None:
        planner.answers["PlanJob"] = lambda request: time.sleep(0.5) or plan(Verdict.FITS)
        with pytest.raises(DeadlineExceededError) as caught:
            client.plan_job(JOB, timeout=0.1)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.code == "DEADLINE_EXCEEDED"


class TestErrors:
    @pytest.mark.parametrize(
        "code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK], ids=lambda c: c.name
    )
    def test_every_code_has_an_exception(self, planner: FakePlanner, code: Any) -> None:
        planner.fail("PlanJob", code)
        with (
            Client(planner.target, retries=0) as client,
            pytest.raises(errors.BY_CODE[code.name], match="told so") as caught,
        ):
            client.plan_job(JOB)
        assert type(caught.value) is errors.BY_CODE[code.name]
        assert caught.value.code == code.name

    def test_violations(self, client: Client, planner: FakePlanner) -> None:
        details = bad_request(job__precision="is odd", gpus="are many")
        planner.fail("PlanJob", grpc.StatusCode.INVALID_ARGUMENT, details)
        with pytest.raises(InvalidRequestError) as caught:
            client.plan_job(JOB)
        assert caught.value.violations == (
            Violation("job.precision", "is odd"),
            Violation("gpus", "are many"),
        )

    def test_what_cannot_be_sent_is_reported_alike(
        self, client: Client, planner: FakePlanner
    ) -> None:
        job = TrainingJob(micro_batch_size=2**63, precision="fp99")  # type: ignore[arg-type]
        with pytest.raises(InvalidRequestError) as caught:
            client.plan_job(job)
        fields = [v.field for v in caught.value.violations]
        assert fields == ["job.precision", "job.micro_batch_size"]
        assert planner.requests == []

    def test_unknown_names(self, client: Client, planner: FakePlanner) -> None:
        info = error_details_pb2.ErrorInfo(reason="UNKNOWN_NAME", domain="memplan")
        info.metadata.update(kind="model", name="resnet", nearest="timm/a, timm/b")
        planner.fail("PlanJob", grpc.StatusCode.NOT_FOUND, info)
        with pytest.raises(UnknownNameError) as caught:
            client.plan_job(JOB)
        error = caught.value
        assert (error.kind, error.name, error.nearest) == ("model", "resnet", ("timm/a", "timm/b"))

    def test_retry_after(self, client: Client, planner: FakePlanner) -> None:
        details = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))
        planner.fail("PlanJob", grpc.StatusCode.RESOURCE_EXHAUSTED, details)
        with pytest.raises(LimitExceededError) as caught:
            client.plan_job(JOB)
        assert caught.value.retry_after == 1.5
        assert len(planner.requests) == 1

    def test_whether_it_is_the_server_that_is_unavailable(self, planner: FakePlanner) -> None:
        with Client(planner.target, retries=0) as client:
            info = error_details_pb2.ErrorInfo(reason="UNREACHABLE", domain="memplan")
            planner.fail("PlanJob", grpc.StatusCode.UNAVAILABLE, info)
            with pytest.raises(UnavailableError) as caught:
                client.plan_job(JOB)
            assert caught.value.answered
        with (
            Client(f"127.0.0.1:{free_port()}", retries=0) as client,
            pytest.raises(UnavailableError) as caught,
        ):
            client.plan_job(JOB)
        assert not caught.value.answered

    def test_incidents(self, client: Client, planner: FakePlanner) -> None:
        details = error_details_pb2.RequestInfo(request_id="abc")
        planner.fail("PlanJob", grpc.StatusCode.INTERNAL, details)
        with pytest.raises(ServerError) as caught:
            client.plan_job(JOB)
        assert caught.value.incident_id == "abc"

    def test_answers_of_newer_servers(self, client: Client, planner: FakePlanner) -> None:
        def answer(request: Any) -> Any:
            return plan(Verdict.FITS)

        planner.answers["PlanJob"] = answer
        original = planner._answer

        def newer(method: str, message: Any, context: Any) -> Any:
            response = original(method, message, context)
            response.placements[0].verdict = 77
            return response

        planner._answer = newer  # type: ignore[method-assign]
        with pytest.raises(ServerError, match=r"placements\[0\].verdict.*upgrade memplan"):
            client.plan_job(JOB)

    def test_a_closed_client_makes_no_calls(self, planner: FakePlanner) -> None:
        with Client(planner.target) as client:
            pass
        with pytest.raises(ValueError, match="closed"):
            client.plan_job(JOB)

    def test_closing_ends_calls_under_way(self, client: Client, planner: FakePlanner) -> None:
        entered = threading.Event()

        def answer(request: Any) -> Any:
            entered.set()
            time.sleep(0.5)
            return plan(Verdict.FITS)

        planner.answers["PlanJob"] = answer
        threading.Thread(target=lambda: entered.wait(5) and client.close()).start()
        with pytest.raises(CancelledError):
            client.plan_job(JOB)

    def test_every_exception_has_one_base(self) -> None:
        classes = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]
        assert all(issubclass(cls, MemplanError) for cls in classes)
        assert set(errors.BY_CODE) == {c.name for c in grpc.StatusCode} - {"OK"}
        assert issubclass(AccessDeniedError, MemplanError)


class TestRetries:
    @pytest.mark.parametrize("code", ["UNAVAILABLE", "CANCELLED"])
    def test_what_no_server_finished_is_tried_again(
        self, client: Client, planner: FakePlanner, code: str
    ) -> None:
        good = planner.answers["PlanJob"]
        planner.fail("PlanJob", grpc.StatusCode[code])
        bad = planner.answers["PlanJob"]
        planner.answers["PlanJob"] = lambda r: (bad if len(planner.requests) < 3 else good)(r)
        assert client.plan_job(JOB).placements
        assert len(planner.requests) == 3

    def test_not_for_ever(self, client: Client, planner: FakePlanner) -> None:
        planner.fail("PlanJob", grpc.StatusCode.UNAVAILABLE)
        with pytest.raises(UnavailableError):
            client.plan_job(JOB)
        assert len(planner.requests) == 4

    @pytest.mark.parametrize("code", ["INTERNAL", "RESOURCE_EXHAUSTED", "ABORTED", "UNKNOWN"])
    def test_nothing_else_is(self, client: Client, planner: FakePlanner, code: str) -> None:
        planner.fail("PlanJob", grpc.StatusCode[code])
        with pytest.raises(MemplanError):
            client.plan_job(JOB)
        assert len(planner.requests) == 1

    def test_nobody_listens(self) -> None:
        target = f"127.0.0.1:{free_port()}"
        with Client(target, retries=1) as client, pytest.raises(UnavailableError) as caught:
            client.plan_job(JOB)
        assert isinstance(caught.value, ConnectionError)

    def test_several_servers_take_turns(self) -> None:
        with serving(FakePlanner()) as one, serving(FakePlanner()) as two:
            with Client(f"ipv4:{one.target},{two.target}") as client:
                deadline = time.monotonic() + 10
                while not (one.requests and two.requests) and time.monotonic() < deadline:
                    client.plan_job(JOB)
            assert one.requests
            assert two.requests


class TestSettings:
    def test_target_from_the_environment(
        self, planner: FakePlanner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MEMPLAN_SERVER", planner.target)
        with Client() as client:
            assert client.target == planner.target
            assert client.plan_job(JOB).placements
        monkeypatch.delenv("MEMPLAN_SERVER")
        with Client() as client:
            assert client.target == "localhost:50051"

    @pytest.mark.parametrize(
        "arguments",
        [{"timeout": 0}, {"timeout": float("nan")}, {"retries": 5}, {"client_key": "key.pem"}],
    )
    def test_impossible_arguments(self, arguments: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(arguments))):
            Client(**arguments)

    def test_missing_certificate(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            Client(root_certificates=tmp_path / "ca.pem")

    def test_tls(self, tmp_path: Path) -> None:
        key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
        command = (
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
            f"-keyout {key} -out {certificate} -subj /CN=localhost "
            "-addext subjectAltName=DNS:localhost"
        )
        try:
            subprocess.run(command.split(), check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("openssl is not installed")
        pair = [(key.read_bytes(), certificate.read_bytes())]
        credentials = grpc.ssl_server_credentials(pair)
        with serving(FakePlanner(), credentials=credentials) as planner:
            with Client(planner.target, root_certificates=certificate) as client:
                assert client.plan_job(JOB).placements
            with (
                Client(planner.target, tls=True, retries=0) as stranger,
                pytest.raises(UnavailableError),
            ):
                stranger.plan_job(JOB)


class TestPackage:
    def test_public_names_are_frozen(self) -> None:
        own = {
            "Client",
            "capture",
            "capture_job",
            "describe_optimizer",
            "errors",
            "model_from_config",
            "types",
        }
        exceptions = {
            "AccessDeniedError",
            "CancelledError",
            "CaptureError",
            "DeadlineExceededError",
            "InvalidRequestError",
            "JobFileError",
            "LimitExceededError",
            "MemplanError",
            "ServerError",
            "UnavailableError",
            "UnknownNameError",
            "UnsupportedError",
            "Violation",
        }
        assert set(errors.__all__) == exceptions
        assert set(memplan.__all__) == own | exceptions | set(memplan.types.__all__)
        assert len(memplan.__all__) == len(set(memplan.__all__))
        assert all(hasattr(memplan, name) for name in memplan.__all__)
        with pytest.raises(AttributeError, match="nothing"):
            _ = memplan.nothing

    def test_public_methods_are_frozen(self) -> None:
        assert [name for name in vars(Client) if not name.startswith("_")] == [
            "target",
            "close",
            "estimate_memory",
            "recommend_batch_size",
            "plan_accumulation",
            "plan_job",
            "plan_module",
            "profile_memory",
            "get_profile",
            "list_profiles",
            "list_gpu_types",
            "list_models",
        ]

    def test_importing_is_light(self) -> None:
        code = (
            "import sys, memplan; heavy = {'torch', 'grpc', 'numpy', 'click', 'rich', 'yaml'};"
            "print(sorted(heavy & sys.modules.keys())); memplan.Client, memplan.wire;"
            "print(sorted(heavy & sys.modules.keys()))"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert result.stdout.splitlines() == ["[]", "['grpc']"]

    def test_importing_is_quick(self) -> None:
        code = (
            "import time; start = time.process_time(); import memplan; memplan.Client;"
            "print(time.process_time() - start)"
        )
        seconds = min(
            float(subprocess.check_output([sys.executable, "-c", code], text=True))
            for _ in range(3)
        )
        assert seconds < 0.25
