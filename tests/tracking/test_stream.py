"""Rows through a predictor, from the lines that come in to the lines that go out."""

import itertools
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from orchestrator.common.errors import InputError
from orchestrator.tracking.stream import BATCHES_AT_ONCE, predict_lines


class Echo:
    """Answers with the text itself; remembers what it was given at once."""

    def __init__(self, kind: str = "classification", column: str = "text") -> None:
        self.bundle = SimpleNamespace(type=kind, column=column, labels=("no", "yes"), evaluation_batch=2)
        self.given: list[list[str]] = []

    def predict(self, texts: list[str]) -> tuple[list[str], Any]:
        self.given.append(texts)
        return [text.upper() for text in texts], np.array([[0.25, 0.75]] * len(texts))


def answered(echo: Echo, *lines: Any) -> list[Any]:
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines]
    written = "".join(one.lines for one in predict_lines(echo, encoded, "rows"))  # type: ignore[arg-type]
    return [json.loads(line) for line in written.splitlines()]


def test_rows_come_out_in_order_with_their_own_columns() -> None:
    rows = [{"id": number, "text": f"row {number}"} for number in range(40)]
    found = answered(Echo(), *rows)
    assert [(row["id"], row["label"]) for row in found] == [(n, f"ROW {n}") for n in range(40)]
    assert found[0] == {**rows[0], "label": "ROW 0", "probabilities": {"no": 0.25, "yes": 0.75}}


def test_what_rows_say_under_the_names_of_the_answer_is_kept() -> None:
    (row,) = answered(Echo(), {"text": "a", "label": "yes"})
    assert (row["given_label"], row["label"]) == ("yes", "A")


def test_prompts_are_completed() -> None:
    assert answered(Echo("causal-lm", "prompt"), {"prompt": "é"}) == [{"prompt": "é", "completion": "É"}]


def test_only_a_part_is_read_before_it_is_answered() -> None:
    echo, size = Echo(), 2 * BATCHES_AT_ONCE
    endless: Iterator[bytes] = (b'{"text": "x"}\n' for _ in itertools.count())
    stream = predict_lines(echo, endless, "rows")  # type: ignore[arg-type]
    assert [next(stream).rows for _ in range(3)] == [size, 2 * size, 3 * size]
    assert [len(given) for given in echo.given] == [size] * 3


def test_empty_lines_are_passed_over_and_counted() -> None:
    assert len(answered(Echo(), b"\n", {"text": "a"}, b"  \n", {"text": "b"})) == 2
    with pytest.raises(InputError, match="line 3: is no JSON"):
        answered(Echo(), b"\n", {"text": "a"}, b"{\n")


def test_no_rows_have_no_answers() -> None:
    assert answered(Echo()) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{text: a}\n", "line 1: is no JSON"),
        (b'{"text": "\xff"}\n', "line 1: is not UTF-8"),
        (b'["a"]\n', "line 1: is a JSON array, not an object"),
        (b'{"txt": "a"}\n', "line 1: has no text; did you mean txt?"),
        (b'{"a": 1, "b": 2}\n', "line 1: has no text; it has: a, b"),
        (b'{"text": null}\n', "line 1: text is null, not a string"),
        (b'{"text": 3}\n', "line 1: text is number, not a string"),
        (b'{"text": "  "}\n', "line 1: text is empty"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(line: bytes, message: str) -> None:
    with pytest.raises(InputError) as error:
        answered(Echo(), line)
    first, hint = error.value.lines()
    assert first == f"rows: {message}"
    assert hint == 'a row is {"text": "..."}, in one line'


def test_nothing_of_a_part_with_a_bad_row_is_predicted_and_a_flood_is_cut() -> None:
    echo, size = Echo(), 2 * BATCHES_AT_ONCE
    lines = [b'{"text": "x"}\n'] * (size + 3) + [b"?\n"] * 9
    stream = predict_lines(echo, lines, "rows")  # type: ignore[arg-type]
    assert next(stream).rows == size
    with pytest.raises(InputError) as error:
        next(stream)
    assert len(echo.given) == 1
    *_, last, hint = error.value.lines()
    assert last == f"rows: line {size + 8}: is no JSON"
    assert hint.startswith("and 4 more lines; ")
