"""What a plan tells of rows: their layout, labels that are nearly the same, inputs with several answers."""

import json
from typing import Any

import pytest

from orchestrator.tasks.splits import NAMES


@pytest.fixture
def rows_of(read, tmp_path):
    """Reads rows of text and label."""

    def find(rows: list[tuple[Any, Any]], **settings: Any) -> Any:
        lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in rows]
        (tmp_path / "m.jsonl").write_text("".join(lines))
        return read("m.jsonl", **settings)

    return find


LABELS = ["good", "good ", "bad", "Bad"]


def test_labels_that_differ_in_white_space_or_case_are_told_with_counts(rows_of):
    rows = [(f"text {i}", LABELS[i % 4]) for i in range(41)]
    data = rows_of(rows)
    assert data.labels == ("Bad", "bad", "good", "good ")
    assert set(data.notes) == {
        "labels 'good' (11 rows) and 'good ' (10 rows) differ in white space alone; strip: true makes them one",
        "labels 'Bad' (10 rows) and 'bad' (10 rows) differ in case or white space alone, and are classes of their own",
    }


def test_strip_removes_white_space_of_texts_and_labels(rows_of):
    data = rows_of([(f" text {i}\n", LABELS[i % 3]) for i in range(30)], strip=True)
    assert data.labels == ("bad", "good")
    assert data.notes == ()
    assert {text for name in NAMES for text in data.splits[name]["text"].to_pylist()} == {
        f"text {i}" for i in range(30)
    }


def test_inputs_with_several_answers_are_counted(rows_of):
    rows = [(f"text {i}", "ab"[i % 2]) for i in range(20)]
    assert rows_of([*rows, *rows[:3]]).notes == ()
    data = rows_of([*rows, ("text 0", "b"), ("text 1", "a"), ("text 1", "a")])
    assert data.notes == ("2 inputs have more than one answer in these rows; one row of each is used",)
    assert data.duplicates_removed == 3


def test_answers_that_differ_between_given_splits_are_counted(read, tmp_path):
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(30)]
    parts = {"train": rows[:10], "validation": [*rows[10:20], {"text": "text 0", "label": "b"}], "test": rows[20:]}
    for name, part in parts.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    data = read({name: f"{name}.jsonl" for name in NAMES})
    assert data.notes == ("1 input has more than one answer in these rows; one row of each is used outside test",)


def test_prompts_with_several_completions_are_no_conflict(rows_of):
    rows = [(f"text {i // 2}", "ab"[i % 2]) for i in range(20)]
    assert rows_of(rows, type="causal-lm").notes == ()


def test_layout_with_a_name_is_told(read, tmp_path):
    row = {"instruction": "some words here", "input": "", "output": "more words here"}
    lines = [json.dumps({**row, "output": f"{row['output']} {i}"}) + "\n" for i in range(20)]
    (tmp_path / "m.jsonl").write_text("".join(lines))
    keys = {"prompt": None, "completion": None, **{key: key for key in row}}
    data = read("m.jsonl", type="causal-lm", **keys)
    assert data.notes == ("rows look like Alpaca: instruction, output, input",)
