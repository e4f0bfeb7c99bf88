"""The GPU catalog: its data, its names, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memplan.types import GpuType
from memplan_server.errors import UnknownName
from memplan_server.gpus.catalog import CatalogError, GpuCatalog
from memplan_server.gpus.libraries import KERNEL_CLASSES, capability, kernel_class

MIB = 1 << 20
CATALOG = GpuCatalog.load()

WANTED = (
    "nvidia-t4",
    "nvidia-v100-16gb",
    "nvidia-v100-32gb",
    "nvidia-p100",
    "nvidia-rtx-3090",
    "nvidia-rtx-4090",
    "nvidia-rtx-5090",
    "nvidia-a10",
    "nvidia-a30",
    "nvidia-a40",
    "nvidia-l4",
    "nvidia-l40s",
    "nvidia-a100-40gb",
    "nvidia-a100-80gb",
    "nvidia-h100-80gb",
    "nvidia-h100-pcie-80gb",
    "nvidia-h100-nvl-94gb",
    "nvidia-h200",
    "nvidia-b200",
    "nvidia-gb200",
    "nvidia-a30-mig-1g.6gb",
    "nvidia-a100-40gb-mig-3g.20gb",
    "nvidia-a100-80gb-mig-1g.10gb",
    "nvidia-h100-80gb-mig-4g.40gb",
    "nvidia-h200-mig-2g.35gb",
    "nvidia-b200-mig-1g.23gb",
)


def test_all_is_sorted_by_name_and_names_are_unique() -> None:
    names = [gpu_type.name for gpu_type in CATALOG.all()]
    assert names == sorted(set(names))


@pytest.mark.parametrize("name", WANTED)
def test_types_that_must_be_there(name: str) -> None:
    assert CATALOG.get(name).name == name


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("Tesla T4", "nvidia-t4"),
        ("Tesla-T4", "nvidia-t4"),
        ("Tesla-T4-SHARED", "nvidia-t4"),
        ("NVIDIA A100-SXM4-40GB", "nvidia-a100-40gb"),
        ("NVIDIA A100 80GB PCIe", "nvidia-a100-80gb"),
        ("NVIDIA-A100-SXM4-80GB", "nvidia-a100-80gb"),
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb"),
        ("NVIDIA H100 PCIe", "nvidia-h100-pcie-80gb"),
        ("NVIDIA GeForce RTX 3090", "nvidia-rtx-3090"),
        ("GeForce RTX 3090", "nvidia-rtx-3090"),
        ("NVIDIA-H100-80GB-HBM3-MIG-3g.40gb", "nvidia-h100-80gb-mig-3g.40gb"),
        ("NVIDIA A100-SXM4-40GB MIG 3g.20gb", "nvidia-a100-40gb-mig-3g.20gb"),
        ("NVIDIA-L40S", "nvidia-l40s"),
        ("l40s", "nvidia-l40s"),
    ],
)
def test_driver_and_node_label_names(alias: str, name: str) -> None:
    assert CATALOG.get(alias).name == name


@given(st.sampled_from(CATALOG.all()), st.data())
def test_every_alias_in_any_case_leads_to_its_type(gpu_type: GpuType, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from((gpu_type.name, *gpu_type.aliases)))
    assert CATALOG.get(name.upper()) == CATALOG.get(name.lower()) == gpu_type


@given(st.sampled_from(CATALOG.all()))
def test_node_labels_are_listed_as_aliases(gpu_type: GpuType) -> None:
    assert {alias.replace(" ", "-") for alias in gpu_type.aliases} <= set(gpu_type.aliases)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("H100", "nvidia-h100-80gb"),
        ("nvidia-a100", "nvidia-a100-40gb"),
        ("nvidia-rtx-3900", "nvidia-rtx-3090"),
        ("nvidia-a100-40g", "nvidia-a100-40gb"),
        ("nvidia-t5", "nvidia-t4"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownName) as caught:
        CATALOG.get(name)
    assert near in caught.value.nearest
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["", "   ", "gpu" * 1000, "\x00", "no such card"])
def test_nonsense_is_refused(name: str) -> None:
    with pytest.raises(UnknownName):
        CATALOG.get(name)


def test_every_number_has_a_source() -> None:
    fields = {"total_bytes", "usable_bytes", "context_bytes", "compute_capability"}
    for gpu_type in CATALOG.all():
        wanted = fields | {"multiprocessor_count"}
        wanted |= {"mig_instance_count"} if gpu_type.mig_parent else set()
        assert set(gpu_type.sources) == wanted, gpu_type.name


def test_slices_are_parts_of_their_gpu() -> None:
    slices = [gpu_type for gpu_type in CATALOG.all() if gpu_type.mig_parent]
    assert {s.mig_parent for s in slices} == {
        "nvidia-a30",
        "nvidia-a100-40gb",
        "nvidia-a100-80gb",
        "nvidia-h100-80gb",
        "nvidia-h100-pcie-80gb",
        "nvidia-h200",
        "nvidia-b200",
    }
    for part in slices:
        whole = CATALOG.get(part.mig_parent)
        assert part.name.startswith(f"{whole.name}-mig-")
        assert part.compute_capability == whole.compute_capability
        assert part.mig_instance_count * part.usable_bytes <= whole.usable_bytes
        assert part.mig_instance_count * part.multiprocessor_count <= whole.multiprocessor_count
        assert part.context_bytes <= whole.context_bytes


def test_the_name_of_a_slice_says_its_memory_rounded_up() -> None:
    for part in CATALOG.all():
        if part.mig_parent:
            nominal_gib = int(part.name.rpartition(".")[2].removesuffix("gb"))
            assert 0.85 * nominal_gib < part.total_bytes / 2**30 <= nominal_gib, part.name


def test_every_type_has_a_kernel_class() -> None:
    assert {kernel_class(capability(g)) for g in CATALOG.all()} == set(KERNEL_CLASSES)


GOOD = """
aliases = ["ACME One"]
total_mib = 1024
usable_mib = 1000
context_mib = 100
compute_capability = "8.0"
multiprocessor_count = 10

[sources]
total_bytes = "seen"
usable_bytes = "seen"
context_bytes = "seen"
compute_capability = "seen"
multiprocessor_count = "seen"
"""


def load(folder: Path, **toml: str) -> GpuCatalog:
    for stem, text in toml.items():
        (folder / f"{stem}.toml").write_text(text)
    return GpuCatalog.load(folder)


def test_a_file_is_all_that_a_new_gpu_takes(tmp_path: Path) -> None:
    (gpu_type,) = load(tmp_path, acme=GOOD).all()
    assert gpu_type.name == "acme"
    assert gpu_type.aliases == ("ACME One", "ACME-One")
    assert (gpu_type.total_bytes, gpu_type.usable_bytes) == (1024 * MIB, 1000 * MIB)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("usable_mib = 1000", "usable_mib = 1025", "not context < usable <= total"),
        ("context_mib = 100", "context_mib = 0", "not context < usable <= total"),
        ("context_mib = 100", "contxt_mib = 100", "contxt_mib"),
        ("context_mib = 100", "", "context_mib is missing"),
        ('"8.0"', '"Ampere"', "compute_capability is not like 8.0"),
        ("multiprocessor_count = 10", "multiprocessor_count = 0", "multiprocessor_count"),
        ('usable_bytes = "seen"', "", "a number has no source"),
        ("aliases", "aliases [", "acme.toml"),
        ("context_mib = 100", 'context_mib = "100"', "not an integer"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    with pytest.raises(CatalogError, match="acme") as caught:
        load(tmp_path, acme=GOOD.replace(old, new, 1))
    assert complaint in str(caught.value)


def test_two_types_cannot_share_a_name(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="acme-one"):
        load(tmp_path, acme=GOOD, other=GOOD)
