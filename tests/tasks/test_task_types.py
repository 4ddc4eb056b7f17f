"""What holds for every type of task, and for the data of the examples."""

from pathlib import Path
from typing import get_args

import pytest
import transformers

from methods.base.spec import TaskType as MethodTaskType
from orchestrator.config import load_config
from orchestrator.tasks import read_task, task_type

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def config(request):
    return load_config(request.param)


def test_types_have_the_names_that_methods_know_and_models_that_transformers_has(config):
    for task in config.tasks.values():
        kind = task_type(task)
        assert kind.name == task.type
        assert kind.name in get_args(MethodTaskType)
        assert task.metric in kind.metrics
        assert hasattr(transformers, kind.auto_class)


def test_the_examples_data_can_be_read(config):
    for name, task in config.tasks.items():
        data = read_task(name, task, config.base, config.seed)
        assert data.dropped == 0
        assert data.splits["train"].num_rows >= 300


def test_airline_tweets_are_what_the_figures_are_about():
    config = load_config(EXAMPLES[0])
    data = read_task("airline", config.tasks["airline"], config.base, config.seed)
    assert [split.num_rows for split in data.splits.values()] == [6206, 2069, 2069]
    assert data.labels == ("negative", "neutral", "positive")
    assert data.duplicates_removed == 101
    assert data.majority == pytest.approx(0.71, abs=0.01)
