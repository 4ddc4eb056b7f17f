"""A first configuration for rows of each layout: it is valid, and says what it assumed."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.common.errors import InputError
from orchestrator.config import load_config
from orchestrator.config.draft import draft
from orchestrator.tasks import read_task
from orchestrator.tasks.layouts import recognize
from orchestrator.tasks.reading.peek import peek

TEXT = "row number {} of many"
LAYOUTS: dict[str, dict[str, Any]] = {
    "labels.jsonl": {"text": TEXT, "label": ["good", "bad"]},
    "codes.csv": {"review": TEXT, "sentiment": ["01", "02"]},
    "pairs.parquet": {"premise": TEXT, "hypothesis": "other {}", "label": [0, 1]},
    "topics.jsonl": {"text": TEXT, "labels": [["a"], ["a", "b"]]},
    "scores.csv": {"text": TEXT, "score": [0.5, 1.25]},
    "related.parquet": {"sentence1": TEXT, "sentence2": "other {}", "score": [0.5, 1.25]},
    "words.jsonl": {"tokens": ["a", "word{}"], "tags": ["O", "B-X"], "id": "{}"},
    "spans.jsonl": {"text": "some text {}", "spans": [{"start": 0, "end": 4, "label": "X"}]},
    "chats.jsonl": {
        "messages": [{"role": "user", "content": "question {}"}, {"role": "assistant", "content": "answer"}],
        "other: column": 5,
    },
    "sharegpt.json": {"conversations": [{"from": "human", "value": "question {}"}, {"from": "gpt", "value": "answer"}]},
    "alpaca.jsonl": {"instruction": "instruction {} of many", "input": "", "output": "an answer"},
    "prompts.tsv": {"prompt": "prompt {} of many", "completion": "the end"},
    "plain.jsonl": {"text": TEXT},
    "quiz.jsonl": {"question": "question {} of many", "choices": ["a", "b"], "answer": "a"},
    "translation.jsonl": {"source": "source {} of many", "target": "target {} of many"},
    "search.jsonl": {"anchor": "query {} of many", "positive": "document {} of many"},
}
TYPES = {
    **dict.fromkeys(("labels", "codes", "pairs", "topics"), "classification"),
    **dict.fromkeys(("scores", "related"), "regression"),
    **dict.fromkeys(("words", "spans"), "token-classification"),
    **dict.fromkeys(("chats", "sharegpt", "alpaca", "prompts", "plain"), "causal-lm"),
    "quiz": "choice",
    "translation": "seq2seq",
    "search": "embedding",
}


CYCLED = ("label", "labels", "sentiment", "score")


def row(layout: dict[str, Any], index: int) -> dict[str, Any]:
    values = {key: value[index % 2] if key in CYCLED else value for key, value in layout.items()}
    return json.loads(json.dumps(values).replace("{}", str(index)))


def write(folder, name, layout):
    rows = [row(layout, index) for index in range(40)]
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), folder / name)
    elif name.endswith((".csv", ".tsv")):
        delimiter = "\t" if name.endswith(".tsv") else ","
        lines = [delimiter.join(layout), *(delimiter.join(str(value) for value in r.values()) for r in rows)]
        (folder / name).write_text("\n".join(lines) + "\n")
    elif name.endswith(".json"):
        (folder / name).write_text(json.dumps(rows))
    else:
        (folder / name).write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.mark.parametrize("name", LAYOUTS)
def test_draft_is_valid_and_its_rows_can_be_read(tmp_path, name):
    stem = name.split(".")[0]
    write(tmp_path, name, LAYOUTS[name])
    layout = recognize(peek(name, tmp_path).looks)
    assert layout is not None
    assert layout.type == TYPES[stem]
    written = draft(name, tmp_path)
    (tmp_path / "sweep.yaml").write_text(written.text)
    config = load_config(tmp_path / "sweep.yaml")
    assert (config.name, [*config.tasks]) == (stem, [stem])
    task = config.tasks[stem]
    assert task.type == TYPES[stem]
    assert written.assumed[0].startswith("rows look like ")
    for line in written.assumed:
        assert f"#   {line}\n" in written.text
    data = read_task(stem, task, tmp_path, 0)
    assert sum(table.num_rows for table in data.splits.values()) > 0


def test_draft_takes_the_splits_beside_a_file_of_training_rows(tmp_path):
    for split in ("train", "dev", "test"):
        write(tmp_path, f"mail-{split}.jsonl", LAYOUTS["labels.jsonl"])
    written = draft("mail-train.jsonl", tmp_path)
    (tmp_path / "sweep.yaml").write_text(written.text)
    files = load_config(tmp_path / "sweep.yaml").tasks["mail"].files()
    assert [*files.values()] == ["mail-train.jsonl", "mail-dev.jsonl", "mail-test.jsonl"]


def test_draft_takes_the_model_that_is_given(tmp_path):
    write(tmp_path, "labels.jsonl", LAYOUTS["labels.jsonl"])
    written = draft("labels.jsonl", tmp_path, "me/my-model")
    assert "  model: me/my-model #" in written.text
    assert not any("--model" in line for line in written.assumed)


def test_draft_tells_the_encoding_of_text_that_is_not_utf8(tmp_path):
    lines = "".join(f"caf\xe9 {i} of many,{'ab'[i % 2]}\n" for i in range(20))
    (tmp_path / "m.csv").write_bytes(("text,label\n" + lines).encode("latin-1"))
    assert "    encoding: latin-1\n" in draft("m.csv", tmp_path).text


def test_draft_quotes_names_that_yaml_would_read_otherwise(tmp_path):
    names = ["1e5", "null", "a: b", "x #y", "caf\xe9, {1}"]
    for name in names:
        (tmp_path / "rows").mkdir(exist_ok=True)
        write(tmp_path, "labels.jsonl", LAYOUTS["labels.jsonl"])
        written = draft("labels.jsonl", tmp_path, name)
        (tmp_path / "sweep.yaml").write_text(written.text)
        try:
            assert load_config(tmp_path / "sweep.yaml").backbone.model == name
        except InputError as error:
            assert name in str(error)  # noqa: PT017  # a name that is no model is refused as it was written


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (
            "a,b\nsome words here,1\n",
            "m.csv: the columns a, b are of no known layout; write type and its keys, as in type: classification, text"
            " and label",
        ),
        ("", "m.csv: is empty"),
    ],
)
def test_draft_of_unknown_rows_is_refused_in_one_line(tmp_path, content, line):
    (tmp_path / "m.csv").write_text(content)
    with pytest.raises(InputError) as raised:
        draft("m.csv", tmp_path)
    assert raised.value.lines() == [line]
