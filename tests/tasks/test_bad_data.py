"""Data that cannot be used: the error names file, row, column and the mend."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.common.errors import InputError

GOOD = [f"text {i},{'ab'[i % 2]}" for i in range(20)]
DROP = "drop them with tasks.mail.drop_invalid: true"


@pytest.fixture
def problems(read, tmp_path):
    """What reading a csv file of these lines says."""

    def find(lines: list[Any], header: Any = "text,label", file: str = "m.csv", **settings: Any) -> list[str]:
        content: Any = "\n".join([header, *lines, ""])
        (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode("latin-1"))
        with pytest.raises(InputError) as raised:
            read(file, **settings)
        return raised.value.lines()

    return find


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (",a", "row 3, column text: is empty"),
        ('" \t",a', "row 3, column text: is empty"),
        ("x,", "row 3, column label: is empty"),
        ("caf\xe9,a", "row 3, column text: is not UTF-8; tasks.mail.encoding names another encoding of a csv file"),
        ("x", "row 3: has 1 field where the header has 2"),
        ("x,y,z", "row 3: has 3 fields where the header has 2"),
    ],
)
def test_invalid_row_is_named_or_dropped(problems, read, line, message):
    assert problems([*GOOD[:2], line, *GOOD[2:]]) == [f"m.csv: {message}", DROP]
    data = read("m.csv", drop_invalid=True)
    assert data.dropped == 1
    assert sorted(row for split in data.splits.values() for row in split["row"].to_pylist()) == [1, 2, *range(4, 22)]


def test_invalid_rows_include_nulls_in_parquet(read, tmp_path):
    rows = [{"text": f"t{i}", "label": i % 2} for i in range(20)] + [
        {"text": None, "label": 1},
        {"text": "x", "label": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    with pytest.raises(InputError) as raised:
        read("m.parquet")
    assert raised.value.lines() == [
        "m.parquet: row 21, column text: is empty",
        "m.parquet: row 22, column label: is empty",
        DROP,
    ]


def test_header_that_is_not_csv_is_refused(problems):
    assert problems(GOOD, header='"a"b,label') == ["""m.csv: has a header that is not csv (',' expected after '"')"""]


def test_row_numbers_count_rows_not_lines(problems):
    assert problems(['"two\nlines",a', ",b", *GOOD])[0] == "m.csv: row 2, column text: is empty"


def test_row_numbers_count_multiline_values_in_large_files(problems):
    lines = problems([f'"two\nlines {i} {"x" * 40}",{"ab"[i % 2]}' for i in range(30_000)] + [",a"])
    assert lines == ["m.csv: row 30,001, column text: is empty", DROP]


def test_invalid_rows_are_listed_in_file_order(problems):
    assert problems([*GOOD, "x,", ",a", "y"]) == [
        "m.csv: row 21, column label: is empty",
        "m.csv: row 22, column text: is empty",
        "m.csv: row 23: has 1 field where the header has 2",
        DROP,
    ]


def test_invalid_rows_beyond_ten_are_counted(problems):
    lines = problems([*GOOD, *[",a"] * 1500])
    assert lines[:10] == [f"m.csv: row {row}, column text: is empty" for row in range(21, 31)]
    assert lines[10:] == ["m.csv: 1,490 more rows cannot be used", DROP]


def test_drop_invalid_refuses_a_file_without_usable_rows(problems):
    assert problems([",a", "x,"], drop_invalid=True) == [
        "m.csv: row 1, column text: is empty",
        "m.csv: row 2, column label: is empty",
    ]


def test_fault_of_every_row_is_told_once_and_without_dropping_them(problems):
    assert problems([f"x{number}," for number in range(12)]) == [
        "m.csv: no row can be used; row 1, column label: is empty"
    ]


@pytest.mark.parametrize(
    ("lines", "settings", "message"),
    [
        ([], {}, "m.csv: has no rows"),
        (["x,a", "y,a"], {}, "m.csv: tasks.mail.label: all 2 rows have the label 'a'; two classes are needed"),
        (["w,a", "x,b", "y,c"], {}, "m.csv: tasks.mail.label: 3 rows are too few for 3 classes"),
        (
            [*GOOD, "z,c"],
            {},
            "m.csv: tasks.mail.label: class 'c' has 1 row; 3 are needed, or leave it out with tasks.mail.where",
        ),
        (
            GOOD,
            {"label": "lable"},
            'm.csv: tasks.mail.label: column "lable" is not in m.csv; did you mean label? (columns: text, label)',
        ),
        (
            GOOD,
            {"where": {"x": {"at_least": 1}}},
            'm.csv: tasks.mail.where.x: column "x" is not in m.csv (columns: text, label)',
        ),
        (GOOD, {"where": {"label": {"equals": "c"}}}, "m.csv: tasks.mail.where: none of 20 rows meets the conditions"),
        (
            GOOD,
            {"split": {"train": 0.98, "validation": 0.01, "test": 0.01}},
            "m.csv: tasks.mail.split: 20 rows are too few to split into train, validation and test,"
            " with each of 2 classes in every split",
        ),
        (
            ["x,a"],
            {"type": "causal-lm"},
            "m.csv: tasks.mail.split: 1 row is too few to split into train, validation and test",
        ),
    ],
)
def test_read_task_refuses_unusable_data(problems, lines, settings, message):
    assert problems(lines, **settings) == [message]


def test_where_refuses_number_conditions_on_texts(problems):
    (line,) = problems(GOOD, where={"label": {"at_least": 1}})
    assert line.startswith("m.csv: tasks.mail.where.label: column label holds values that are not numbers (")


def test_labels_missing_from_train_are_named_or_dropped(read, tmp_path):
    header = "text,label"
    (tmp_path / "train.csv").write_text("\n".join([header, *GOOD[:10], ""]))
    (tmp_path / "validation.csv").write_text("\n".join([header, *GOOD[10:15], ""]))
    (tmp_path / "test.csv").write_text("\n".join([header, *GOOD[15:], "x,A", ""]))
    files = {name: f"{name}.csv" for name in ("train", "validation", "test")}
    with pytest.raises(InputError) as raised:
        read(files)
    assert raised.value.lines() == [
        "test.csv: row 6, column label: label 'A' is not among the training rows; labels: a, b",
        DROP,
    ]
    assert read(files, drop_invalid=True).dropped == 1


def test_given_split_of_duplicates_alone_is_refused(read, tmp_path):
    for name, lines in {"train": GOOD[:5], "validation": GOOD[5:9], "test": GOOD[:9]}.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *lines, ""]))
    with pytest.raises(InputError, match=r"tasks\.mail\.data\.train: every row is also among those of"):
        read({name: f"{name}.csv" for name in ("train", "validation", "test")})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.parquet", b"PAR1 this is none", "m.parquet: is not a parquet file, or cut off"),
        ("m.arrow", b"nor this", "m.arrow: cannot be read as arrow: "),
        ("m.csv", b"", "m.csv: is empty"),
        ("m.csv.gz", b"text,label\n", "m.csv.gz: is not compressed by gzip"),
    ],
)
def test_broken_file_is_one_line(read, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as raised:
        read(name)
    (line,) = raised.value.lines()
    assert line.startswith(message)


def test_truncated_parquet_file_is_one_line(read, tmp_path):
    pq.write_table(
        pa.table({"text": [f"t{i}" for i in range(999)], "label": [i % 2 for i in range(999)]}), tmp_path / "x.parquet"
    )
    content = bytearray((tmp_path / "x.parquet").read_bytes())
    content[10:200] = bytes(190)
    (tmp_path / "m.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"m\.parquet: cannot be read as parquet: "):
        read("m.parquet")


def test_missing_file_is_one_line(read):
    with pytest.raises(InputError, match=r"nowhere\.csv: there is no such file"):
        read("nowhere.csv")


def test_encoding_that_lacks_the_bytes_is_one_line(problems):
    lines = problems(["x\x81,a", *GOOD], encoding="cp1252")
    message = "cannot be decoded as cp1252, which is tasks.mail.encoding"
    assert lines == [f"m.csv: row 1, column text: {message}", DROP]
