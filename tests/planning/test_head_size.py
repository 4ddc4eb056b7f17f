"""The processes on the driver's machine, and the plan's line on them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from orchestrator.cli.output import console
from orchestrator.cli.output.plan import print_plan
from orchestrator.config import Lanes
from orchestrator.planning.head_size import head_size

from ..small_plan import small_plan


@pytest.fixture(autouse=True)
def machine_of_16_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=16 * 10**9))


@pytest.mark.parametrize(
    ("lanes", "pack", "processes", "is_too_large"), [(8, 1, 25, False), (8, 8, 81, True), (100, 1, 301, True)]
)
def test_head_size_follows_from_lanes_and_pack(lanes: int, pack: int, processes: int, is_too_large: bool) -> None:
    head = head_size(Lanes(max=lanes), pack)
    assert head
    assert head.processes == processes
    assert head.is_too_large == is_too_large


def test_head_size_is_unknown_for_as_many_lanes_as_fit() -> None:
    assert head_size(Lanes(), 8) is None


@pytest.mark.parametrize(("lanes", "is_told"), [(100, True), (8, False)])
def test_plan_tells_a_head_that_is_too_small(lanes: int, is_told: bool) -> None:
    with console.console.capture() as captured:
        print_plan(small_plan(["lora"], lanes={"max": lanes, "pack": 1}), Path("mail.yaml"))
    words = " ".join(captured.get().split())
    line = "head up to 301 processes take 35.5 GB on the driver's machine, which has 16.0 GB"
    assert (line in words) == is_told
