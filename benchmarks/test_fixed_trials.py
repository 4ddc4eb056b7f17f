"""The fixed trials of the comparisons with other systems, and the arithmetic of the benchmarks that train."""

import json
import mmap
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

import methods
from benchmarks._fixed_trials import METHODS, Comparison, Trial, parameters, write_sweep_file
from benchmarks.makespan import fit_line, times_as_long
from benchmarks.matmul_share import count_operations, sum_parts
from benchmarks.sweep_memory import resident_bytes, slope
from orchestrator.config import SweepConfig, load_config
from orchestrator.search.grid import points
from orchestrator.search.rungs import rung_steps
from orchestrator.search.space import resolve


def make_comparison(folder: Path, each: int) -> Comparison:
    for split in ("train", "validation", "test"):
        (folder / f"{split}.csv").write_text("text,label\nhello,a\nbye,b\n")
    return Comparison(
        model="no/such/model",
        data=str(folder),
        labels=("a", "b"),
        steps=40,
        order=(1, 0),
        trials=tuple(Trial(method, params) for method in METHODS for params in parameters(method, each)),
    )


def make_sweep(folder: Path, each: int) -> SweepConfig:
    file = write_sweep_file(make_comparison(folder, each), folder)
    file.write_text(file.read_text().replace(".parquet", ".csv"))
    return load_config(file)


@pytest.mark.parametrize("each", [1, 4, 16])
def test_sweep_file_has_the_trials_of_the_other_sides(tmp_path: Path, each: int) -> None:
    config = make_sweep(tmp_path, each)
    for method in METHODS:
        overrides = {name: entry.model_dump(exclude_none=True) for name, entry in config.search_space[method].items()}
        grid = points(resolve(method, overrides).distributions)
        assert grid is not None
        key = lambda params: params["learning_rate"]  # noqa: E731
        assert sorted(grid, key=key) == sorted(parameters(method, each), key=key)
    assert config.budget.trials == each * len(METHODS)


def test_sweep_file_stops_no_trial_early(tmp_path: Path) -> None:
    config = make_sweep(tmp_path, 1)
    search = config.search
    assert rung_steps(config.training.max_steps, search.first_rung, search.reduction_factor) == (40,)
    assert not search.early_stopping
    assert search.allocation == "round_robin"


@pytest.mark.parametrize("method", METHODS)
def test_parameters_are_configurations_of_their_method(method: str) -> None:
    for params in parameters(method, 3):
        assert methods.get(method).params_type.from_dict(params).to_dict() == params


def test_comparison_survives_its_file(tmp_path: Path) -> None:
    comparison = make_comparison(tmp_path, 2)
    file = comparison.write(tmp_path / "comparison.json")
    assert Comparison.read(file) == comparison
    assert json.loads(file.read_text())["order"] == [1, 0]


def test_makespan_line_through_two_numbers_of_trials() -> None:
    assert fit_line({16: 30.0, 64: 78.0}) == {"startup_seconds": 14.0, "seconds_per_trial": 1.0}
    assert fit_line({16: 30.0}) == {}


def test_makespan_compares_durations_with_the_sweep() -> None:
    seconds = {"sweep": {16: 10.0, 64: 20.0}, "ray": {16: 50.0, 64: 140.0}}
    assert times_as_long(seconds) == {"ray": {16: 5.0, 64: 7.0}}
    assert times_as_long({"ray": {16: 50.0}}) == {}


def test_matmul_share_counts_operations_in_either_weight_orientation() -> None:
    rows, inward, outward = 8 * 32, 384, 1536
    forward = count_operations([[8, 32, inward], [outward, inward], []])
    backward = count_operations([[8, 32, outward], [outward, inward]])
    assert forward == backward == 2 * rows * inward * outward


def test_matmul_share_counts_time_in_frozen_layers_only() -> None:
    def event(name: str, microseconds: float, *children: SimpleNamespace) -> SimpleNamespace:
        shapes = [[4, 2], [3, 2]]
        return SimpleNamespace(name=name, cpu_time_total=microseconds, cpu_children=children, input_shapes=shapes)

    dequantizing = event("bitsandbytes::dequantize_4bit", 3.0)
    frozen = event("FrozenMatmul", 10.0, event("aten::to", 1.0), dequantizing, event("aten::linear", 5.0))
    parts = sum_parts([frozen, event("aten::linear", 99.0)])
    assert parts == {
        "matmuls": pytest.approx(5e-6),
        "dequantizing": pytest.approx(3e-6),
        "casts": pytest.approx(1e-6),
        "operations": 2 * 4 * 2 * 3,
    }


def test_sweep_memory_reads_resident_bytes_from_the_kernel() -> None:
    pages = mmap.mmap(-1, 16 * 2**20)  # fresh pages: a tensor could reuse freed memory that is resident already
    before = resident_bytes(os.getpid())
    pages[:: mmap.PAGESIZE] = bytes(len(pages) // mmap.PAGESIZE)
    after = resident_bytes(os.getpid())
    assert after["private"] - before["private"] == pytest.approx(len(pages), rel=0.2)
    assert after["pss"] >= after["private"] > 0
    assert resident_bytes(0) == {"pss": 0, "private": 0}


def test_sweep_memory_slope_is_the_cost_of_a_further_lane() -> None:
    assert slope({1: 100, 2: 130, 4: 190}) == pytest.approx(30)
    assert slope({1: 100}) == 0
