"""Rows that are longer than a model may read are counted."""

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from orchestrator.planning.cut_rows import COUNTED_ROWS, CutRows, count_cut_rows
from orchestrator.tasks import TASK_TYPES


@pytest.fixture(scope="module")
def tokenizer():
    """One token per character."""
    vocabulary = {"</s>": 0, "<unk>": 1, **{chr(code): code - 30 for code in range(32, 127)}}
    model = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=model, eos_token="</s>", pad_token="</s>", unk_token="<unk>")


def rows_of(sizes):
    columns = {"text": ["x" * int(size) for size in sizes], "label": pa.array(np.zeros(len(sizes)), pa.int32())}
    return pa.table({"row": np.arange(1, len(sizes) + 1), **columns})


def test_cut_rows_are_counted_exactly_where_few_are_long(tokenizer):
    sizes = [3, 4, 5, 8, 9, 9, 100, 1]
    counted = count_cut_rows(rows_of(sizes), TASK_TYPES["classification"], tokenizer, 8)
    assert counted == CutRows(3, 8, False)
    assert str(counted) == "3 of 8 rows (37.5%)"


def test_cut_rows_are_estimated_where_many_are_long(tokenizer):
    sizes = np.tile([2, 6, 20, 6], COUNTED_ROWS)
    counted = count_cut_rows(rows_of(sizes), TASK_TYPES["classification"], tokenizer, 8)
    assert counted.is_estimate
    assert counted.cut == pytest.approx(COUNTED_ROWS, rel=0.15)
    assert str(counted).startswith("about ")


def test_cut_rows_of_a_language_model_count_the_end(tokenizer):
    table = pa.table({"row": [1, 2], "prompt": ["x" * 4, "x" * 5], "completion": ["y" * 3, "y" * 3]})
    assert count_cut_rows(table, TASK_TYPES["causal-lm"], tokenizer, 8) == CutRows(1, 2, False)
