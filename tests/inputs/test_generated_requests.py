"""Whatever a client sends to a served model, it is rows, or one line."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from orchestrator.tasks import TASK_TYPES
from orchestrator.tracking.served_rows import served_rows
from tests.inputs.generated import json_values, texts, tried

SCHEMAS = [
    TASK_TYPES["classification"].input_schema({"text": "text"}),
    TASK_TYPES["classification"].input_schema({"text": "text", "text_pair": "other"}),
    TASK_TYPES["token-classification"].input_schema({"tokens": "tokens"}),
]
columns = st.sampled_from(["text", "other", "tokens"]) | texts


def frame(columns: dict[str, list[Any]]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


requests = (
    json_values
    | st.lists(st.dictionaries(columns, json_values, max_size=3), max_size=3)
    | st.dictionaries(columns, st.lists(json_values, max_size=2), max_size=3)
    | st.dictionaries(columns, st.lists(json_values, min_size=2, max_size=2), max_size=3).map(frame)
    | st.lists(texts, max_size=3).map(np.array)
)


def assert_is_a_line(text: str) -> None:
    assert text.startswith(("row ", "the ")), text
    assert "\n" not in text


def check_request(parts: tuple[Any, int]) -> None:
    request, schema = parts
    try:
        SCHEMAS[schema].to_table(served_rows(request, SCHEMAS[schema]))
    except ValueError as error:
        assert_is_a_line(str(error))


test_request, test_request_many_times = tried(st.tuples(requests, st.integers(0, len(SCHEMAS) - 1)))(check_request)
