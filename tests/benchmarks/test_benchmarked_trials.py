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
        trials=tuple(Trial(method, one) for method in METHODS for one in parameters(method, each)),
    )


def as_sweep(folder: Path, each: int) -> SweepConfig:
    file = sweep_file(compared(folder, each), folder)
    file.write_text(file.read_text().replace(".parquet", ".csv"))
    return load_config(file)


@pytest.mark.parametrize("each", [1, 4, 16])
def test_the_sweep_has_exactly_the_trials_of_the_other_sides(tmp_path: Path, each: int) -> None:
    config = as_sweep(tmp_path, each)
    for method in METHODS:
        overrides = {name: one.model_dump(exclude_none=True) for name, one in config.search_space[method].items()}
        listed = points(resolve(method, overrides).distributions)
        assert listed is not None
        key = lambda one: one["learning_rate"]  # noqa: E731
        assert sorted(listed, key=key) == sorted(parameters(method, each), key=key)
    assert config.budget.trials == each * len(METHODS)


def test_nobody_is_stopped_on_the_way(tmp_path: Path) -> None:
    config = as_sweep(tmp_path, 1)
    search = config.search
    assert rung_steps(config.training.max_steps, search.first_rung, search.reduction_factor) == (40,)
    assert not search.early_stopping
    assert search.allocation == "round_robin"


@pytest.mark.parametrize("method", METHODS)
def test_every_configuration_is_one_of_its_method(method: str) -> None:
    for one in parameters(method, 3):
        assert methods.get(method).params_type.from_dict(one).to_dict() == one


def test_a_comparison_survives_its_file(tmp_path: Path) -> None:
    asked = compared(tmp_path, 2)
    file = asked.write(tmp_path / "comparison.json")
    assert Comparison.read(file) == asked
    assert json.loads(file.read_text())["order"] == [1, 0]


def test_line_through_two_numbers_of_trials() -> None:
    assert line({16: 30.0, 64: 78.0}) == {"startup_seconds": 14.0, "seconds_per_trial": 1.0}
    assert line({16: 30.0}) == {}


def test_ratios_are_times_as_long_as_the_sweep() -> None:
    seconds = {"sweep": {16: 10.0, 64: 20.0}, "ray": {16: 50.0, 64: 140.0}}
    assert ratios(seconds) == {"ray": {16: 5.0, 64: 7.0}}
    assert ratios({"ray": {16: 50.0}}) == {}


def test_operations_do_not_depend_on_the_weights_orientation() -> None:
    rows, inward, outward = 8 * 32, 384, 1536
    forward = operations_of([[8, 32, inward], [outward, inward], []])
    backward = operations_of([[8, 32, outward], [outward, inward]])
    assert forward == backward == 2 * rows * inward * outward


def test_only_what_happens_in_frozen_layers_counts() -> None:
    def event(name: str, microseconds: float, *children: SimpleNamespace) -> SimpleNamespace:
        shapes = [[4, 2], [3, 2]]
        return SimpleNamespace(name=name, cpu_time_total=microseconds, cpu_children=children, input_shapes=shapes)

    unpacking = event("bitsandbytes::dequantize_4bit", 3.0)
    frozen = event("FrozenProduct", 10.0, event("aten::to", 1.0), unpacking, event("aten::linear", 5.0))
    found = parts_of([frozen, event("aten::linear", 99.0)])
    assert found == {
        "products": pytest.approx(5e-6),
        "unpacking": pytest.approx(3e-6),
        "casts": pytest.approx(1e-6),
        "operations": 2 * 4 * 2 * 3,
    }


def test_the_kernel_tells_what_is_resident() -> None:
    held = mmap.mmap(-1, 16 * 2**20)  # a tensor may be given memory that was freed before, and is resident already
    before = resident(os.getpid())
    held[:: mmap.PAGESIZE] = bytes(len(held) // mmap.PAGESIZE)
    after = resident(os.getpid())
    assert after["private"] - before["private"] == pytest.approx(len(held), rel=0.2)
    assert after["pss"] >= after["private"] > 0
    assert resident(0) == {"pss": 0, "private": 0}


def test_slope_is_what_one_more_costs() -> None:
    assert slope({1: 100, 2: 130, 4: 190}) == pytest.approx(30)
    assert slope({1: 100}) == 0
