"""Flags, environment variables and defaults say the same; the flag wins."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from memplan_server.settings import Settings, SettingsError

VALUES = {
    "listen": ("0.0.0.0:1", "0.0.0.0:1"),
    "metrics_port": ("9464", 9464),
    "node_name": ("gpu-7", "gpu-7"),
    "data_dir": ("/data", Path("/data")),
    "workers": ("3", 3),
    "worker_memory_limit": ("2 GiB", 2 << 30),
    "job_time_limit": ("1.5", 1.5),
    "call_time_limit": ("60", 60.0),
    "prestart_workers": ("true", True),
    "max_concurrent_calls": ("7", 7),
    "max_request_size": ("512KiB", 512 << 10),
    "answer_cache_size": ("1MiB", 1 << 20),
    "timeline_cache_size": ("1048576", 1 << 20),
    "store_size": ("3gib", 3 << 30),
    "profiler": ("gpu-0:50051, gpu-1:50051", ("gpu-0:50051", "gpu-1:50051")),
    "profile_queue_length": ("5", 5),
    "profile_time_limit": ("300", 300.0),
    "profile_memory_limit": ("4GiB", 4 << 30),
    "profile_store_url": ("postgres://me:pw@host/db", "postgresql://me:pw@host/db"),
    "profiles_kept": ("100000", 100_000),
    "shutdown_delay": ("2.5", 2.5),
    "drain_time": ("5", 5.0),
    "log_level": ("DEBUG", "debug"),
    "log_format": ("json", "json"),
}
FILES = {
    "profiler_ca": "profilers.pem",
    "profiler_token_file": "token",
    "tenants": "tenants.toml",
    "tls_cert": "cert.pem",
    "tls_key": "key.pem",
    "tls_client_ca": "ca.pem",
}


def test_every_setting_is_tried_here() -> None:
    assert {spec.name for spec in fields(Settings)} == set(VALUES) | set(FILES)


def test_flags_and_variables_say_the_same() -> None:
    texts = {name: text for name, (text, _) in VALUES.items()} | FILES
    flags = [f"--{name.replace('_', '-')}={text}" for name, text in texts.items()]
    variables = {f"MEMPLAN_{name.upper()}": text for name, text in texts.items()}
    expected = Settings(
        **{name: value for name, (_, value) in VALUES.items()},  # type: ignore[arg-type]
        **{name: Path(text) for name, text in FILES.items()},  # type: ignore[arg-type]
    )
    assert Settings.parse(flags, {}) == Settings.parse([], variables) == expected
    other = Settings.parse(["--workers", "9"], variables)
    assert other == replace(expected, workers=9)


def test_defaults_and_empty_variables() -> None:
    defaults = Settings.parse([], {"MEMPLAN_WORKERS": "", "MEMPLAN_SERVER": "ignored"})
    assert defaults == Settings()
    assert defaults.listen.startswith("127.0.0.1:")
    assert defaults.metrics_port is None


def test_profilers_may_be_named_one_by_one() -> None:
    flags = ["--profiler", "gpu-0:50051", "--profiler=gpu-1:50051"]
    assert Settings.parse(flags, {}).profiler == ("gpu-0:50051", "gpu-1:50051")


def test_a_truth_needs_no_value_as_a_flag() -> None:
    assert Settings.parse(["--prestart-workers"], {}).prestart_workers
    assert not Settings.parse(["--prestart-workers=no"], {}).prestart_workers


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--listen", "127.0.0.1"),
        ("--listen", "127.0.0.1:99999"),
        ("--listen", ":50051"),
        ("--metrics-port", "65536"),
        ("--metrics-port", "-1"),
        ("--workers", "0"),
        ("--workers", "two"),
        ("--worker-memory-limit", "8GB"),
        ("--worker-memory-limit", "0"),
        ("--job-time-limit", "nan"),
        ("--profiler", "gpu-0:1,,gpu-1:1"),
        ("--job-time-limit", "0"),
        ("--profile-store-url", "mysql://host/db"),
        ("--profile-store-url", "host"),
        ("--profiles-kept", "0"),
        ("--shutdown-delay", "-1"),
        ("--prestart-workers", "maybe"),
        ("--log-level", "loud"),
    ],
)
def test_wrong_values_are_named(flag: str, text: str) -> None:
    with pytest.raises(SettingsError, match=flag):
        Settings.parse([f"{flag}={text}"], {})
    variable = "MEMPLAN" + flag.replace("--", "_", 1).replace("-", "_").upper()
    with pytest.raises(SettingsError, match=variable):
        Settings.parse([], {variable: text})


def test_passwords_are_shown_nowhere() -> None:
    settings = Settings.parse([], {"MEMPLAN_PROFILE_STORE_URL": "postgresql://me:secret@host/db"})
    assert "secret" not in f"{settings!r} {settings}"
    for url in (
        "mysql://me:secret@host/db",
        "postgresql://me:secret@host",
        "postgresql://me:secret@[host/db",
        *(f"postgresql://me:{start}{mark}secret@host/db" for start in ("a", "1") for mark in "/?#"),
    ):
        with pytest.raises(SettingsError) as raised:
            Settings.parse([], {"MEMPLAN_PROFILE_STORE_URL": url})
        assert "MEMPLAN_PROFILE_STORE_URL" in str(raised.value)
        assert "secret" not in str(raised.value)


def test_databases_may_be_reached_through_sockets_and_with_options() -> None:
    for url in ("postgresql:///db?host=/run/postgresql", "postgresql://h:5432/db?sslmode=require"):
        assert Settings.parse([f"--profile-store-url={url}"], {}).profile_store_url == url


def test_a_variable_that_kubernetes_sets_is_recognised() -> None:
    with pytest.raises(SettingsError, match="enableServiceLinks"):
        Settings.parse([], {"MEMPLAN_METRICS_PORT": "tcp://10.0.0.1:9464"})


@pytest.mark.parametrize(
    "flags", [["--tls-cert=c"], ["--tls-key=k"], ["--tls-client-ca=a"]], ids=lambda f: f[0]
)
def test_tls_files_belong_together(flags: list[str]) -> None:
    with pytest.raises(SettingsError, match="--tls-cert and --tls-key"):
        Settings.parse(flags, {})


def test_no_delay_is_a_delay() -> None:
    assert Settings.parse(["--shutdown-delay=0"], {}) == Settings()


def test_a_token_for_profilers_needs_profilers() -> None:
    with pytest.raises(SettingsError, match="--profiler-token-file needs --profiler"):
        Settings.parse(["--profiler-token-file=token"], {})


def test_help_names_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        Settings.parse(["--help"], {})
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for spec in fields(Settings):
        assert f"--{spec.name.replace('_', '-')}" in shown
