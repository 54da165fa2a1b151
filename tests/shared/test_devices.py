"""Devices by name, what the process is shown of them, and how many cores are ours."""

import os
from pathlib import Path

import pytest

from shared.devices import card_number, covers, parse_devices, usable_cores
from shared.settings import SettingsError, load
from shared.visible_cards import see_only

VISIBLE = "CUDA_VISIBLE_DEVICES"


@pytest.mark.parametrize(
    ("line", "devices"),
    [
        ("auto", ("auto",)),
        ("cpu, cpu", ("cpu", "cpu")),
        ("cuda:0,cuda:10,cpu,", ("cuda:0", "cuda:10", "cpu")),
        ("cuda", ("cuda",)),
    ],
)
def test_devices_are_read(line: str, devices: tuple[str, ...]) -> None:
    assert parse_devices(line) == devices


@pytest.mark.parametrize("line", ["", ",", "gpu", "cuda:", "cuda:-1", "cuda:01", "cpu:0", "auto,cpu", "CUDA"])
def test_what_is_no_device_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"is no device|at least one device"):
        parse_devices(line)


@pytest.mark.parametrize("name", ["ANANSE_DEVICE", "ANANSE_DEVICES"])
def test_a_setting_that_is_no_device_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "cpu:0")

    with pytest.raises(SettingsError, match=f"{name}: 'cpu:0' is no device"):
        load()


def test_cuda_is_any_card() -> None:
    assert covers("cuda", "cuda:3")
    assert not covers("cuda", "cpu")
    assert not covers("cuda:1", "cuda:10")
    assert [card_number(name) for name in ("cuda", "cuda:12", "auto")] == [0, 12, 0]


@pytest.mark.parametrize(
    ("visible", "device", "seen"),
    [
        (None, "cuda:1", "1"),
        (None, "cuda", "0"),
        (None, "cpu", ""),
        ("GPU-a,GPU-b", "cpu", ""),
        ("GPU-a,GPU-b", "cuda:1", "GPU-b"),
        ("2,3", "cuda:1", "3"),
        ("2,3", "auto", "2"),
        ("", "auto", ""),
    ],
)
def test_a_process_sees_its_own_card_only(
    visible: str | None, device: str, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {} if visible is None else {VISIBLE: visible})

    see_only(device)

    assert os.environ[VISIBLE] == seen
    # By number, CUDA's own order is another one.
    assert os.environ.get("CUDA_DEVICE_ORDER") == ("PCI_BUS_ID" if visible is None and seen else None)


@pytest.mark.parametrize(("visible", "device"), [("0,1", "cuda:2"), ("", "cuda")])
def test_a_card_that_is_hidden_is_told(visible: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {VISIBLE: visible})

    with pytest.raises(SettingsError, match=f"there is no {device}"):
        see_only(device)


@pytest.mark.parametrize(
    ("quota", "cores"), [("150000 100000", 2), ("50000 100000", 1), ("100000 100000", 1)]
)
def test_a_container_s_share_counts(quota: str, cores: int, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(quota)

    assert usable_cores(tmp_path / "cpu.max") == min(cores, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize("quota", ["max 100000", "9000000 100000", None])
def test_without_a_share_all_cores_are_ours(quota: str | None, tmp_path: Path) -> None:
    if quota:
        (tmp_path / "cpu.max").write_text(quota)

    assert usable_cores(tmp_path / "cpu.max") == len(os.sched_getaffinity(0))
