"""Rows that are longer than a model may read are counted."""

import numpy as np
import pyarrow as pa
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from orchestrator.tasks import TASK_TYPES
from orchestrator.tasks.cut_rows import COUNTED_ROWS, CutRows, count_cut_rows


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
    assert count_cut_rows(table, TASK_TYPES["causal-lm"], tokenizer, 8) == CutRows(1, 2, False, 4, 0)


def test_cut_conversations_count_rows_and_the_trained_tokens_that_they_lose(tokenizer):
    """Four texts of three conversations; the answers of each are the last characters of its texts."""
    texts, spans = ["x" * 20, "x" * 6, "x" * 30, "x" * 8], [[2, 4, 15, 20], [4, 6], [18, 30], [0, 8]]
    columns = {"row": [1, 2, 3, 3], "prompt": ["x" * 15, "xxxx", "x" * 18, ""], "completion": ["y"] * 4, "text": texts}
    rows = pa.table({**columns, "spans": pa.array(spans, pa.list_(pa.int32())), "messages": ["[]"] * 4})
    kind = TASK_TYPES["causal-lm"]
    for limit in (5, 7, 9, 13, 20):
        masks = kind.trained_tokens(kind.tokenize(rows, tokenizer, limit))
        kept = [int(mask.sum()) for mask in masks]
        lost = sum(size - left for size, left in zip([7, 2, 12, 8], kept, strict=True))
        is_cut = [len(mask) < len(text) for mask, text in zip(masks, texts, strict=True)]
        counted = count_cut_rows(rows, kind, tokenizer, limit)
        assert counted.lost == lost
        assert counted.trained == sum(size for size, cut in zip([7, 2, 12, 8], is_cut, strict=True) if cut)
        assert (counted.cut, counted.rows) == (1 + is_cut[0] + is_cut[1], 3)
    counted = count_cut_rows(rows, kind, tokenizer, 9)
    assert str(counted) == "2 of 3 rows (66.7%), which lose 6 of their 19 trained tokens"
    assert CutRows.of_fields(counted.fields()) == counted
