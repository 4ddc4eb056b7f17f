"""What clients send to a served model, and what they are told where it cannot be used."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.tasks import TASK_TYPES
from orchestrator.tracking.served_rows import served_rows

SCHEMA = TASK_TYPES["classification"].input_schema({"text": "text"})
EXPECTED = [{"text": "good"}, {"text": "bad"}]


@pytest.mark.parametrize(
    "sent",
    [
        pd.DataFrame({"text": ["good", "bad"]}),
        pd.DataFrame({"id": [1, 2], "text": ["good", "bad"]})[["text", "id"]],
        ["good", "bad"],
        np.array(["good", "bad"]),
        pd.Series(["good", "bad"]).tolist(),
        pd.DataFrame(["good", "bad"]),
        {"text": ["good", "bad"]},
        {"text": np.array(["good", "bad"])},
        [{"text": "good"}, {"text": "bad"}],
    ],
)
def test_served_rows_of_every_form_are_the_same(sent: Any) -> None:
    assert served_rows(sent, SCHEMA) == EXPECTED


def test_served_row_of_a_single_text() -> None:
    assert served_rows("good", SCHEMA) == [{"text": "good"}]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (["good", None], 'row 2: text is null, not a string; a row is {"text": "..."}'),
        ([1.5], "row 1: text is number, not a string; a row is"),
        ([" ", "x"], "row 1: text is empty; a row is"),
        (pd.DataFrame({"txt": ["x"]}), "row 1: has no text; did you mean txt\\?; a row is"),
        ([{"\n": "x"}], "row 1: has no text; it has: .*n; a row is"),
        ([None] * 5, "row 1: .*; row 3: text is null, not a string; and 2 more rows; a row is"),
    ],
)
def test_unusable_served_rows_are_refused_in_one_line(sent: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("{", r"\{").replace('."', '\\."')) as caught:
        served_rows(sent, SCHEMA)
    assert "\n" not in str(caught.value)
