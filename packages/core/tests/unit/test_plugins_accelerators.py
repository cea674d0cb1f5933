"""Devices: how NVIDIA's are found and hidden, and what a node makes of what its managers find."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from umbel import spi
from umbel._plugins import accelerators, nvidia

# As the driver writes it.
INFORMATION = """Model: \t\t {model}
IRQ:   \t\t 135
GPU UUID: \t GPU-5e9a0b1c-0000-1111-2222-3333444455{index:02d}
Video BIOS: \t 96.00.a5.00.01
Bus Type: \t PCIe
Device Minor: \t {index}
GPU Excluded:\t No
"""


def proc_dir(folder: Path, *models: str) -> str:
    for index, model in enumerate(models):
        gpu = folder / f"0000:{index:02x}:00.0"
        gpu.mkdir(parents=True)
        (gpu / "information").write_text(INFORMATION.format(model=model, index=index))
    return str(folder)


def manager(proc: str, **environment: str) -> nvidia.NvidiaManager:
    return nvidia.NvidiaManager(proc_dir=proc, environment={"PATH": "", **environment})


# NVIDIA


def test_gpus_are_those_that_the_driver_shows(tmp_path: Path) -> None:
    found = manager(proc_dir(tmp_path, "NVIDIA H200", "NVIDIA H200"))
    assert (found.detect_count(), found.detect_type()) == (2, "H200")
    assert found.labels() == {"umbel.io/accelerator-type": "H200"}


def test_machine_without_a_driver_has_no_gpus(tmp_path: Path) -> None:
    found = manager(str(tmp_path / "missing"))
    assert (found.detect_count(), found.detect_type(), found.labels()) == (0, None, {})


def test_driver_without_gpus_has_none(tmp_path: Path) -> None:
    assert manager(proc_dir(tmp_path)).detect_count() == 0


def test_gpu_that_vanishes_while_being_read_is_not_counted(tmp_path: Path) -> None:
    proc = proc_dir(tmp_path, "NVIDIA H200", "NVIDIA H200")
    (tmp_path / "0000:00:00.0" / "information").unlink()
    assert manager(proc).detect_count() == 1


def smi(folder: Path, script: str) -> str:
    """A program called nvidia-smi. Returns its folder."""
    folder.mkdir(exist_ok=True)
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(folder)


def test_without_proc_the_command_is_asked(tmp_path: Path) -> None:
    listing = (
        "echo 'GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-1111)'\n"
        "echo '  MIG 3g.20gb     Device  0: (UUID: MIG-2222)'\n"
        "echo 'GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-3333)'"
    )
    path = smi(tmp_path / "bin", f'test "$1" = -L || exit 9\n{listing}')
    found = manager(str(tmp_path / "missing"), PATH=f"/nowhere::{path}")
    assert (found.detect_count(), found.detect_type()) == (2, "A100")


def test_command_that_fails_or_cannot_be_run_finds_nothing(tmp_path: Path) -> None:
    failing = smi(tmp_path / "failing", "echo 'GPU 0: NVIDIA A100 (UUID: x)'; exit 9")
    assert manager(str(tmp_path / "missing"), PATH=failing).detect_count() == 0
    broken = tmp_path / "broken"
    smi(broken, "")
    (broken / "nvidia-smi").write_bytes(b"\x7fELF nonsense")
    assert manager(str(tmp_path / "missing"), PATH=str(broken)).detect_count() == 0


def test_command_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "SMI_TIMEOUT_S", 0.1)
    path = smi(tmp_path / "bin", "exec sleep 20")
    before = time.monotonic()
    assert manager(str(tmp_path / "missing"), PATH=f"{path}:{os.environ['PATH']}").detect_count() == 0
    assert time.monotonic() - before < 15


@pytest.mark.parametrize(
    ("model", "short"),
    [
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-40GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("Tesla V100-SXM2-16GB", "V100"),
        ("Tesla T4", "T4"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"),
        ("NVIDIA GeForce RTX 3080 Ti", "RTX-3080"),
        ("NVIDIA RTX A6000", "RTX-A6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "RTX-PRO-6000"),
        ("NVIDIA L40S", "L40S"),
        ("Quadro P4000", "P4000"),
        ("Unknown", None),
        ("", None),
        ("NVIDIA ", "NVIDIA"),
    ],
)
def test_short_names(model: str, short: str | None) -> None:
    assert nvidia.short_name(model) == short


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("0", ["0"]),
        ("2, 0", ["2", "0"]),
        ("GPU-1111,MIG-2222", ["GPU-1111", "MIG-2222"]),
        ("", []),
        ("NoDevFiles", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
    ],
)
def test_variable_is_read_as_cuda_reads_it(tmp_path: Path, text: str, ids: list[str]) -> None:
    assert manager(str(tmp_path), CUDA_VISIBLE_DEVICES=text).get_visible_ids() == ids


@pytest.mark.parametrize(("quantity", "is_allowed"), [(0, True), (0.25, True), (1, True), (4.0, True), (1.5, False)])
def test_more_than_one_gpu_must_be_a_whole_number(tmp_path: Path, quantity: float, is_allowed: bool) -> None:
    refusal = manager(str(tmp_path)).validate_quantity(quantity)
    assert (refusal is None) is is_allowed
    assert refusal is None or "got 1.5" in refusal


# What a node makes of it


class Devices:
    """A maker's devices, as many as the test likes."""

    visible_devices_variable = None

    def __init__(self, count: int, *, resource: str = "NPU", visible: list[str] | None = None) -> None:
        self.resource_name = resource
        self._count = count
        self._visible = visible

    def detect_count(self) -> int:
        if self._count < 0:
            raise OSError("the driver does not answer")
        return self._count

    def detect_type(self) -> str | None:
        return "N1" if self._count else None

    def labels(self) -> Mapping[str, str]:
        return {"umbel.io/npu": "N1"}

    def extra_resources(self) -> Mapping[str, float]:
        return {"NPU-head": 1.0}

    def validate_quantity(self, quantity: float) -> str | None:
        return None

    def get_visible_ids(self) -> list[str] | None:
        return self._visible

    def set_visible_ids(self, ids: Sequence[str]) -> None: ...


def test_node_offers_devices_with_type_and_extra_resources() -> None:
    devices: spi.AcceleratorManager = Devices(4)
    (found,) = accelerators.take_stock([("npu", devices)])
    assert (found.name, found.resource_name, found.ids) == ("npu", "NPU", ("0", "1", "2", "3"))
    assert found.resources() == {"NPU": 4.0, "NPU-head": 1.0, "accelerator_type:N1": 1.0}
    assert found.manager is devices


@pytest.mark.parametrize(
    ("visible", "ids"),
    [
        (None, ("0", "1")),
        (["1"], ("1",)),
        (["1", "1", "0"], ("1", "0")),
        (["0", "7", "1"], ("0",)),  # there is no device 7, and CUDA sees nothing of what follows
        (["MIG-1", "MIG-2", "MIG-3"], ("MIG-1", "MIG-2", "MIG-3")),  # three parts of two devices
        ([], ()),
    ],
)
def test_node_offers_what_its_environment_allows(visible: list[str] | None, ids: tuple[str, ...]) -> None:
    assert accelerators.usable_ids(Devices(2, visible=visible)) == ids


def test_hidden_devices_are_not_offered() -> None:
    assert accelerators.take_stock([("npu", Devices(2, visible=[])), ("none", Devices(0, visible=["0"]))]) == ()


def test_manager_that_raises_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "umbel.plugins"):
        (found,) = accelerators.take_stock([("broken", Devices(-1)), ("npu", Devices(1))])
    assert found.name == "npu"
    assert caplog.messages == [
        "accelerator 'broken' is left out: looking for devices raised OSError: the driver does not answer"
    ]


@pytest.mark.parametrize("is_reversed", [False, True])
def test_of_two_that_find_devices_the_one_with_more_is_used(
    caplog: pytest.LogCaptureFixture, is_reversed: bool
) -> None:
    managers = [("few", Devices(1, resource="GPU")), ("many", Devices(3, resource="GPU")), ("none", Devices(0))]
    with caplog.at_level(logging.WARNING, "umbel.plugins"):
        (found,) = accelerators.take_stock(reversed(managers) if is_reversed else managers)
    assert found.name == "many"
    assert caplog.messages == [
        "many and few both found GPU devices; the 3 of many are used, not the 1 of few; block one by UMBEL_PLUGINS"
    ]


def test_resources_are_sorted() -> None:
    found = accelerators.take_stock([("npu", Devices(1)), ("gpu", Devices(1, resource="GPU"))])
    assert [one.resource_name for one in found] == ["GPU", "NPU"]
