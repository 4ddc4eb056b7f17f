"""Ranges of hyperparameters: a configuration is refused by the very rules that methods check their parameters by."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest

import methods
from methods.base.ranges import RANGES
from methods.base.spec import MethodError
from orchestrator.search.space import override_problems, unreached_ends

PARAMS = {name: methods.get(name).params_type for name in methods.names()}
IN_RANGES = [(name, field.name) for name, kind in PARAMS.items() for field in fields(kind) if field.name in RANGES]


@pytest.mark.parametrize(("method", "name"), IN_RANGES)
def test_range_of_hyperparameter_is_what_its_method_accepts(method: str, name: str) -> None:
    kind, values = PARAMS[method], RANGES[name]
    step = 1 if type(getattr(kind(), name)) is int else 0.01
    tried = [end + offset for end in (values.low, values.high) for offset in (-step, 0, step)]
    for value in filter(math.isfinite, tried):
        if values.holds(value):
            assert getattr(kind.from_dict({name: value, **({"tfinal": 0.0} if name == "tinit" else {})}), name) == value
        else:
            with pytest.raises(MethodError) as refused:
                kind.from_dict({name: value})
            assert str(refused.value) == f"{name} is {value!r}; it must be {values.text}"


@pytest.mark.parametrize(
    ("method", "override", "key", "message"),
    [
        ("lora", {"dropout": {"value": 1.5}}, ("lora", "dropout", "value"), "is 1.5; it must be in 0..1, below 1"),
        (
            "lora",
            {"warmup": {"choices": [0, 3]}},
            ("lora", "warmup", "choices", 1),
            "is 3; it must be in 0..1, below 1",
        ),
        ("lora", {"rank": {"low": 0, "high": 4}}, ("lora", "rank", "low"), "is 0; it must be at least 1"),
        (
            "lora",
            {"learning_rate": {"low": -1.0, "high": 1.0}},
            ("lora", "learning_rate", "low"),
            "is -1.0; it must be above 0",
        ),
        (
            "compose:lora+adapter",
            {"adapter.bottleneck": {"value": 0}},
            ("compose:lora+adapter", "adapter.bottleneck", "value"),
            "is 0; it must be at least 1",
        ),
        (
            "peft:boft",
            {"batch_size": {"value": 0}},
            ("peft:boft", "batch_size", "value"),
            "is 0; it must be at least 1",
        ),
    ],
)
def test_override_outside_of_its_range_is_refused(
    method: str, override: dict[str, Any], key: tuple[str | int, ...], message: str
) -> None:
    assert override_problems(method, override) == [(key, message)]


@pytest.mark.parametrize(
    ("override", "lines"),
    [
        ({"low": 4, "high": 15, "step": 4}, ["steps of 4 from 4 end at 12; the high end 15 is never tried"]),
        ({"low": 4, "high": 16, "step": 4}, []),
        ({"low": 0.0, "high": 0.3, "step": 0.1}, []),
        (
            {"low": 0.05, "high": 0.3, "step": 0.1},
            ["steps of 0.1 from 0.05 end at 0.25; the high end 0.3 is never tried"],
        ),
        ({"low": 4, "high": 15}, []),
    ],
)
def test_range_whose_steps_miss_its_end_is_told(override: dict[str, Any], lines: list[str]) -> None:
    assert unreached_ends("lora", {"rank": override}) == [f"search_space.lora.rank: {line}" for line in lines]
