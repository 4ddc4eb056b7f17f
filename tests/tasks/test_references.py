"""Rows with several references: the first is trained, metrics of generated text compare with all of them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sacrebleu.metrics.bleu import BLEU

from orchestrator.common.errors import InputError
from orchestrator.tasks import TASK_TYPES, TaskData
from orchestrator.tasks.batches import evaluation_batches
from orchestrator.tasks.tokens import lengths

from ..architectures import config_of
from ..small_backbone import model_of, word_tokenizer, words

Read = Callable[..., TaskData]
KEYS: dict[str, dict[str, Any]] = {
    "causal-lm": {"prompt": "facts", "completion": "says", "text": None, "label": None},
    "seq2seq": {"source": "facts", "target": "says", "text": None, "label": None},
}
ANSWER = {"causal-lm": "completion", "seq2seq": "target"}
LISTS = [[words(k, k + 1), words(k + 2)] if k % 3 else [words(k, 9, 8)] for k in range(4, 24)]


def write(folder: Path, name: str, answers: list[Any]) -> str:
    rows = [{"facts": words(3 + k % 40, 5, 6), "says": answer} for k, answer in enumerate(answers)]
    if name.endswith("parquet"):
        pq.write_table(pa.table({key: [row[key] for row in rows] for key in rows[0]}), folder / name)
    else:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
@pytest.mark.parametrize("kind", KEYS)
def test_lists_of_answers_train_the_first_and_keep_all(tmp_path: Path, read: Read, kind: str, name: str) -> None:
    data = read(write(tmp_path, name, LISTS), type=kind, **KEYS[kind])
    rows = [row for split in data.splits.values() for row in split.to_pylist()]
    assert sorted(row["references"] for row in rows) == sorted(LISTS)
    assert all(row[ANSWER[kind]] == row["references"][0] for row in rows)
    single = read(write(tmp_path, name, [texts[0] for texts in LISTS]), type=kind, **KEYS[kind])
    assert "references" not in single.splits["train"].column_names
    tokenizer = word_tokenizer()
    tables = [TASK_TYPES[kind].tokenize(part.splits["test"], tokenizer, 24) for part in (data, single)]
    assert tables[0].drop_columns(["references"]).equals(tables[1]), "what is trained is the same"


def test_single_answers_stand_beside_lists_in_json(tmp_path: Path, read: Read) -> None:
    mixed = [texts[0] if len(texts) == 1 else texts for texts in LISTS]
    data = read(write(tmp_path, "rows.jsonl", mixed), type="causal-lm", **KEYS["causal-lm"])
    assert sorted(row for split in data.splits.values() for row in split["references"].to_pylist()) == sorted(LISTS)


def test_files_of_single_answers_train_beside_a_test_file_of_lists(tmp_path: Path, read: Read) -> None:
    files = {
        "train": write(tmp_path, "train.parquet", [texts[0] for texts in LISTS]),
        "validation": write(tmp_path, "validation.jsonl", [texts[-1] + " word33" for texts in LISTS]),
        "test": write(tmp_path, "test.parquet", [[f"{text} word7" for text in texts] for texts in LISTS]),
    }
    data = read(files, type="causal-lm", **KEYS["causal-lm"])
    for split in ("train", "validation"):
        rows = data.splits[split]
        assert rows["references"].to_pylist() == [[text] for text in rows["completion"].to_pylist()]
    assert data.splits["test"]["references"].to_pylist() == [[f"{text} word7" for text in texts] for texts in LISTS]


def test_template_is_filled_for_every_answer_of_a_list(tmp_path: Path, read: Read) -> None:
    keys = {**KEYS["causal-lm"], "completion": " {says}, {facts}"}
    data = read(write(tmp_path, "rows.parquet", LISTS), type="causal-lm", **keys)
    for row in (row for split in data.splits.values() for row in split.to_pylist()):
        expected = [f" {text}, {row['prompt']}" for text in LISTS[row["row"] - 1]]
        assert (row["references"], row["completion"]) == (expected, expected[0])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([], "row 3, column says: is an empty list or holds an empty text"),
        (["word4", " "], "row 3, column says: is an empty list or holds an empty text"),
        (["word4", None], "row 3, column says: holds a value that is null"),
        (None, "row 3, column says: is empty"),
    ],
)
def test_lists_without_a_text_are_refused_by_their_row(tmp_path: Path, read: Read, answer: Any, message: str) -> None:
    answers = [*LISTS[:2], answer, *LISTS[3:]]
    with pytest.raises(InputError) as raised:
        read(write(tmp_path, "rows.parquet", answers), type="causal-lm", **KEYS["causal-lm"])
    assert message in str(raised.value)
    assert read("rows.parquet", type="causal-lm", drop_invalid=True, **KEYS["causal-lm"]).dropped == 1


def test_prompts_of_lists_are_refused(tmp_path: Path, read: Read) -> None:
    keys = {**KEYS["causal-lm"], "prompt": "says", "completion": "facts"}
    with pytest.raises(InputError, match="column says: holds lists; write texts"):
        read(write(tmp_path, "rows.parquet", LISTS), type="causal-lm", **keys)


@pytest.mark.parametrize(("kind", "model"), [("causal-lm", "llama"), ("seq2seq", "t5")])
def test_scores_compare_generated_texts_with_all_references(tmp_path: Path, read: Read, kind: str, model: str) -> None:
    torch.manual_seed(0)
    tokenizer, network = word_tokenizer(), model_of(config_of(model), kind)
    type_ = TASK_TYPES[kind].configured(("bleu", "exact_match", "rouge_l"), 6, tokenizer)

    def scored(answers: list[Any]) -> Any:
        rows = read(write(tmp_path, "rows.parquet", answers), type=kind, **KEYS[kind]).splits["train"]
        table = type_.tokenize(rows, tokenizer, 24)
        return rows, type_.evaluate(network, table, evaluation_batches(lengths(table), 4), 0)

    _, first = scored(LISTS)
    texts = dict(zip(first.predictions["row"].to_pylist(), first.predictions["generated"].to_pylist(), strict=True))
    answers = [[*LISTS[k], texts.get(k + 1, "") or "word44"] for k in range(len(LISTS))]
    rows, evaluation = scored(answers)
    generated = evaluation.predictions["generated"].to_pylist()
    references = rows["references"].to_pylist()
    assert evaluation.predictions["references"].to_pylist() == references
    streams = [[row[k] if k < len(row) else None for row in references] for k in range(3)]
    expected = BLEU(force=True).corpus_score(generated, streams).score  # type: ignore[arg-type]
    assert evaluation.metrics["bleu"] == pytest.approx(expected, abs=1e-9)
    assert evaluation.metrics["exact_match"] == np.mean([bool(text) for text in generated])
    assert first.metrics["exact_match"] < evaluation.metrics["exact_match"]
    right = replace(type_).right_predictions(rows)
    assert right["references"].to_pylist() == references
