"""Encoder-decoders: tokens of both sides, the loss against transformers' own, and generation."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from orchestrator.tasks import TASK_TYPES, TaskType, token_losses
from orchestrator.tasks.batches import evaluation_batches
from orchestrator.tasks.tokens import lengths

from ..architectures import config_of
from ..small_backbone import model_of, word_tokenizer, words

SEQ2SEQ = TASK_TYPES["seq2seq"]
PAIRS = [(words(*range(4, 6 + n)), words(*range(50, 51 + n % 4))) for n in range(12)]


def table(*pairs: tuple[str, str]) -> pa.Table:
    source, target = zip(*pairs, strict=True)
    return pa.table({"row": range(len(pairs)), "source": source, "target": target})


def tokens(*pairs: tuple[str, str], max_length: int = 16) -> pa.Table:
    return SEQ2SEQ.tokenize(table(*pairs), word_tokenizer(), max_length)


def configured(*metrics: str) -> TaskType:
    return SEQ2SEQ.configured(metrics, 6, word_tokenizer())


def test_seq2seq_rows_hold_source_then_target_with_its_end() -> None:
    rows = tokens(("word4 word5", "word6"))
    assert rows["input_ids"].to_pylist() == [[4, 5, 1, 6, 1]]
    assert rows["source_length"].to_pylist() == [3]
    assert SEQ2SEQ.target_tokens(rows).tolist() == [2]


def test_seq2seq_cuts_each_side_at_its_own_end() -> None:
    rows = tokens((words(4, 5, 6, 7, 8), words(9)), (words(4), words(9, 10, 11, 12, 13)), max_length=3)
    assert rows["input_ids"].to_pylist() == [[4, 5, 1, 9, 1], [4, 1, 9, 10, 1]]
    assert rows["bytes"].to_pylist() == [len("word9"), len("word9 word10")]


def test_seq2seq_ends_targets_whose_tokenizer_does_not(tokenizer: Any) -> None:
    rows = SEQ2SEQ.tokenize(table(("ab", "cde")), tokenizer, 3)
    assert rows["input_ids"].to_pylist() == [[67, 68, 69, 70, 0]]


def test_seq2seq_pads_labels_with_ignored_ones() -> None:
    batch = SEQ2SEQ.collate(tokens(("word4", "word6 word7"), ("word4 word5", "word6")), np.array([0, 1]), 0, True)
    assert batch["input_ids"].tolist() == [[4, 1, 0], [4, 5, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch["labels"].tolist() == [[6, 7, 1], [6, 1, -100]]
    assert SEQ2SEQ.loss_terms(batch) == 5


@pytest.mark.parametrize("name", ["t5", "bart"])
@pytest.mark.parametrize("chunk", [2**24, 200])
def test_seq2seq_loss_is_that_of_transformers(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_losses, "CHUNK_LOGITS", chunk)
    model = model_of(config_of(name), "seq2seq")
    batch = SEQ2SEQ.collate(tokens(*PAIRS), np.arange(len(PAIRS)), 0)
    torch.testing.assert_close(SEQ2SEQ.loss(model, batch), model(**batch).loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(SEQ2SEQ.forward(model, batch), model(**batch).logits, rtol=1e-4, atol=1e-4)
    assert SEQ2SEQ.forward(model, batch).shape == SEQ2SEQ.forward_shape(model.config, batch)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_seq2seq_likelihood_of_a_row_does_not_depend_on_its_batch(name: str) -> None:
    model, rows = model_of(config_of(name), "seq2seq"), tokens(*PAIRS)
    among, alone = (
        SEQ2SEQ.predictions(model, rows, evaluation_batches(lengths(rows), size), 0) for size in (len(PAIRS), 1)
    )
    np.testing.assert_allclose(among["nll"], alone["nll"], rtol=1e-5)
    assert among["row"].to_pylist() == list(range(len(PAIRS)))
    with torch.no_grad():
        first = SEQ2SEQ.collate(rows, np.array([0]), 0)
        loss = model(**first).loss.item()
    assert among["nll"][0].as_py() == pytest.approx(loss * among["tokens"][0].as_py(), rel=1e-5)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_seq2seq_generates_in_batches_what_it_generates_alone(name: str) -> None:
    model, rows, kind = model_of(config_of(name), "seq2seq"), tokens(*PAIRS), configured("exact_match")
    among, alone = (kind.evaluate(model, rows, evaluation_batches(lengths(rows), size), 0) for size in (12, 1))
    assert among.predictions["generated"].to_pylist() == alone.predictions["generated"].to_pylist()
    assert among.predictions["reference"].to_pylist() == [target for _, target in PAIRS]
    answers = kind.answer(model, rows, evaluation_batches(lengths(rows), 5), 0, False, ())
    assert answers["target"].to_pylist() == among.predictions["generated"].to_pylist()
    assert any(among.predictions["generated"].to_pylist())
