"""The similarity of two tasks and their backbones."""

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.warm_start.task_metadata import WEIGHTS, TaskMetadata

TWEETS = TaskMetadata(
    backbone="tiny",
    digest="b",
    architecture="bert",
    parameters=22e6,
    type="classification",
    metric="macro_f1",
    labels=3,
    rows=6000,
    characters=80,
)


def test_similarity_is_1_to_itself_and_0_to_unknown() -> None:
    assert TWEETS.similarity(TWEETS) == pytest.approx(1.0)
    assert TWEETS.similarity(TaskMetadata()) == TaskMetadata().similarity(TaskMetadata()) == 0.0
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("changes", "similarity"),
    [
        ({"digest": "other"}, 1 - 0.04),  # the same checkpoint, quantized otherwise
        ({"digest": "other", "backbone": "large"}, 1 - 0.08),  # as large and of the same family
        ({"digest": "other", "backbone": "large", "parameters": 220e6}, 1 - 0.16),  # a decade larger
        ({"digest": "other", "backbone": "large", "parameters": 22e9}, 1 - 0.24),  # and beyond two
        ({"digest": "other", "backbone": "large", "architecture": "llama", "parameters": 22e9}, 0.6),
        ({"type": "causal-lm"}, 0.8),
        ({"metric": "accuracy"}, 0.9),
        ({"rows": 600}, 0.95),
        ({"rows": 6}, 0.9),
        ({"characters": 800}, 0.9),
        ({"labels": 39}, 0.9),
        ({"labels": None}, 0.9),
    ],
)
def test_similarity_decreases_by_documented_weights(changes: dict[str, Any], similarity: float) -> None:
    other = replace(TWEETS, **changes)
    assert TWEETS.similarity(other) == pytest.approx(similarity)
    assert other.similarity(TWEETS) == pytest.approx(similarity)


def test_similarity_counts_zero_labels_as_equal() -> None:
    assert replace(TWEETS, labels=0).similarity(replace(TWEETS, labels=0)) == pytest.approx(1.0)


def test_comparable_needs_same_backbone_or_task_type() -> None:
    other = replace(TWEETS, backbone="large", digest="other")
    assert TWEETS.comparable(other)
    assert TWEETS.comparable(replace(TWEETS, type="causal-lm"))
    assert not TWEETS.comparable(replace(other, type="causal-lm"))
    assert not TaskMetadata().comparable(TaskMetadata())
