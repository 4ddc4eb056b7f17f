"""Prediction of rows that are JSON lines."""

import itertools
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from orchestrator.common.errors import InputError
from orchestrator.tasks import TASK_TYPES
from orchestrator.tracking.predict_lines import CHUNK_BATCHES, predict_lines


class Echo:
    """Answers with the text itself; records the texts of each call."""

    def __init__(self, type_name: str = "classification", column: str = "text") -> None:
        self.type, self.column = TASK_TYPES[type_name], column
        schema = self.type.input_schema({column: column})
        self.bundle = SimpleNamespace(input_schema=schema, labels=("no", "yes"), evaluation_batch=2)
        self.calls: list[list[str]] = []

    def predict(self, rows: list[dict[str, str]]) -> pa.Table:
        texts = [row[self.column] for row in rows]
        self.calls.append(texts)
        answers = pa.array([text.upper() for text in texts])
        numbers = [pa.array([0.25] * len(texts)), pa.array([0.75] * len(texts))]
        names = [*self.type.answer_columns(self.bundle.labels)]
        return pa.table([answers, *numbers][: len(names)], names=names)


def answered(echo: Echo, *lines: Any) -> list[Any]:
    encoded = [line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines]
    written = "".join(chunk.lines for chunk in predict_lines(echo, encoded, "rows"))  # type: ignore[arg-type]
    return [json.loads(line) for line in written.splitlines()]


def test_predict_keeps_rows_order_and_columns() -> None:
    rows = [{"id": number, "text": f"row {number}"} for number in range(40)]
    found = answered(Echo(), *rows)
    assert [(row["id"], row["label"]) for row in found] == [(n, f"ROW {n}") for n in range(40)]
    assert found[0] == {**rows[0], "label": "ROW 0", "probabilities": {"no": 0.25, "yes": 0.75}}


def test_predict_renames_columns_called_like_the_answers() -> None:
    (row,) = answered(Echo(), {"text": "a", "label": "yes"})
    assert (row["given_label"], row["label"]) == ("yes", "A")


def test_predict_completes_prompts() -> None:
    assert answered(Echo("causal-lm", "prompt"), {"prompt": "é"}) == [{"prompt": "é", "completion": "É"}]


def test_predict_reads_one_chunk_before_answering_it() -> None:
    echo, size = Echo(), 2 * CHUNK_BATCHES
    endless: Iterator[bytes] = (b'{"text": "x"}\n' for _ in itertools.count())
    stream = predict_lines(echo, endless, "rows")  # type: ignore[arg-type]
    assert [next(stream).rows for _ in range(3)] == [size, 2 * size, 3 * size]
    assert [len(texts) for texts in echo.calls] == [size] * 3


def test_predict_skips_and_counts_empty_lines() -> None:
    assert len(answered(Echo(), b"\n", {"text": "a"}, b"  \n", {"text": "b"})) == 2
    with pytest.raises(InputError, match="line 3: is not JSON"):
        answered(Echo(), b"\n", {"text": "a"}, b"{\n")


def test_predict_answers_no_rows_with_nothing() -> None:
    assert answered(Echo()) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{text: a}\n", "line 1: is not JSON"),
        (b'{"text": "\xff"}\n', "line 1: is not UTF-8"),
        (b'["a"]\n', "line 1: is a JSON array, not an object"),
        (b'{"txt": "a"}\n', "line 1: has no text; did you mean txt?"),
        (b'{"a": 1, "b": 2}\n', "line 1: has no text; it has: a, b"),
        (b'{"text": null}\n', "line 1: text is null, not a string"),
        (b'{"text": 3}\n', "line 1: text is number, not a string"),
        (b'{"text": "  "}\n', "line 1: text is empty"),
    ],
)
def test_predict_names_the_line_of_an_unusable_row(line: bytes, message: str) -> None:
    with pytest.raises(InputError) as error:
        answered(Echo(), line)
    first, hint = error.value.lines()
    assert first == f"rows: {message}"
    assert hint == 'a row is {"text": "..."}, in one line'


def test_predict_refuses_chunks_with_bad_rows_and_lists_five() -> None:
    echo, size = Echo(), 2 * CHUNK_BATCHES
    lines = [b'{"text": "x"}\n'] * (size + 3) + [b"?\n"] * 9
    stream = predict_lines(echo, lines, "rows")  # type: ignore[arg-type]
    assert next(stream).rows == size
    with pytest.raises(InputError) as error:
        next(stream)
    assert len(echo.calls) == 1
    *_, last, hint = error.value.lines()
    assert last == f"rows: line {size + 8}: is not JSON"
    assert hint.startswith("and 4 more lines; ")


def test_predict_keeps_half_a_surrogate_pair_that_no_model_reads() -> None:
    (row,) = answered(Echo(), b'{"text": "a", "other": "\\ud83d"}\n')
    assert (row["other"], row["label"]) == ("\ud83d", "A")


def test_predict_refuses_half_a_surrogate_pair_to_read() -> None:
    with pytest.raises(InputError) as raised:
        answered(Echo(), b'{"text": "a"}\n', b'{"text": "\\ud83d"}\n')
    assert raised.value.lines()[0] == "rows: line 2: text is not UTF-8: it holds half of a surrogate pair"
