"""Whatever a data file holds, it is rows, or a line for each mistake with the row where it is."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from orchestrator.config import load_config
from orchestrator.tasks import read_task
from tests.inputs.generated import ends_well, json_values, texts, tried

TASKS: list[dict[str, Any]] = [
    {"type": "classification", "text": "text", "label": "label"},
    {"type": "classification", "text": "text", "label": "label", "drop_invalid": True, "strip": True},
    {"type": "classification", "text": "text", "label": "label", "where": {"text": {"matches": "a"}}},
    {"type": "classification", "text": "text", "label": "label", "where": {"label": {"at_least": 0}}},
    {"type": "classification", "text": "text", "label": "label", "where": {"label": {"equals": True}}},
    {"type": "classification", "text": "text", "labels": "label"},
    {"type": "regression", "text": "text", "target": "label", "drop_invalid": True},
    {"type": "causal-lm", "prompt": "{text}:", "completion": "label"},
    {"type": "causal-lm", "messages": "text"},
    {"type": "token-classification", "tokens": "text", "tags": "label"},
    {"type": "seq2seq", "source": "text", "target": "label"},
    {"type": "choice", "prompt": "text", "completion": "label", "choices": ["a", "b"]},
    {"type": "choice", "prompt": "text", "completion": "text", "choices": "label"},
    {"type": "classification"},
]
ROWS = [{"text": f"word{number} here", "label": "ab"[number % 2]} for number in range(12)]


def read(name: str, content: bytes, task: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        config = {"backbone": {"model": "x"}, "tasks": {"t": {"data": name, **task}}, "budget": {"trials": 1}}
        (file := Path(folder) / "sweep.yaml").write_text(json.dumps(config))

        def work() -> None:
            loaded = load_config(file)
            read_task("t", loaded.tasks["t"], loaded.base, 0)

        ends_well(work)


cells = texts | st.text("ab\",;\n\r\t'\\ \x00\ufeff", max_size=6) | st.sampled_from(["word here", "nan", "1", "[1"])


def check_csv(parts: tuple[list[list[str]], dict[str, Any], int, bytes]) -> None:
    cells, task, place, junk = parts
    lines = ["text,label", *(f"{row['text']},{row['label']}" for row in ROWS), *(",".join(row) for row in cells)]
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    place %= len(content)
    read("m.csv", content[:place] + junk + content[place:], task)


def check_json(parts: tuple[list[Any], dict[str, Any], bool]) -> None:
    values, task, is_array = parts
    rows = [*ROWS, *values]
    lines = json.dumps(rows) if is_array else "\n".join(map(json.dumps, rows))
    read("m.json" if is_array else "m.jsonl", lines.encode(), task)


def check_parquet(parts: tuple[pa.Array, pa.Array, dict[str, Any]]) -> None:
    text, label, task = parts
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(pa.table({"text": text, "label": label}), sink)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # parquet has no such column
        return
    read("m.parquet", sink.getvalue().to_pybytes(), task)


def arrays(size: int = 12) -> st.SearchStrategy[pa.Array]:
    """Columns of every type, with nulls."""

    def array(item: st.SearchStrategy[Any], kind: pa.DataType) -> st.SearchStrategy[pa.Array]:
        return st.lists(st.none() | item, min_size=size, max_size=size).map(lambda values: pa.array(values, kind))

    whole = st.integers(0, 3)
    words = st.sampled_from(["word here", "a", "b", "", "é"])
    return st.one_of(
        array(words, pa.string()),
        array(words, pa.large_string()),
        array(words, pa.string_view()),
        array(words, pa.dictionary(pa.int8(), pa.string())),
        array(st.binary(max_size=3), pa.binary()),
        array(whole, pa.int64()),
        array(whole, pa.uint8()),
        array(st.floats(), pa.float64()),
        array(whole, pa.decimal128(9, 2)),
        array(st.booleans(), pa.bool_()),
        array(whole, pa.timestamp("ms")),
        array(whole, pa.date32()),
        array(whole, pa.duration("s")),
        array(st.lists(words, max_size=2), pa.list_(pa.string())),
        array(st.lists(whole, max_size=2), pa.large_list(pa.int32())),
        array(
            st.fixed_dictionaries({"role": words, "content": words}),
            pa.struct({"role": pa.string(), "content": pa.string()}),
        ),
        array(st.lists(st.tuples(words, words), max_size=2), pa.map_(pa.string(), pa.string())),
        st.just(pa.nulls(size)),
    )


task_of = st.sampled_from(TASKS)
row = (
    st.fixed_dictionaries({"text": json_values, "label": json_values})
    | st.dictionaries(texts, json_values)
    | json_values
)
csv_cases = st.tuples(
    st.lists(st.lists(cells, max_size=3), max_size=3), task_of, st.integers(0, 300), st.binary(max_size=3)
)

test_csv, test_csv_many_times = tried(csv_cases)(check_csv)
test_json, test_json_many_times = tried(st.tuples(st.lists(row, max_size=3), task_of, st.booleans()))(check_json)
test_parquet, test_parquet_many_times = tried(st.tuples(arrays(), arrays(), task_of))(check_parquet)
