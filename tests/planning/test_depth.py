"""The cost of a step extrapolated from two shallow backbones, against the same step in all layers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, PreTrainedConfig

import methods
import search_spaces
from orchestrator.planning.capability.dummy_text import dummy_text
from orchestrator.planning.estimates import Batch, StepModel
from orchestrator.planning.estimates.depth import deeper_peak
from orchestrator.tasks import TASK_TYPES

LAYERS = 9
USUAL = ("lora", "prefix", "last_layers", "full")
MID_SIZE = LlamaConfig(
    vocab_size=1000,
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=LAYERS,
    num_attention_heads=4,
    num_key_value_heads=2,
    pad_token_id=0,
)
BATCH = Batch(rows=2, tokens=64, targets=20)
SMALL = {"bottleneck": 8, "virtual_tokens": 4, "rank": 4}


def step_model(task: str, config: PreTrainedConfig = MID_SIZE) -> StepModel:
    labels = 3 if task == "classification" else 0
    return StepModel(
        copy.deepcopy(config),
        TASK_TYPES[task],
        name="mid-size",
        labels=labels,
        quantization="nf4",
        dtype=torch.bfloat16,
        text=dummy_text(config, labels, 64),
        sources=("other",),
        source_labels=(labels,),
        cuda=True,
    )


def params_of(method: str, **changes: Any) -> dict[str, Any]:
    default = search_spaces.get(method).default
    return {**default, **{name: value for name, value in SMALL.items() if name in default}, **changes}


@cache
def models(task: str) -> tuple[StepModel, StepModel]:
    """Return a model that extrapolates, and one that does not."""
    extrapolating, full = step_model(task), step_model(task)
    full._shallow_pair = lambda *_: None  # type: ignore[method-assign]
    return extrapolating, full


def cases() -> Iterator[Any]:
    for task, checkpointed, method in product(("causal-lm", "classification"), (False, True), methods.names()):
        is_usual = method in USUAL and task == "causal-lm"
        marks = () if is_usual else pytest.mark.exhaustive if checkpointed else pytest.mark.slow
        yield pytest.param(task, method, checkpointed, marks=marks)


@pytest.mark.parametrize(("task", "method", "checkpointed"), list(cases()))
def test_extrapolated_cost_equals_that_of_all_layers(task: str, method: str, checkpointed: bool) -> None:
    costs = [model.cost(method, params_of(method), BATCH, checkpointed=checkpointed) for model in models(task)]
    assert (costs[0] is None) == (costs[1] is None)
    if costs[0] is not None and costs[1] is not None:
        assert asdict(costs[0]) == pytest.approx(asdict(costs[1]), rel=0.01)


@pytest.mark.parametrize("method", ["lora", "last_layers", "prefix", "full"])
def test_extrapolated_scoring_equals_that_of_all_layers(method: str) -> None:
    peaks = [model.scoring_bytes(method, params_of(method), BATCH) for model in models("causal-lm")]
    assert peaks[0] == pytest.approx(peaks[1], rel=0.01)


@pytest.mark.parametrize(
    ("method", "changes", "depth"),
    [
        ("lora", {}, 3),
        ("lora", {"dropout": 0.1}, 3),
        ("last_layers", {}, None),  # it trains a fraction of the blocks, so each depth has its own ratio
        ("full", {}, 3),
    ],
)
def test_shallow_backbones_keep_every_kind_of_block(method: str, changes: dict[str, Any], depth: int | None) -> None:
    model = step_model("causal-lm")
    assert model._find_depth(methods.get(method), params_of(method, **changes)) == depth


def test_passes_that_differ_in_two_places_are_not_extrapolated() -> None:
    first = [("embed", 1, 1), ("encoder", 2, 3), ("bridge", 1, 4), ("decoder", 2, 6), ("head", 1, 7)]
    one_place = [*first[:2], ("encoder", 2, 5), ("bridge", 1, 6), ("decoder", 2, 8), ("head", 1, 9)]
    two_places = [*one_place[:5], ("decoder", 2, 10), ("head", 1, 11)]
    assert deeper_peak(first, one_place, 10) == 7 + 2 * 10
    assert deeper_peak(first, two_places, 10) is None
