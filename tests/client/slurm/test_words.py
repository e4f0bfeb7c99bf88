"""What the helper reads and writes: lines, nodes, requests for GPUs, settings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.slurm.config import Config, ConfigError, load
from memplan.slurm.inventory import Inventory, kinds, parse_nodes
from memplan.slurm.protocol import ProtocolError, line, parse_request
from memplan.slurm.tres import gpu_request, with_type

ROOT = Path(__file__).parents[3]
NAME = st.from_regex(r"[a-z_]{1,30}", fullmatch=True)
TEXT = st.text(st.characters(codec="utf-8"))


@given(st.dictionaries(NAME, TEXT, max_size=4))
def test_words_come_back_as_they_were_and_need_no_quoting(fields: dict[str, str]) -> None:
    data = line(["submit", *(word for pair in fields.items() for word in pair)])
    assert re.fullmatch(rb"[A-Za-z0-9_.%-]+( [A-Za-z0-9_.%-]+)*\n", data)
    assert parse_request(data) == ("submit", fields)


@given(st.binary(max_size=40))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    try:
        verb, fields = parse_request(data)
    except ProtocolError:
        return
    assert parse_request(line([verb, *(w for pair in fields.items() for w in pair)]))


def test_the_asking_program_encodes_like_the_helper() -> None:
    code = f"import runpy; f = runpy.run_path({str(ROOT / 'deploy/slurm/memplan-ask')!r})\n"
    code += "text = ''.join(map(chr, range(300))).encode()\n"
    code += "word = f['encoded'](text)\nassert f['decoded'](word) == text\nprint(word)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert line(["".join(map(chr, range(300)))]).decode() == done.stdout


SINFO = """\
n1|gpu|gpu:a100:4(S:0-1,3),gpu:t4:1,shard:8|fast,gpu_mem_40g
n1|long|gpu:a100:4(S:0-1,3),gpu:t4:1,shard:8|fast,gpu_mem_40g
n2|all*|gpu:2|(null)
n3|all*|(null)|(null)
n4|mig|gpu:a100_3g.20gb:2|mig
"""


def test_nodes_are_read_as_sinfo_writes_them() -> None:
    nodes, default = parse_nodes(SINFO)
    assert default == "all"
    assert [(n.name, n.gres_types) for n in nodes] == [
        ("n1", ("a100", "t4")),
        ("n2", ("",)),
        ("n4", ("a100_3g.20gb",)),
    ]
    assert nodes[0].partitions == {"gpu", "long"}
    assert nodes[1].features == frozenset()


def test_kinds_go_by_type_then_by_feature_then_by_their_own_name() -> None:
    nodes, _ = parse_nodes(SINFO)
    found = kinds(nodes, {"a100": "nvidia-a100-40gb"}, {"gpu_mem_40g": "nvidia-t4"})
    assert [(k.gres_type, k.gpu_type) for k in found] == [
        ("a100", "nvidia-a100-40gb"),
        ("t4", "nvidia-t4"),
        ("", ""),
        ("a100_3g.20gb", "a100_3g.20gb"),
    ]


def test_the_inventory_keeps_what_it_saw_last(tmp_path: Path) -> None:
    listing = tmp_path / "sinfo"
    listing.write_text(SINFO)
    inventory = Inventory(60, ["cat", str(listing)])
    inventory.refresh()
    assert [n.name for n in inventory.nodes("")] == ["n2"]
    assert [n.name for n in inventory.nodes("gpu,mig")] == ["n1", "n4"]
    listing.unlink()
    inventory.refresh()
    assert [n.name for n in inventory.nodes("mig")] == ["n4"]


@pytest.mark.parametrize(
    ("value", "gres_type", "typed"),
    [
        ("gres:gpu:1", "", "gres:gpu:a100:1"),
        ("gres/gpu:2", "", "gres/gpu:a100:2"),
        ("gres/gpu=2", "", "gres/gpu:a100=2"),
        ("gpu", "", "gpu:a100"),
        ("gres:shard:1,gres:gpu:t4:1", "t4", "gres:shard:1,gres:gpu:a100:1"),
        ("gres:gpu:3g.20gb:1", "3g.20gb", "gres:gpu:a100:1"),
    ],
)
def test_requests_for_gpus_get_a_type(value: str, gres_type: str, typed: str) -> None:
    request = gpu_request({"tres_per_job": value})
    assert request is not None
    assert (request.field, request.gres_type) == ("tres_per_job", gres_type)
    assert with_type(request, "a100") == typed


@pytest.mark.parametrize("value", ["", "gres:shard:2", "gres:gpus:1", "cpu=2", "license:gpu_app"])
def test_what_asks_for_no_gpu_is_no_request(value: str) -> None:
    assert gpu_request({"tres_per_node": value}) is None


def test_the_settings_of_the_example_are_settings() -> None:
    config = load(ROOT / "deploy" / "slurm" / "memplan.toml")
    assert config.gpus == {"t4": "nvidia-t4", "a100": "nvidia-a100-40gb"}
    assert config.socket == Config().socket
    assert f'socket = "{config.socket}"' in (ROOT / "deploy/slurm/memplan.lua").read_text()


@pytest.mark.parametrize(
    "text",
    ["sever = 'x'", "patience = 0", "patience = 'long'", "gpus = 'x'", "gpus = {a = 1}", "="],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "memplan.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        load(path)
