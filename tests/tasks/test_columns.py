"""What a column's readings give, and which rows they refuse."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from orchestrator.common.errors import InputError
from orchestrator.tasks.column_types import to_array
from orchestrator.tasks.columns import Column
from orchestrator.tasks.splits import duplicate_keys
from orchestrator.tasks.tokens import characters

INF, NAN = float("inf"), float("nan")


def as_csv(values: list[Any]) -> pa.Array:
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    return pa.array([b"" if value is None else text.encode() for value, text in zip(values, texts, strict=True)])


STORAGES: dict[str, Callable[[list[Any]], pa.Array]] = {"parquet": pa.array, "jsonl": to_array, "csv": as_csv}


def refusals(column: Column) -> dict[int, str]:
    return {int(row): message for mask, message in column.refusals for row in np.flatnonzero(mask)}


@pytest.fixture(params=STORAGES)
def column(request):
    """A column of values, stored as a format stores them."""
    return lambda values, **settings: Column("c", STORAGES[request.param](values), **settings)


def test_texts_are_written_alike_whatever_the_format(column):
    assert column(["a", "", " \t", None, "caf\xe9"], optional=True).texts.to_pylist() == ["a", "", " \t", "", "caf\xe9"]
    assert column([1, 20, -3]).texts.to_pylist() == ["1", "20", "-3"]
    assert column([True, False]).texts.to_pylist() == ["true", "false"]
    assert column([1.5, 2.25]).texts.to_pylist() == ["1.5", "2.25"]


def test_texts_refuse_rows_without_one(column):
    texts = column(["a", "", " \t", None])
    assert texts.texts.to_pylist()[0] == "a"
    assert refusals(texts) == dict.fromkeys((1, 2, 3), "is empty")


@pytest.mark.parametrize("store", [pa.array, to_array])
def test_texts_of_floats_refuse_nan_and_infinity(store):
    labels = Column("c", store([1.0, NAN, 2.0, INF, None]))
    assert labels.texts.to_pylist() == ["1", None, "2", None, None]
    assert refusals(labels) == {1: "is NaN", 3: "is infinite", 4: "is empty"}


def test_texts_of_encoded_columns_are_read():
    words = pa.array(["a", "b", "a"])
    encoded = [words.dictionary_encode(), words.cast(pa.string_view()), words.cast(pa.large_string())]
    encoded += [pa.RunEndEncodedArray.from_arrays(pa.array([1, 2, 3], pa.int32()), words)]
    for array in encoded:
        assert Column("c", array).texts.to_pylist() == ["a", "b", "a"]


def test_texts_of_mixed_json_values_are_refused_by_row():
    mixed = Column("c", to_array([7, "7", True, 2.0, 2.5, ["x"], {"y": 1}, None, "\ud83d"]))
    assert mixed.texts.to_pylist()[:5] == ["7", "7", "true", "2", "2.5"]
    assert refusals(mixed) == {
        5: "is a list; write a text",
        6: "is an object; write a text",
        7: "is empty",
        8: "is not UTF-8 (it holds half of a surrogate pair)",
    }


def test_texts_refuse_half_of_a_surrogate_pair():
    emoji = Column("c", to_array(["\U0001f600", "\ud83d"]))
    assert (emoji.texts.to_pylist()[0], refusals(emoji)) == ("\U0001f600", {1: "is not UTF-8"})


@pytest.mark.parametrize(("values", "kind"), [([["x"]], "lists"), ([{"x": 1}], "objects")])
def test_texts_refuse_a_nested_column_in_one_line(values, kind):
    with pytest.raises(InputError, match=rf"m\.parquet: column c: holds {kind}; write texts"):
        Column("c", pa.array(values), file="m.parquet").texts  # noqa: B018  # the reading raises


def test_numbers_are_finite_or_refused(column):
    assert column([1, 2.5, -3e-4]).numbers.to_pylist() == [1, 2.5, -3e-4]
    odd = column([0.5, NAN, INF, None])
    assert odd.numbers.to_pylist()[0] == 0.5
    assert refusals(odd) == {1: "is NaN", 2: "is infinite", 3: "is empty"}


def test_numbers_in_texts_are_read_or_refused(column):
    numbers = column(["1", " 2.5 ", "1e3", "x", "1,5", "", "007"])
    assert numbers.numbers.to_pylist() == [1, 2.5, 1000, None, None, None, 7]
    assert refusals(numbers) == {3: "'x' is not a number", 4: "'1,5' is not a number", 5: "is empty"}


def test_numbers_refuse_dates_in_one_line():
    with pytest.raises(InputError, match="column c: holds dates or times; write numbers"):
        Column("c", pa.array([0], pa.date32())).numbers  # noqa: B018  # the reading raises


def test_text_lists_are_read_or_refused(column):
    tags = column([["a", "b"], [], ["c", None], None, ["d"]])
    assert tags.text_lists.to_pylist()[:2] == [["a", "b"], []]
    assert tags.text_lists.to_pylist()[4] == ["d"]
    assert refusals(tags) == {2: "holds a value that is null", 3: "is empty"}


def test_text_lists_write_numbers_as_texts(column):
    assert column([[1, 2], [3]]).text_lists.to_pylist() == [["1", "2"], ["3"]]


@pytest.mark.parametrize("store", [pa.array, to_array])
def test_text_lists_refuse_nan(store):
    column = Column("c", store([[1.5], [2.5, NAN]]))
    assert column.text_lists.to_pylist()[0] == ["1.5"]
    assert refusals(column) == {1: "holds a value that is NaN"}


def test_text_lists_of_a_sliced_column_are_its_rows():
    assert Column("c", pa.array([["a"], None, ["b", "c"], []])[2:]).text_lists.to_pylist() == [["b", "c"], []]


def test_text_lists_are_read_as_python_writes_them():
    column = Column("c", as_csv(["['B-PER', 'O']", '["a"]', "a b", '["a"', "[1, open()]"]))
    assert column.text_lists.to_pylist()[:2] == [["B-PER", "O"], ["a"]]
    assert refusals(column) == {
        2: '\'a b\' is not a list; write one as JSON, as in ["a", "b"]',
        3: "is not JSON (Expecting ',' delimiter at character 5)",
        4: "is not JSON (Expecting value at character 5)",
    }


MESSAGES = [
    [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}],
    [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
    [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"n": 1}}}]}],
]


@pytest.mark.parametrize("store", [to_array, as_csv])
def test_values_keep_objects_of_different_shapes(store):
    assert Column("c", store(MESSAGES)).values == MESSAGES


def test_values_lack_the_keys_that_arrow_added():
    shapes = [[{"role": "user", "content": "a"}], [{"role": "tool", "name": "f"}]]
    assert Column("c", pa.array(shapes)).values == shapes


def test_values_refuse_rows_of_a_map_with_a_key_twice() -> None:
    kind = pa.map_(pa.string(), pa.string())
    maps = Column("c", pa.array([[("a", "x"), ("b", "y")], None, [("a", "x"), ("a", "y")]], kind))
    assert maps.values[0] == {"a": "x", "b": "y"}
    assert refusals(maps) == {1: "is empty", 2: "has a key twice"}


def test_map_refuses_rows_with_the_message_of_its_error(column):
    def count(value: Any) -> int:
        if not value:
            raise ValueError("has no messages")
        return len(value)

    lists = column([["a", "b"], [], None])
    assert lists.map(count) == [2, None, None]
    assert refusals(lists) == {1: "has no messages", 2: "is empty"}


def test_refuse_takes_an_index_or_a_mask(column):
    texts = column(["a", "b", "c"])
    texts.refuse(2, "is last")
    texts.refuse(np.array([True, False, False]), "is first")
    assert refusals(texts) == {0: "is first", 2: "is last"}
    assert texts.refused.tolist() == [True, False, True]


def test_optional_column_refuses_no_empty_row(column):
    assert column(["a", None, ""], optional=True).texts.to_pylist() == ["a", "", ""]
    numbers = column([1.5, None], optional=True)
    assert (numbers.numbers.to_pylist(), refusals(numbers)) == ([1.5, None], {})


def test_duplicates_of_lists_have_the_same_texts_at_the_same_places():
    lists = [["a", "b"], ["ab"], ["a:1:b"], ["a", "b", ""], ["a", "b"], [], [""]]
    keys = duplicate_keys(pa.table({"tokens": lists}), ["tokens"]).to_pylist()
    assert keys[0] == keys[4]
    assert len(set(keys)) == len(lists) - 1


def test_characters_are_counted_in_texts_and_in_lists_of_texts() -> None:
    assert characters(pa.chunked_array([["äb", None, ""], ["abc"]])).tolist() == [2, 0, 0, 3]
    lists = pa.chunked_array([pa.array([["a", "bc"], None, [], ["äöü"]], pa.list_(pa.string()))])
    assert characters(lists).tolist() == [3, 0, 0, 3]
    assert characters(lists.slice(3)).tolist() == [3]
