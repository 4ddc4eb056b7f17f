"""Faults on real sweeps: one of them in every run of the tests, all others with the exhaustive ones."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks._chaos_checks import Result
from benchmarks._chaos_faults import ImpossibleError
from benchmarks.chaos import ALL_FAULTS, disturb, run_undisturbed
from tests.small_sweep import NOISE

SHORT = ("lane killed",)
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    *(pytest.mark.filterwarnings(line) for line in NOISE),
]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run_undisturbed(tmp_path_factory.mktemp("chaos") / "undisturbed")


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, marks=[] if fault in SHORT else [pytest.mark.exhaustive]) for fault in ALL_FAULTS],
)
def test_chaos_changes_nothing_of_a_sweep(fault: str, undisturbed: Result, tmp_path: Path) -> None:
    draw = random.Random(f"test {fault}")
    try:
        run = disturb(ALL_FAULTS[fault], tmp_path / "sweep", draw, undisturbed, strikes=1)
    except ImpossibleError as error:
        pytest.skip(str(error))
    assert run.problems == [], run.moments
    assert len(run.moments) == 1, "the sweep was disturbed"
