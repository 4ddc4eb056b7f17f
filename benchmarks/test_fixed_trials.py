"""What the benchmarks of whole sweeps compare: the same trials on every side, and sums that are right."""

import json
import mmap
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

import methods
from benchmarks._fixed_trials import METHODS, Comparison, Trial, parameters, sweep_file
from benchmarks.limit import operations_of, parts_of
from benchmarks.makespan import line, ratios
from benchmarks.memory import resident, slope
from orchestrator.config import SweepConfig, load_config
from orchestrator.search.grid import points
from orchestrator.search.rungs import rung_steps
from orchestrator.search.space import resolve


def compared(folder: Path, each: int) -> Comparison:
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


def as_sweep(folder: Path, each: int) -> SweepConfig:
    file = sweep_file(compared(folder, each), folder)
    file.write_text(file.read_text().replace(".parquet", ".csv"))
    return load_config(file)


@pytest.mark.parametrize("each", [1, 4, 16])
def test_sweep_file_has_exactly_the_trials_of_the_other_sides(tmp_path: Path, each: int) -> None:
    config = as_sweep(tmp_path, each)
    for method in METHODS:
        overrides = {name: entry.model_dump(exclude_none=True) for name, entry in config.search_space[method].items()}
        listed = points(resolve(method, overrides).distributions)
        assert listed is not None
        key = lambda params: params["learning_rate"]  # noqa: E731
        assert sorted(listed, key=key) == sorted(parameters(method, each), key=key)
    assert config.budget.trials == each * len(METHODS)


def test_sweep_file_stops_no_trial_early(tmp_path: Path) -> None:
    config = as_sweep(tmp_path, 1)
    search = config.search
    assert rung_steps(config.training.max_steps, search.first_rung, search.reduction_factor) == (40,)
    assert not search.early_stopping
    assert search.allocation == "round_robin"


@pytest.mark.parametrize("method", METHODS)
def test_parameters_are_configurations_of_their_method(method: str) -> None:
    for params in parameters(method, 3):
        assert methods.get(method).params_type.from_dict(params).to_dict() == params


def test_comparison_survives_its_file(tmp_path: Path) -> None:
    comparison = compared(tmp_path, 2)
    file = comparison.write(tmp_path / "comparison.json")
    assert Comparison.read(file) == comparison
    assert json.loads(file.read_text())["order"] == [1, 0]


def test_makespan_line_through_two_numbers_of_trials() -> None:
    assert line({16: 30.0, 64: 78.0}) == {"startup_seconds": 14.0, "seconds_per_trial": 1.0}
    assert line({16: 30.0}) == {}


def test_makespan_ratios_are_times_as_long_as_the_sweep() -> None:
    seconds = {"sweep": {16: 10.0, 64: 20.0}, "ray": {16: 50.0, 64: 140.0}}
    assert ratios(seconds) == {"ray": {16: 5.0, 64: 7.0}}
    assert ratios({"ray": {16: 50.0}}) == {}


def test_limit_counts_operations_in_either_orientation_of_weights() -> None:
    rows, inward, outward = 8 * 32, 384, 1536
    forward = operations_of([[8, 32, inward], [outward, inward], []])
    backward = operations_of([[8, 32, outward], [outward, inward]])
    assert forward == backward == 2 * rows * inward * outward


def test_limit_counts_time_in_frozen_layers_only() -> None:
    def event(name: str, microseconds: float, *children: SimpleNamespace) -> SimpleNamespace:
        shapes = [[4, 2], [3, 2]]
        return SimpleNamespace(name=name, cpu_time_total=microseconds, cpu_children=children, input_shapes=shapes)

    unpacking = event("bitsandbytes::dequantize_4bit", 3.0)
    frozen = event("FrozenMatmul", 10.0, event("aten::to", 1.0), unpacking, event("aten::linear", 5.0))
    parts = parts_of([frozen, event("aten::linear", 99.0)])
    assert parts == {
        "products": pytest.approx(5e-6),
        "unpacking": pytest.approx(3e-6),
        "casts": pytest.approx(1e-6),
        "operations": 2 * 4 * 2 * 3,
    }


def test_memory_reads_resident_bytes_from_the_kernel() -> None:
    pages = mmap.mmap(-1, 16 * 2**20)  # a tensor may be given memory that was freed before, and is resident already
    before = resident(os.getpid())
    pages[:: mmap.PAGESIZE] = bytes(len(pages) // mmap.PAGESIZE)
    after = resident(os.getpid())
    assert after["private"] - before["private"] == pytest.approx(len(pages), rel=0.2)
    assert after["pss"] >= after["private"] > 0
    assert resident(0) == {"pss": 0, "private": 0}


def test_memory_slope_is_the_cost_of_one_more() -> None:
    assert slope({1: 100, 2: 130, 4: 190}) == pytest.approx(30)
    assert slope({1: 100}) == 0
