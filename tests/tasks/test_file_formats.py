"""Formats, compressions, shards and folders: the same rows, whatever holds them."""

import bz2
import csv
import gzip
import json
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from orchestrator.common.errors import InputError
from orchestrator.tasks.files import read_parts
from orchestrator.tasks.splits import NAMES

ROWS = [{"text": f"text {i}, \u00e9\u2028\U0001f600", "label": "good" if i % 3 else "bad"} for i in range(60)]


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",", newline: str = "\n") -> str:
    def quoted(value: str) -> str:
        return '"' + value.replace('"', '""') + '"' if delimiter in value or '"' in value else value

    lines = [delimiter.join(rows[0]), *(delimiter.join(quoted(str(v)) for v in row.values()) for row in rows)]
    return "".join(line + newline for line in lines)


def as_jsonl(rows: list[dict[str, Any]], newline: str = "\n") -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + newline for row in rows)


PLAIN, LINES = as_csv(ROWS).encode(), as_jsonl(ROWS)
FILES = {
    "m.tsv": as_csv(ROWS, "\t").encode(),
    "M.CSV": PLAIN,
    "semicolon.csv": as_csv(ROWS, ";").encode(),
    "bar.csv": as_csv(ROWS, "|").encode(),
    "mac.csv": as_csv(ROWS, newline="\r").encode(),
    "windows.csv": as_csv(ROWS, newline="\r\n").encode(),
    "marked.csv": as_csv(ROWS).encode("utf-8-sig"),
    "utf16.csv": as_csv(ROWS).encode("utf-16"),
    "space in header.csv": as_csv(ROWS).replace("text,label", "text, label").encode(),
    "M.CSV.GZ": gzip.compress(PLAIN),
    "members.csv.gz": gzip.compress(PLAIN[:500]) + gzip.compress(PLAIN[500:]),
    "m.csv.bz2": bz2.compress(PLAIN),
    "m.csv.zst": zstd(PLAIN),
    "no suffix for it.csv": gzip.compress(PLAIN),
    "m.json": json.dumps(ROWS).encode(),
    "indented.json": json.dumps(ROWS, indent=2).encode(),
    "lines.json": LINES.encode(),
    "array.jsonl": json.dumps(ROWS).encode(),
    "blank lines.jsonl": LINES.replace("\n", "\n \n").encode(),
    "windows.jsonl": as_jsonl(ROWS, "\r\n").encode(),
    "mac.jsonl": as_jsonl(ROWS, "\r").encode(),
    "marked.jsonl": LINES.encode("utf-8-sig"),
    "utf16.jsonl": LINES.encode("utf-16"),
    "m.jsonl.zst": zstd(LINES.encode()),
    "m.ndjson.Gz": gzip.compress(LINES.encode()),
}


@pytest.fixture
def reference(read, tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "reference.parquet")
    return read("reference.parquet")


@pytest.mark.parametrize("name", FILES)
def test_rows_are_the_same_in_every_text_format(read, tmp_path, reference, name):
    (tmp_path / name).write_bytes(FILES[name])
    data = read(name)
    assert data.splits == reference.splits
    assert data.digest == reference.digest


def test_compressed_parquet_and_arrow_are_read(read, tmp_path, reference):
    content = (tmp_path / "reference.parquet").read_bytes()
    (tmp_path / "m.parquet.gz").write_bytes(gzip.compress(content))
    pyarrow.feather.write_feather(pa.Table.from_pylist(ROWS), tmp_path / "m.arrow", compression="lz4")
    (tmp_path / "n.arrow.zst").write_bytes(zstd((tmp_path / "m.arrow").read_bytes()))
    for name in ("m.parquet.gz", "m.arrow", "n.arrow.zst"):
        assert read(name).splits == reference.splits


def write_shards(folder, suffix):
    folder.mkdir(parents=True)
    for shard, start in {"part-2": 0, "part-10": 25, "part-11": 50}.items():
        rows = ROWS[start : start + 25]
        if suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard}.parquet")
        else:
            (folder / f"{shard}{suffix}").write_text(as_jsonl(rows) if suffix == ".jsonl" else as_csv(rows))
    (folder / "_SUCCESS").write_text("")
    (folder / "README.md").write_text("what this is")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_shards_of_a_folder_or_pattern_are_one_split(read, tmp_path, reference, suffix):
    write_shards(tmp_path / "shards", suffix)
    for data in ("shards", "shards/", "shards/part-*", f"**/part-*{suffix}", f"file://{tmp_path}/shards"):
        assert read(data).splits == reference.splits, data


def test_rows_of_shards_are_named_with_their_file(read, tmp_path):
    write_shards(tmp_path / "shards", ".jsonl")
    with (tmp_path / "shards" / "part-10.jsonl").open("a") as file:
        file.write('{"text": "", "label": "bad"}\nnone\n')
    with pytest.raises(InputError) as raised:
        read("shards")
    assert raised.value.lines()[:2] == [
        "shards: part-10.jsonl row 26, column text: is empty",
        "shards: part-10.jsonl row 27: is not JSON (Expecting value at character 1)",
    ]
    assert sorted(
        row for split in read("shards", drop_invalid=True).splits.values() for row in split["row"].to_pylist()
    ) == [*range(1, 51), *range(53, 63)]


def test_unknown_label_in_a_shard_is_named_with_its_file(read, tmp_path):
    write_shards(tmp_path / "shards", ".csv")
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text(
            as_csv([{"text": f"{split} {i}", "label": "ab"[i % 2]} for i in range(9)])
        )
    with pytest.raises(InputError) as raised:
        read({"train": "train.csv", "validation": "validation.csv", "test": "shards"})
    assert raised.value.lines()[0] == (
        "shards: no row can be used;"
        " part-2.csv row 1, column label: label 'bad' is not among the training rows; labels: a, b"
    )


def test_shards_of_different_types_are_read_together(read, tmp_path):
    (tmp_path / "shards").mkdir()
    pq.write_table(
        pa.table({"text": [f"a{i}" for i in range(20)], "label": [0, 1] * 10}), tmp_path / "shards/0.parquet"
    )
    (tmp_path / "shards/1.csv").write_text(as_csv([{"text": f"b{i}", "label": "01"[i % 2]} for i in range(20)]))
    assert read("shards").labels == ("0", "1")


def test_saved_dataset_is_read_by_its_list_of_shards(read, tmp_path, reference):
    folder = tmp_path / "saved"
    folder.mkdir()
    for index, rows in enumerate((ROWS[:40], ROWS[40:])):
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(folder / f"data-{index}.arrow", table.schema) as writer:
            writer.write_table(table)
    (folder / "data-9.arrow").write_bytes(b"left by an earlier save")
    files = [{"filename": f"data-{index}.arrow"} for index in range(2)]
    (folder / "state.json").write_text(json.dumps({"_data_files": files, "_fingerprint": "x"}))
    (folder / "dataset_info.json").write_text("{}")
    assert read("saved").splits == reference.splits


def test_folder_of_several_splits_asks_for_the_split(read, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved/dataset_dict.json").write_text('{"splits": ["train", "dev", "test"]}')
    (tmp_path / "hub").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / f"hub/{name}.parquet")
    for folder, written in {
        "saved": "train: saved/train, validation: saved/dev, test: saved/test",
        "hub": "train: hub/train*, validation: ..., test: hub/test-00000-of-00001.parquet",
    }.items():
        with pytest.raises(InputError) as raised:
            read(folder)
        assert raised.value.lines() == [f"{folder}: is a folder of several splits; write data: {{{written}}}"]


def test_text_between_tabs_may_have_single_quotes_of_its_own(read, tmp_path, reference):
    rows = [{**row, "text": f'"{row["text"]}' if i % 2 else f'5" {row["text"]}'} for i, row in enumerate(ROWS)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    text = "".join("\t".join(row) + "\n" for row in [["text", "label"], *(list(r.values()) for r in rows)])
    (tmp_path / "m.tsv").write_text(text)
    assert read("m.tsv").splits == read("m.parquet").splits


def test_codes_stay_as_they_are_written_in_csv(read, tmp_path):
    rows = [{"text": f"t{i}", "label": ["001", "1", "True", "true"][i % 4]} for i in range(40)]
    (tmp_path / "m.csv").write_text(as_csv(rows))
    assert read("m.csv").labels == ("001", "1", "True", "true")


def test_columns_that_nobody_asked_for_are_not_parsed(read, tmp_path, reference):
    odd = [{**row, "other": [1, "x", None, {"a": []}][i % 4], "row": i} for i, row in enumerate(ROWS)]
    (tmp_path / "m.jsonl").write_text(as_jsonl(odd))
    text = as_csv([{**row, "other": "\udcff", "row": "x"} for row in ROWS])
    (tmp_path / "m.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    table = pa.Table.from_pylist(ROWS)
    duplicated = pa.table([*table.columns, table["text"], table["text"]], ["text", "label", "other", "other"])
    pq.write_table(duplicated, tmp_path / "m.parquet")
    for name in ("m.jsonl", "m.csv", "m.parquet"):
        assert read(name).splits == reference.splits


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.parquet"])
def test_column_called_row_is_read_as_any_other(read, tmp_path, name):
    rows = [{"row": row["text"], "label": row["label"], "id": i} for i, row in enumerate(ROWS)]
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    else:
        (tmp_path / name).write_text(as_csv(rows) if name == "m.csv" else as_jsonl(rows))
    data = read(name, text="row", where={"row": {"matches": "text"}})
    first = data.splits["train"].to_pylist()[0]
    assert first["text"] == ROWS[first["row"] - 1]["text"]


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "m.json", "m.parquet"])
def test_rows_of_five_megabytes_are_read(read, tmp_path, name):
    rows = [{"text": "x" * 5_000_000 * (i == 5) + str(i), "label": "ab"[i % 2]} for i in range(12)]
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    else:
        content = {"m.csv": as_csv(rows), "m.jsonl": as_jsonl(rows), "m.json": json.dumps(rows)}[name]
        (tmp_path / name).write_text(content)
    assert sum(read(name).splits[split].num_rows for split in NAMES) == 12


def test_csv_of_the_standard_library_is_read_as_it_was_written(read, tmp_path):
    rows = [{"text": f'a "quoted",\n\r\n; {i}\t|', "label": "ab"[i % 2]} for i in range(20)]
    for delimiter in ",;\t|":
        with (tmp_path / "m.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
        assert {t for s in NAMES for t in read("m.csv").splits[s]["text"].to_pylist()} == {r["text"] for r in rows}


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ({"code": {"equals": "001"}}, 20),
        ({"code": {"equals": 1}}, 40),
        ({"ok": {"equals": "True"}}, 20),
        ({"ok": {"equals": True}}, 40),
        ({"code": {"at_least": 1.5}}, 20),
        ({"day": {"matches": "^2020-01-0[12]"}}, 40),
        ({"day": {"equals": "2020-01-03"}}, 20),
    ],
)
def test_where_compares_csv_as_it_is_written(read, tmp_path, condition, rows):
    lines = [
        f"text {i},{'ab'[i // 3 % 2]},{('001', '1', '2')[i % 3]},{('True', 'true', 'no')[i % 3]},2020-01-0{i % 3 + 1}"
        for i in range(60)
    ]
    (tmp_path / "m.csv").write_text("\n".join(["text,label,code,ok,day", *lines, ""]))
    data = read("m.csv", where=condition)
    assert sum(data.splits[name].num_rows for name in NAMES) == rows


def test_numbered_tags_get_the_names_that_stand_beside_them(tmp_path):
    names = ["O", "B-X", "I-X"]
    features = {"tags": {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "List"}, "label": {}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"tags": [[0, 1], None, [2, -1], []], "label": [0, 1, 2, 0]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "m.parquet")
    columns = next(read_parts("m.parquet", tmp_path, {"t.tags": ["tags", "label"]})).columns
    assert columns["tags"].to_pylist() == [["O", "B-X"], None, ["I-X", None], []]
    assert columns["label"].to_pylist() == [0, 1, 2, 0]
