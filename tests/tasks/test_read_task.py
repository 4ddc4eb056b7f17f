import gzip
import json
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from orchestrator.tasks.splits import NAMES

ROWS = [{"text": f"text {i}", "label": "good" if i % 3 else "bad"} for i in range(60)]


def save(folder, name, rows=ROWS):
    table, path = pa.Table.from_pylist(rows), folder / name
    if name.endswith(".parquet"):
        pq.write_table(table, path)
    elif name.endswith(".feather"):
        pyarrow.feather.write_feather(table, path)
    elif name.endswith(".arrow"):  # the form for streams, as other libraries write it
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif name.endswith(".gz"):
        (folder / "plain.csv").write_bytes(b"")
        pyarrow.csv.write_csv(table, folder / "plain.csv")
        path.write_bytes(gzip.compress((folder / "plain.csv").read_bytes()))
    else:
        pyarrow.csv.write_csv(table, path)
    return name


def texts(data, split):
    return data.splits[split]["text"].to_pylist()


@pytest.mark.parametrize("name", ["m.parquet", "m.feather", "m.arrow", "m.jsonl", "m.csv", "m.csv.gz"])
def test_splits_are_the_same_in_every_file_format(read, tmp_path, name):
    data, reference = read(save(tmp_path, name)), read(save(tmp_path, "reference.csv"))
    assert data.splits == reference.splits
    assert data.digest == reference.digest
    assert data.labels == ("bad", "good")


def test_splits_are_complete_stratified_and_in_file_order(read, tmp_path):
    data = read(save(tmp_path, "m.csv"))
    assert [data.splits[name].num_rows for name in NAMES] == [36, 12, 12]
    assert sorted(row for name in NAMES for row in data.splits[name]["row"].to_pylist()) == list(range(1, 61))
    for name in NAMES:
        split = data.splits[name]
        assert split.schema.types == [pa.int64(), pa.string(), pa.int32()]
        assert sum(split["label"].to_pylist()) == split.num_rows * 2 // 3
        assert split["row"].to_pylist() == sorted(split["row"].to_pylist())
        for row, text, label in zip(*(split[c].to_pylist() for c in ("row", "text", "label")), strict=True):
            assert (text, data.labels[label]) == (ROWS[row - 1]["text"], ROWS[row - 1]["label"])
    assert data.majority == pytest.approx(2 / 3)


def test_splits_depend_on_the_seed_alone(read, tmp_path):
    name = save(tmp_path, "m.csv")
    assert read(name, seed=1).splits == read(name, seed=1).splits
    assert read(name, seed=1).splits != read(name, seed=2).splits
    assert read(name, seed=1).digest != read(name, seed=2).digest


def test_digest_depends_on_the_content_alone(read, tmp_path):
    given = {name: save(tmp_path, f"{name}.csv", ROWS[i * 20 : i * 20 + 20]) for i, name in enumerate(NAMES)}
    before = read(given)
    shifted = [{"text": " ", "label": "bad"}, *ROWS[:20]]
    again = read({**given, "train": save(tmp_path, "shifted.csv", shifted)}, drop_invalid=True)
    assert again.splits["train"]["row"].to_pylist() != before.splits["train"]["row"].to_pylist()
    assert again.digest == before.digest
    changed = [{**ROWS[0], "text": "text X"}, *ROWS[1:20]]
    assert read({**given, "train": save(tmp_path, "changed.csv", changed)}).digest != before.digest


@pytest.mark.parametrize(
    "odd",
    [
        [f"{i:03}" for i in range(10)],
        [f"{i}.50" for i in range(10)],
        [f"2020-01-0{i}" for i in range(1, 10)],
        [f"2020-01-01 00:00:0{i}" for i in range(10)],
        ["NA", "N/A", "null", "NULL", "nan", "NaN", "#N/A", "true", "-nan", "n/a"],
    ],
    ids=lambda odd: odd[1],
)
def test_texts_like_numbers_dates_or_nulls_stay_texts(read, tmp_path, odd):
    rows = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(odd)]
    for name in ("m.csv", "m.jsonl"):
        data = read(save(tmp_path, name, rows))
        assert sorted(text for split in NAMES for text in texts(data, split)) == sorted(odd)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([1, 2, 10], ("1", "2", "10")),
        ([True, False], ("false", "true")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["b", "a", "10"], ("10", "a", "b")),
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_labels_may_be_numbers_booleans_or_texts(read, tmp_path, labels, names, suffix):
    rows = [{"text": f"t{i}", "label": labels[i % len(labels)]} for i in range(30)]
    assert read(save(tmp_path, f"m.{suffix}", rows)).labels == names


def test_whole_float_labels_with_gaps_are_read(read, tmp_path):
    rows = [{"text": f"t{i}", "label": [1.0, 2.0][i % 2]} for i in range(30)] + [{"text": "no label", "label": None}]
    data = read(save(tmp_path, "m.parquet", rows), drop_invalid=True)
    assert (data.labels, data.dropped) == (("1", "2"), 1)


def test_duplicates_are_removed_and_counted(read, tmp_path):
    data = read(save(tmp_path, "m.csv", [*ROWS, *ROWS[:7]]))
    assert data.duplicates_removed == 7
    assert data.splits == read(save(tmp_path, "once.csv")).splits


def test_duplicates_across_given_splits_stay_in_test(read, tmp_path):
    train, validation, test = ROWS[:20] + ROWS[:2], ROWS[15:35] + ROWS[15:16], ROWS[30:50] + ROWS[30:31]
    files = {
        name: save(tmp_path, f"{name}.csv", rows) for name, rows in zip(NAMES, (train, validation, test), strict=True)
    }
    data = read(files)
    assert texts(data, "test") == [row["text"] for row in test]
    assert texts(data, "validation") == [row["text"] for row in ROWS[15:30]]
    assert texts(data, "train") == [row["text"] for row in ROWS[:15]]
    assert data.duplicates_removed == 2 + 5 + 5 + 1


def test_where_keeps_rows_that_meet_every_condition(read, tmp_path):
    rows: list[dict[str, Any]] = [{**row, "stars": i % 5, "kind": "x" if i % 2 else "y"} for i, row in enumerate(ROWS)]
    where = {"text": {"matches": "(?i)TEXT [0-4]"}, "stars": {"at_least": 1, "at_most": 3}, "kind": {"equals": "x"}}
    expected = [r["text"] for r in rows if r["text"][5] in "01234" and 1 <= r["stars"] <= 3 and r["kind"] == "x"]
    for name in ("m.csv", "m.parquet"):
        data = read(save(tmp_path, name, rows), where=where)
        assert sorted(text for split in NAMES for text in texts(data, split)) == sorted(expected)
    assert read("m.csv", where={"stars": {"equals": 2}}).splits["test"].num_rows == 3


def test_where_excludes_rows_from_validation(read, tmp_path):
    rows = [{**row, "keep": "yes"} for row in ROWS] + [{"text": "", "label": "", "keep": "no"}]
    assert read(save(tmp_path, "m.csv", rows), where={"keep": {"equals": "yes"}}).dropped == 0


def test_max_rows_draws_a_stratified_sample(read, tmp_path):
    data = read(save(tmp_path, "m.csv"), max_rows=30)
    assert [data.splits[name].num_rows for name in NAMES] == [18, 6, 6]
    assert sum(sum(data.splits[name]["label"].to_pylist()) for name in NAMES) == 20


def test_encoding_of_csv_is_respected(read, tmp_path):
    rows = "".join(f"caf\xe9 {i},{'ab'[i % 2]}\r\n" for i in range(12))
    (tmp_path / "m.csv").write_bytes(b"text,label\r\n" + rows.encode("latin-1"))
    assert texts(read("m.csv", encoding="latin-1"), "train")[0].startswith("caf\xe9 ")


def test_prompts_and_completions_come_from_columns_or_templates(read, tmp_path):
    save(tmp_path, "m.csv")
    data = read("m.csv", type="causal-lm", prompt="Q {text} {{{label}}}:", completion="label")
    assert (data.labels, data.majority) == ((), None)
    row = data.splits["train"].to_pylist()[0]
    source = ROWS[row["row"] - 1]
    assert row["prompt"] == f"Q {source['text']} {{{source['label']}}}:"
    assert row["completion"] == source["label"]
    assert data.splits["train"].column_names == ["row", "prompt", "completion"]


def test_duplicates_need_the_same_prompt_and_completion(read, tmp_path):
    rows = [{"text": f"t{i // 2}", "label": "ab"[i % 2]} for i in range(20)] * 2
    data = read(save(tmp_path, "m.csv", rows), type="causal-lm")
    assert data.duplicates_removed == 20


def test_data_uri_is_read_through_its_filesystem(read, tmp_path):
    save(tmp_path, "m.parquet")
    assert read(f"file://{tmp_path}/m.parquet").splits == read("m.parquet").splits
