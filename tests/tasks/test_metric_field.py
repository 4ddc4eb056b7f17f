"""One metric or several: how a task names them, and when each is computed."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from orchestrator.tasks import TASK_TYPES, task_type
from orchestrator.tasks.causal_lm import CausalLMTask
from orchestrator.tasks.classification import ClassificationTask

FIELDS = {"type": "classification", "data": "memory.jsonl", "text": "text", "label": "label"}


def section(metric):
    return ClassificationTask.model_validate({**FIELDS, "metric": metric})


def test_metric_is_one_name_or_a_list_whose_first_is_optimized():
    assert section("accuracy").metrics == ("accuracy",)
    both = section(["accuracy", "macro_f1"])
    assert both.metrics == ("accuracy", "macro_f1")
    assert task_type(both).optimized.name == "accuracy"
    assert both.model_dump()["metric"] == ["accuracy", "macro_f1"]
    assert section("accuracy").model_dump()["metric"] == "accuracy"


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("acuracy", "'acuracy' is not possible; did you mean accuracy?"),
        (["accuracy", "rmse"], "'rmse' is not possible; "),
        (["accuracy", "accuracy"], "'accuracy' is given twice"),
        ([], "is empty; choose from macro_f1"),
        (3, "'3' is not possible"),
        (None, "is missing; choose from macro_f1"),
        ([["accuracy"]], "is not possible"),
    ],
)
def test_metric_that_is_not_possible_is_named(metric, message):
    with pytest.raises(ValidationError) as raised:
        section(metric)
    (error,) = raised.value.errors()
    assert error["loc"] == ("metric",)
    assert message.replace("'3'", "3") in error["msg"]


def causal_lm(metric):
    fields = {"type": "causal-lm", "data": "memory.jsonl", "prompt": "prompt", "completion": "completion"}
    return task_type(CausalLMTask.model_validate({**fields, "metric": metric}))


def test_metric_that_generates_is_computed_on_the_test_split_unless_it_is_first():
    second, first = causal_lm(["perplexity", "exact_match"]), causal_lm(["exact_match", "perplexity"])
    assert [type_.generates for type_ in (second, second.for_test(), first, first.for_test())] == [0, 1, 1, 1]
    names = [[metric.name for metric in type_.computed] for type_ in (second, second.for_test())]
    assert [("perplexity" in computed, "exact_match" in computed) for computed in names] == [(1, 0), (1, 1)]


def test_metrics_that_cost_nothing_are_computed_unasked():
    type_ = task_type(section("macro_f1"))
    values = pa.FixedSizeListArray.from_arrays(pa.array([0.9, 0.1, 0.2, 0.8]), 2)
    table = pa.table({"row": [0, 1], "label": pa.array([0, 1], pa.int32()), "probabilities": values})
    assert {"macro_f1", "accuracy"} <= {metric.name for metric in type_.computed}
    assert type_.score_many("accuracy", table, np.array([[0, 1]])).tolist() == [1.0]


def test_metric_names_of_a_type_are_the_enum_of_its_schema():
    for type_ in TASK_TYPES.values():
        schema = type_.section.model_json_schema()["properties"]["metric"]
        assert schema["default"] == type_.metrics[0].name
        assert schema["anyOf"][-1]["items"]["anyOf"][0]["enum"] == [metric.name for metric in type_.metrics]
