"""How many rows the forecast lets generate at once: as many as fit into a batch of tokens."""

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.planning.task_estimates import TaskEstimates
from orchestrator.tasks.generation import GENERATION_TOKENS


@pytest.mark.parametrize(
    ("longest", "new_tokens", "validation_rows", "rows"),
    [(100, 28, 500, GENERATION_TOKENS // 128), (100, 28, 10, 10), (8000, 400, 500, 1)],
)
def test_generation_rows_are_limited_by_tokens_and_not_by_the_scoring_batch(longest, new_tokens, validation_rows, rows):
    training = SimpleNamespace(evaluation_batch=4, validation_rows=validation_rows)
    estimates: Any = SimpleNamespace(
        config=SimpleNamespace(training=training), lengths=SimpleNamespace(longest=longest)
    )
    assert TaskEstimates.generation_rows(estimates, new_tokens) == rows
