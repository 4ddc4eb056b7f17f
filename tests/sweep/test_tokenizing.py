"""Splits are tokenized batch by batch, in this process or by Ray tasks, to the same table."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from orchestrator.common.errors import InputError
from orchestrator.sweep import tokenizing
from orchestrator.sweep.tokenizing import joined, put_tokens, row_batches
from orchestrator.tasks import TASK_TYPES, TaskData, read_task
from orchestrator.tasks.cut_rows import text_characters

from ..small_sweep import NOISE, WORDS
from .test_every_task_type import SPECIAL, TASKS, TEMPLATE, rows

CHARACTERS = 250


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    model = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special: dict[str, Any] = {"pad_token": "[PAD]", "eos_token": "[END]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=model, chat_template=TEMPLATE, **special)


def data_of(folder: Path, name: str, tokenizer: PreTrainedTokenizerFast) -> TaskData:
    from pydantic import TypeAdapter

    from orchestrator.config import Task
    from orchestrator.tasks.rendering import render_task

    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows()))
    (section,) = [tasks[name] for tasks in TASKS.values() if name in tasks]
    task: Any = TypeAdapter(Task).validate_python({"data": "rows.jsonl", **section})
    return render_task(read_task(name, task, folder, 0), TASK_TYPES[task.type], tokenizer)


@pytest.mark.parametrize("name", [name for tasks in TASKS.values() for name in tasks])
def test_tokens_of_batches_are_those_of_the_whole_split(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(tokenizing, "BATCH_CHARACTERS", CHARACTERS)
    data = data_of(tmp_path, name, tokenizer)
    kind, split = TASK_TYPES[data.config.type], data.splits["train"]
    batches = list(row_batches(split, kind))
    assert len(batches) > tokenizing.LOCAL_BATCHES
    assert pa.concat_tables(batches).equals(split)
    assert max(int(text_characters(batch, kind).sum()) for batch in batches) <= CHARACTERS, "no task holds more text"
    table = joined(*(kind.tokenize(batch, tokenizer, 24) for batch in batches))
    assert table.equals(kind.tokenize(split, tokenizer, 24))
    assert {column.num_chunks for column in table.columns} == {1}, "lanes read it without a copy"


def test_row_larger_than_a_batch_is_a_batch_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizing, "BATCH_CHARACTERS", 10)
    texts = ["x" * 4, "x" * 6, "x" * 30, "x" * 10, "x"]
    table = pa.table({"row": range(5), "text": texts})
    batches = [batch["row"].to_pylist() for batch in row_batches(table, TASK_TYPES["classification"])]
    assert batches == [[0, 1], [2], [3], [4]]
    assert [batch.num_rows for batch in row_batches(table.slice(0, 0), TASK_TYPES["classification"])] == [0]


@pytest.mark.ray
@pytest.mark.filterwarnings(*NOISE)
def test_large_splits_are_tokenized_by_tasks_of_one_batch_each(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizing, "BATCH_CHARACTERS", CHARACTERS)
    data = data_of(tmp_path, "pick", tokenizer)
    kind, split = TASK_TYPES["choice"], data.splits["train"]
    expected = kind.tokenize(split, tokenizer, 24)
    local: list[int] = []
    monkeypatch.setattr(type(kind), "tokenize", lambda *_: local.append(1))  # a worker imports its own
    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level=logging.ERROR)
    try:
        table = ray.get(put_tokens(kind, split, tokenizer, 24))
        with pytest.raises(InputError, match="a choice has 1 tokens"):
            put_tokens(kind, split, tokenizer, 1)
    finally:
        ray.shutdown()
    assert table.equals(expected)
    assert not local
    assert {column.num_chunks for column in table.columns} == {1}
