"""What holds for every type of task, and for the data of the examples."""

import subprocess
from pathlib import Path
from typing import get_args

import peft
import pyarrow as pa
import pytest
import torch
import transformers

from methods.base.spec import PeftTaskType
from orchestrator.config import load_config
from orchestrator.tasks import TASK_TYPES, read_task, recorded_metric, task_type
from orchestrator.tasks.inputs import from_arrow
from orchestrator.tasks.section import TaskSection

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
TYPES = [*TASK_TYPES.values()]


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def config(request):
    return load_config(request.param)


@pytest.mark.parametrize("type_", TYPES, ids=lambda type_: type_.name)
def test_task_types_name_classes_that_transformers_and_peft_have(type_):
    assert TASK_TYPES[type_.name] is type_
    assert hasattr(transformers, type_.auto_class)
    assert type_.peft_task_type in get_args(PeftTaskType)


def test_task_types_of_methods_are_those_of_peft():
    assert {*get_args(PeftTaskType)} == {*peft.TaskType} - {"QUESTION_ANS"}


@pytest.mark.parametrize("type_", TYPES, ids=lambda type_: type_.name)
def test_metrics_have_labels_bounds_and_a_statistic(type_):
    for metric in type_.metrics:
        assert type_.metric(metric.name) is metric
        assert recorded_metric(metric.name, higher_is_better=metric.higher_is_better) == metric
        assert metric.label
        assert metric.bounds[0] < metric.bounds[1]
        assert metric.statistic is not None


@pytest.mark.parametrize("type_", TYPES, ids=lambda type_: type_.name)
def test_metric_of_the_section_is_validated_from_the_metrics(type_):
    section = type_.section.in_memory()
    assert (section.type, section.metrics[0]) in {(type_.name, metric.name) for metric in type_.metrics}
    names = type_.section.model_json_schema()["properties"]["metric"]["anyOf"][0]["enum"]
    assert names == [metric.name for metric in type_.metrics]


def unanswered(type_, count=2):
    schema = type_.input_schema(type_.section.in_memory().input_columns)
    return type_.unanswered(schema.to_table([schema.example] * count))


@pytest.mark.parametrize("type_", TYPES, ids=lambda type_: type_.name)
def test_unanswered_inputs_have_the_columns_of_a_split(type_):
    rows = unanswered(type_)
    assert rows["row"].to_pylist() == [0, 1]
    columns = type_.section.in_memory().input_columns
    assert {*columns} <= {*type_.input_columns}
    for name in columns:
        assert from_arrow(rows[name], type_.input_columns[name].kind) == [type_.input_columns[name].example] * 2
    assert {*type_.text_columns} - {*type_.input_columns} <= {*rows.column_names}


@pytest.mark.parametrize("type_", TYPES, ids=lambda type_: type_.name)
def test_dummy_batches_are_like_those_of_rows(type_, tokenizer):
    rows = type_.tokenize(unanswered(type_), tokenizer, 16)
    batch = type_.collate(rows, pa.array([0, 1]).to_numpy(), pad_id=0)
    ids = torch.arange(24).reshape(4, 6)
    dummy = type_.dummy_batch(ids, torch.ones_like(ids), 3)
    assert dummy.keys() == batch.keys()
    for name, tensor in batch.items():
        assert (dummy[name].dim(), dummy[name].dtype) == (tensor.dim(), tensor.dtype), name
    on_meta = type_.dummy_batch(ids.to("meta"), torch.ones_like(ids, device="meta"), 3)
    for name, tensor in on_meta.items():
        assert (tensor.device, tensor.shape) == (torch.device("meta"), dummy[name].shape), name


def test_types_of_the_examples_tasks_score_by_their_metric(config):
    for task in config.tasks.values():
        assert isinstance(task, TaskSection)
        type_ = task_type(task)
        assert type_.name == task.type
        assert type_.generates == type_.metric(task.metrics[0]).needs_generation


def test_task_types_are_named_in_their_own_files():
    pattern = r"ClassificationTask|CausalLMTask|\b(CausalLM|Classification)\b[,)]|\"(classification|causal-lm)\""
    command = ["grep", "-rlE", "--include=*.py", pattern, "orchestrator", "methods"]
    files = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    own = tuple(f"orchestrator/tasks/{name.replace('-', '_')}{end}" for name in TASK_TYPES for end in (".py", "/"))
    others = {
        "methods/base/spec.py",  # the names that plugins of release 0.1 declare
        "orchestrator/cli/methods.py",
        "orchestrator/tasks/layouts.py",  # which type rows look like
        "orchestrator/simulation/shuffled_sweeps.py",  # simulated sweeps classify
        "orchestrator/simulation/written_sweep.py",
    }
    assert {file for file in files if not file.startswith(own)} <= others


def test_example_data_can_be_read(config):
    for name, task in config.tasks.items():
        data = read_task(name, task, config.base, config.seed)
        assert data.dropped == 0
        assert data.splits["train"].num_rows >= 160


def test_airline_tweets_are_those_of_the_published_figures():
    config = load_config(EXAMPLES[0])
    data = read_task("airline", config.tasks["airline"], config.base, config.seed)
    assert [split.num_rows for split in data.splits.values()] == [6206, 2069, 2069]
    assert data.labels == ("negative", "neutral", "positive")
    assert data.duplicates_removed == 101
    assert data.majority == pytest.approx(0.71, abs=0.01)
