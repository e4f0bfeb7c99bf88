"""The file of tenants: what it may say, whose tokens are whose, what happens when it changes."""

from __future__ import annotations

import hashlib
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from memplan_server.errors import Unauthenticated
from memplan_server.tenancy import Tenant, Tenants, TenantsError
from memplan_server.tenancy.command import main as make_token

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def section(name: str, *tokens: str, more: str = "") -> str:
    entries = ", ".join(f'{{ sha256 = "{digest(token)}" }}' for token in tokens)
    return f"[{name}]\ntokens = [{entries}]\n{more}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tenants.toml"
    path.write_text(
        section("team-a", "one", "two", more="requests_per_minute = 600")
        + section("team-b", "three", more="measuring_seconds_per_hour = 0")
    )
    return path


def test_tokens_say_who_asks(file: Path) -> None:
    tenants = Tenants(file)
    assert [tenants.of_token(t).name for t in ("one", "two", "three")] == ["team-a"] * 2 + [
        "team-b"
    ]
    one = tenants.of_token("one")
    assert (one.requests_per_minute, one.concurrent_requests) == (600, None)
    assert tenants.of_token("three").measuring_seconds_per_hour == 0
    assert tenants.named("team-a") == one
    assert tenants.named("team-c") is None


@pytest.mark.parametrize("token", ["", "four", "One", "one ", digest("one")])
def test_strangers_are_strangers(file: Path, token: str) -> None:
    with pytest.raises(Unauthenticated) as raised:
        Tenants(file).of_token(token)
    assert raised.value.reason == "UNKNOWN_TOKEN"


def test_tokens_expire(file: Path) -> None:
    file.write_text(
        f'[a]\ntokens = [{{ sha256 = "{digest("one")}", expires = 2026-06-01T14:00:00+02:00 }}]'
    )
    assert Tenants(file, lambda: NOON - timedelta(seconds=1)).of_token("one").name == "a"
    with pytest.raises(Unauthenticated, match="2026-06-01 12:00 UTC") as raised:
        Tenants(file, lambda: NOON).of_token("one")
    assert raised.value.reason == "TOKEN_EXPIRED"


def test_changes_are_taken_up(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    tenants = Tenants(file)
    next_file = file.with_suffix(".next")
    next_file.write_text(section("team-a", "five"))
    os.replace(next_file, file)
    assert tenants.of_token("five") == tenants.named("team-a")
    with pytest.raises(Unauthenticated):
        tenants.of_token("one")
    with caplog.at_level(logging.ERROR):
        for wrong in ("[team-a", "[team-a]\nspeed = 3", ""):
            file.write_text(wrong)
            if wrong:
                assert tenants.of_token("five").name == "team-a"
                assert "tenants.toml" in caplog.text
                caplog.clear()
                tenants.of_token("five")
                assert not caplog.records  # once for each change
    assert tenants.named("team-a") is None  # an empty file is a file without tenants
    file.write_text(section("team-a", "six"))
    assert tenants.of_token("six").name == "team-a"
    file.unlink()
    assert tenants.of_token("six").name == "team-a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 1", r"\[a\]"),
        ("[Team]", "no name"),
        ("[a-]", "no name"),
        (f"[{'x' * 64}]", "no name"),
        ("[a]\nrequest_per_minute = 1", "request_per_minute"),
        ("[a]\nrequests_per_minute = 0", "from 1 to 100,000"),
        ("[a]\nrequests_per_minute = 1.5", "requests_per_minute"),
        ("[a]\nconcurrent_requests = true", "concurrent_requests"),
        ("[a]\nmeasuring_seconds_per_hour = -1", "measuring_seconds_per_hour"),
        ("[a]\ntokens = 'x'", "tokens"),
        ("[a]\ntokens = ['secret']", "sha256"),
        ("[a]\ntokens = [{ sha256 = 'secret' }]", "64"),
        ("[a]\ntokens = [{ sha256 = 'secret', expire = 1 }]", "sha256"),
        (f"[a]\ntokens = [{{ sha256 = '{'0' * 64}', expires = 2027-01-01 }}]", "expires"),
        (f"[a]\ntokens = [{{ sha256 = '{'0' * 64}', expires = 2027-01-01T00:00:00 }}]", "expires"),
        (section("a", "one") + section("b", "one"), "a and b"),
        (section("a", *map(str, range(11))), "up to 10"),
        ("\n".join(f"[t{i}]" for i in range(1001)), "1,001"),
        ("=", "no TOML"),
    ],
)
def test_wrong_files_are_named_with_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "tenants.toml"
    path.write_text(text)
    with pytest.raises(TenantsError, match=said) as raised:
        Tenants(path)
    assert "tenants.toml" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"none\.toml"):
        Tenants(tmp_path / "none.toml")


def test_the_command_makes_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tenants.toml"
    assert make_token(["team-a"]) == make_token(["team-b", "--days", "30"]) == 0
    lines, said = capsys.readouterr()
    path.write_text(lines)
    first, second = (line for line in said.splitlines() if line.startswith("memplan_"))
    assert first not in lines
    assert len(first) > 43
    tenants = Tenants(path)
    assert isinstance(tenants.named("team-a"), Tenant)
    assert (tenants.of_token(first).name, tenants.of_token(second).name) == ("team-a", "team-b")
    later = Tenants(path, lambda: datetime.now(UTC) + timedelta(days=31))
    assert later.of_token(first).name == "team-a"
    with pytest.raises(Unauthenticated, match="expired"):
        later.of_token(second)


@pytest.mark.parametrize("arguments", [[], ["Team"], ["a", "--days", "0"], ["a", "b"]])
def test_the_command_refuses(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        make_token(arguments)
    assert ended.value.code == 2
