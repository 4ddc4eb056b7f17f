"""Which task type and keys rows look to have, by their columns."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.common.errors import InputError
from orchestrator.config import load_config
from orchestrator.tasks.layouts import Look, recognize
from orchestrator.tasks.reading.peek import peek

T: Look = "text"
LAYOUTS: list[tuple[dict[str, Look], str, dict[str, str], str]] = [
    ({"id": "code", "messages": "objects"}, "causal-lm", {"messages": "messages"}, "chat messages in OpenAI's layout"),
    (
        {"conversations": "objects"},
        "causal-lm",
        {"conversations": "conversations"},
        "conversations in ShareGPT's layout",
    ),
    (
        {"instruction": T, "input": "nothing", "output": T, "text": T},
        "causal-lm",
        {"instruction": "instruction", "output": "output", "input": "input"},
        "Alpaca",
    ),
    (
        {"instruction": T, "context": T, "response": T, "category": "code"},
        "causal-lm",
        {"instruction": "instruction", "output": "response", "input": "context"},
        "Dolly",
    ),
    (
        {"prompt": T, "completion": T},
        "causal-lm",
        {"prompt": "prompt", "completion": "completion"},
        "prompts with completions",
    ),
    (
        {"question": T, "answer": "integer"},
        "causal-lm",
        {"prompt": "question", "completion": "answer"},
        "prompts with completions",
    ),
    ({"text": T, "url": "code"}, "causal-lm", {"text": "text"}, "plain texts"),
    (
        {"question": T, "choices": "texts", "answer": "code"},
        "choice",
        {"choices": "choices", "prompt": "question", "completion": "answer"},
        "questions with choices",
    ),
    (
        {"tokens": "texts", "tags": "texts"},
        "token-classification",
        {"tokens": "tokens", "tags": "tags"},
        "words with tags",
    ),
    ({"text": T, "spans": "objects"}, "token-classification", {"text": "text", "spans": "spans"}, "texts with spans"),
    ({"Text": T, "Label": "code"}, "classification", {"text": "Text", "label": "Label"}, "texts with a label"),
    ({"text": T, "label": "integer"}, "classification", {"text": "text", "label": "label"}, "texts with a label"),
    (
        {"text": T, "labels": "texts"},
        "classification",
        {"text": "text", "labels": "labels"},
        "texts with lists of labels",
    ),
    (
        {"premise": T, "hypothesis": T, "label": "integer"},
        "classification",
        {"text": "premise", "text_pair": "hypothesis", "label": "label"},
        "pairs of texts with a label",
    ),
    ({"text": T, "score": "number"}, "regression", {"text": "text", "target": "score"}, "texts with a number"),
    (
        {"anchor": T, "positive": T, "negative": T},
        "embedding",
        {"anchor": "anchor", "positive": "positive", "negative": "negative"},
        "pairs of anchor and positive",
    ),
]
GUESSES: list[tuple[dict[str, Look], str, str]] = [
    ({"sentence1": T, "sentence2": T, "score": "number"}, "regression", "write type: embedding"),
    ({"review": T, "stars": "integer"}, "regression", "write type: classification"),
    ({"article": T, "highlights": T}, "seq2seq", "write type: causal-lm"),
    ({"source": T, "target": T}, "seq2seq", "write type: causal-lm"),
    ({"tokens": "texts", "pos_tags": "texts", "ner_tags": "texts"}, "token-classification", "write tags: pos_tags"),
    ({"text": T, "category": "code", "sentiment": "code"}, "classification", "write label: sentiment"),
]


@pytest.mark.parametrize(("columns", "type_", "keys", "name"), LAYOUTS)
def test_layout_is_recognized_by_its_columns(columns, type_, keys, name):
    layout = recognize(columns)
    assert layout is not None
    assert (layout.type, layout.keys, layout.name, layout.instead) == (type_, keys, name, "")
    assert layout.reason == f"rows look like {name}: {', '.join(keys.values())}"


@pytest.mark.parametrize(("columns", "type_", "instead"), GUESSES)
def test_layout_that_may_be_another_says_so(columns, type_, instead):
    layout = recognize(columns)
    assert layout is not None
    assert layout.type == type_
    assert layout.instead.startswith(instead)


@pytest.mark.parametrize("columns", [{"a": T, "b": T}, {"label": "integer"}, {"text": "time"}, {}])
def test_layout_of_unknown_columns_is_none(columns):
    assert recognize(columns) is None


def test_layout_of_a_named_type_is_no_question():
    layout = recognize({"sentence1": T, "sentence2": T, "score": "number"}, "embedding")
    assert layout is not None
    assert layout.keys == {"anchor": "sentence1", "positive": "sentence2", "score": "score"}
    assert layout.instead == ""


ROWS: dict[str, Any] = {
    "words": "some words of text",
    "code": "a b",
    "flag": True,
    "whole": 7,
    "gap": 7.0,
    "real": 0.5,
    "strings": ["a", "b"],
    "messages": [{"role": "user"}],
    "mapping": {"a": 1},
    "none": None,
}
LOOKS = ["text", "code", "code", "integer", "integer", "number", "texts", "objects", "object", "nothing"]


@pytest.mark.parametrize("name", ["m.parquet", "m.jsonl", "m.csv"])
def test_looks_of_columns_are_the_same_in_every_format(tmp_path, name):
    if name == "m.parquet":
        pq.write_table(pa.Table.from_pylist([ROWS] * 3), tmp_path / name)
    elif name == "m.jsonl":
        (tmp_path / name).write_text((json.dumps(ROWS) + "\n") * 3)
    else:
        cells = [value if isinstance(value, str) else json.dumps(value) for value in ROWS.values()]
        cells = ["" if cell == "null" else "7" if cell == "7.0" else cell for cell in cells]
        line = "\t".join(cells) + "\n"
        (tmp_path / name).write_text("\t".join(ROWS) + "\n" + line * 3)
    looks = dict(peek(name, tmp_path).looks)
    if name == "m.jsonl":
        looks["none"] = looks.get("none", "nothing")
    assert looks == dict(zip(ROWS, LOOKS, strict=True))


@pytest.fixture
def task_of(tmp_path):
    """The task of a configuration that names its data and what is given."""

    def load(rows: list[dict[str, Any]], **task: Any) -> Any:
        (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config = {"backbone": {"model": "x"}, "tasks": {"t": {"data": "m.jsonl", **task}}, "budget": {"trials": 1}}
        (tmp_path / "sweep.yaml").write_text(json.dumps({"methods": ["lora"], **config}))
        return load_config(tmp_path / "sweep.yaml").tasks["t"]

    return load


def test_task_without_columns_gets_those_that_its_rows_have(task_of):
    task = task_of([{"body": "a text of words", "category": "x"}])
    assert (task.type, task.text, task.label) == ("classification", "body", "category")
    task = task_of([{"question": "a text of words", "answer": "x"}], type="causal-lm")
    assert (task.prompt, task.completion) == ("question", "answer")


@pytest.mark.parametrize(
    ("row", "task", "line"),
    [
        (
            {"a": "some words here", "b": 1},
            {},
            "tasks.t.type: is missing; the columns a, b are of no known layout; write type and its keys, as in"
            " type: classification, text and label",
        ),
        (
            {"text": "some words here", "stars": 3},
            {},
            "tasks.t: rows look like texts with a number: text, stars; write type: regression, text: text,"
            " target: stars for that, or type: classification, with text and label, if each number is a class of its"
            " own",
        ),
        (
            {"text": "some words here", "topic": "x", "emotion": "y"},
            {"type": "classification"},
            "tasks.t: rows look like texts with a label: text, topic; write type: classification, text: text,"
            " label: topic for that, or label: emotion to learn that",
        ),
    ],
)
def test_ambiguous_rows_are_asked_for_in_one_line(task_of, row, task, line):
    with pytest.raises(InputError) as raised:
        task_of([row], **task)
    (asked,) = raised.value.lines()
    assert asked.endswith(line)
