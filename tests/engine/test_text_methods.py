"""What lanes give to methods that read words or learn from other tasks, and trials that have nothing to train."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from methods.base.spec import MethodError
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Job
from orchestrator.engine.source_batches import source_batches
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun
from orchestrator.lanes.lane import Lane
from orchestrator.lanes.setup import LaneSetup, TaskSetup
from orchestrator.tasks.tokens import token_column

from .conftest import LABELS, Lab, equal, state, train

NAMES = ("word7", "word8", "word9")


def store_tokenizer(folder: Path) -> None:
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"word{index}": index for index in range(3, 60)}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder / "tokenizer")


def table(labels: list[int], seed: int = 5) -> pa.Table:
    draw = np.random.default_rng(seed)
    ids = [draw.integers(3, 60, size) for size in draw.integers(3, 12, len(labels))]
    columns = {"row": np.arange(1, len(labels) + 1), "label": np.array(labels, np.int32)}
    return pa.table({**columns, "input_ids": token_column(ids)})


def rows_of(lab: Lab, folder: Path, train: pa.Table, names: tuple[str, ...] = NAMES, seed: int = 0) -> TaskDataset:
    tables = {**lab.rows._tables, "train": train}
    return TaskDataset(
        lab.rows._config, tables, 0, lab.backbone.decoder, lab.training, seed, Storage(str(folder)), names
    )


def test_there_are_no_words_where_no_tokenizer_is(lab: Lab) -> None:
    assert lab.rows.text is None


def test_words_are_the_sweeps_own(lab: Lab, tmp_path: Path) -> None:
    store_tokenizer(tmp_path)
    text = rows_of(lab, tmp_path, table([0, 1, 2])).text
    assert text is not None
    assert text.labels == NAMES
    assert text.max_length == lab.training.max_length
    assert text.tokenizer("word5 word6")["input_ids"] == [5, 6]


def test_examples_are_drawn_from_every_class_in_turn(lab: Lab, tmp_path: Path) -> None:
    many = table([0] * 20 + [1] * 3 + [2] * 2)
    rows = rows_of(lab, tmp_path, many)
    for count, classes in ((3, [0, 1, 2]), (6, [0, 0, 1, 1, 2, 2]), (8, [0, 0, 0, 1, 1, 1, 2, 2])):
        assert sorted(label for _, label in rows.examples(count)) == classes
    columns = many["input_ids"].to_pylist(), many["label"].to_pylist()
    given = {tuple(ids): label for ids, label in zip(*columns, strict=True)}
    assert all(given[tuple(ids)] == label for ids, label in rows.examples(25))
    assert len(rows.examples(99)) == 25
    assert rows.examples(4) == rows.examples(9)[:4] == rows_of(lab, tmp_path, many).examples(4)
    assert rows.examples(4) != rows_of(lab, tmp_path, many, seed=1).examples(4)


def test_examples_of_a_language_model_have_no_class(lab: Lab, tmp_path: Path) -> None:
    found = rows_of(lab, tmp_path, table([0, 1, 2, 1]).drop_columns("label"), ()).examples(3)
    assert len(found) == 3
    assert {label for _, label in found} == {0}


@pytest.fixture
def prompted(make_lab: Callable[[str], Lab], tmp_path: Path) -> Lab:
    """A lab whose backbone predicts tokens and whose rows have words."""
    lab = make_lab("tied decoder")
    store_tokenizer(tmp_path)
    return replace(lab, rows=rows_of(lab, tmp_path, lab.rows._tables["train"]), folder=tmp_path)


def lane_of(lab: Lab, **tasks: TaskSetup) -> Lane:
    setup = LaneSetup(str(lab.folder), "mail-1", "tiny", "float32", tasks, lab.training, 0, 1)
    lane = Lane(setup, torch.device("cpu"), torch.float32)
    lane._backbones["mail"], lane._rows["mail"] = lab.backbone, lab.rows
    lane.fingerprints["mail"] = lab.backbone.fingerprint()
    return lane


def answer(lane: Lane, job: Job) -> tuple[int, dict[str, float], str]:
    run = lane.begin(job)
    assert run.step == job.stop, "there is nothing to do before it is scored"
    done = lane.end(run).write()
    assert done.checkpoint is not None
    return done.step, done.metrics, done.checkpoint


def test_what_does_not_train_is_scored_once_and_is_the_same_at_every_rung(
    prompted: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    evaluate = TaskDataset.evaluate
    monkeypatch.setattr(TaskDataset, "evaluate", lambda *a: scored.append(a[-1]) or evaluate(*a))
    lane = lane_of(prompted)
    first = prompted.job("hard_prompt", examples=2, stop=3)
    step, metrics, checkpoint = answer(lane, first)
    assert step == 3
    assert metrics.keys() == {"macro_f1", "accuracy"}
    later = replace(first, start=3, stop=12, checkpoint=checkpoint)
    assert answer(lane, later)[:2] == (12, metrics)
    assert scored == ["validation"]
    # another lane, which has its checkpoint alone
    assert answer(lane_of(prompted), later)[:2] == (12, metrics)
    assert answer(lane_of(prompted), replace(later, start=12, split="test"))[1].keys() == metrics.keys()
    assert scored == ["validation", "validation", "test"]


def test_a_trained_method_is_scored_anew_at_every_rung(lab: Lab) -> None:
    run = lab.run("linear_probe", learning_rate=0.5)
    train(run, 1)
    before = run.evaluate("validation").predictions
    train(run, 5)
    assert not run.evaluate("validation").predictions.equals(before)


def test_different_prompts_give_different_scores(prompted: Lab) -> None:
    runs = [prompted.run("hard_prompt", examples=examples) for examples in (0, 3)]
    found = [run.evaluate("validation").predictions["probabilities"].to_pylist() for run in runs]
    assert found[0] != found[1]


@pytest.fixture
def sources(lab: Lab, tmp_path: Path) -> dict[str, TaskDataset]:
    """Two tasks with other rows, and two and five classes."""
    few = rows_of(lab, tmp_path, table([0, 1] * 10, seed=11), ("no", "yes"))
    many = rows_of(lab, tmp_path, table([0, 1, 2, 3, 4] * 3, seed=12), ("a", "b", "c", "d", "e"))
    return {"few": few, "many": many}


def as_lists(batches: Any) -> list[dict[str, list[Any]]]:
    return [{name: tensor.tolist() for name, tensor in batch.items()} for batch in batches]


def test_source_tasks_take_turns_and_go_on_at_any_step(sources: dict[str, TaskDataset]) -> None:
    tasks = list(sources.values())
    straight = as_lists(source_batches(tasks, 4, 0, 9))
    assert [set(batch["task_ids"]) for batch in straight] == [{0}, {1}, {0}, {1}, {0}, {1}, {0}, {1}, {0}]
    assert max(max(batch["labels"]) for batch in straight[::2]) == 1
    for start in range(10):
        assert as_lists(source_batches(tasks, 4, start, 9)) == straight[start:]
    own = [tasks[1].batch(indices) for indices in tasks[1].training_batches(4, 0, 4)]
    assert [batch["input_ids"] for batch in straight[1::2]] == [batch["input_ids"].tolist() for batch in own]


def two_stages(lab: Lab, sources: dict[str, TaskDataset], **changes: Any) -> TrialRun:
    changes = {"tokens": 4, "ranks": 2, "source_fraction": 0.5, **changes}
    return TrialRun(lab.job("multitask_prompt", **changes), lab.backbone, lab.rows, lab.training, sources)


@pytest.mark.parametrize("pause", [3, 6, 8])
def test_a_trial_of_two_stages_goes_on_where_it_was_paused(
    lab: Lab, sources: dict[str, TaskDataset], tmp_path: Path, pause: int
) -> None:
    straight = two_stages(lab, sources)
    losses = train(straight, 12)
    paused = two_stages(lab, sources, stop=pause)
    first = train(paused, pause)
    paused.evaluate("validation")
    (tmp_path / "step").mkdir()
    paused.save(tmp_path / "step", resumable=True)
    torch.manual_seed(99)
    continued = two_stages(lab, sources, start=pause)
    continued.restore(tmp_path / "step")
    assert first + train(continued, 12 - pause) == losses
    assert equal(state(continued), state(straight))


def test_the_first_half_trains_the_sources_and_the_second_the_task(lab: Lab, sources: dict[str, TaskDataset]) -> None:
    run = two_stages(lab, sources)
    own = {name for name in state(run) if "source_stage" not in name}
    begun = state(run)
    train(run, 5)
    middle = state(run)
    assert {name for name in begun if not torch.equal(begun[name], middle[name])} == begun.keys() - own
    train(run, 1)
    moved = state(run)
    changed = {name for name in own if not torch.equal(middle[name], moved[name])}
    assert changed == {name for name in own if "prompt_encoder" in name}, "the head begins by itself"
    train(run, 6)
    after = state(run)
    assert {name for name in begun if not torch.equal(moved[name], after[name])} == own


def test_the_tasks_own_rows_begin_anew_after_those_of_the_sources(lab: Lab, sources: dict[str, TaskDataset]) -> None:
    run, usual = two_stages(lab, sources), lab.run("lora")
    seen: list[Any] = []
    batch = lab.rows.batch
    lab.rows.batch = lambda indices: seen.append(indices.tolist()) or batch(indices)  # type: ignore[method-assign]
    try:
        train(run, 12)
    finally:
        del lab.rows.batch
    assert seen == [indices.tolist() for indices in usual._batches][:6]


def test_a_step_of_the_sources_begun_twice_reads_the_same_rows(lab: Lab, sources: dict[str, TaskDataset]) -> None:
    run, smooth = two_stages(lab, sources), two_stages(lab, sources)
    train(run, 2)
    train(smooth, 2)
    run.forward()
    run.rewind()
    assert train(run, 6) == train(smooth, 6)


def test_lanes_know_the_sources_of_a_task(lab: Lab, sources: dict[str, TaskDataset], tmp_path: Path) -> None:
    config = lab.rows._config.model_copy(update={"source_tasks": ["many", "few"]})
    lane = lane_of(replace(lab, folder=tmp_path), mail=TaskSetup(config, {}, LABELS, "tiny", None, 0, NAMES))
    lane._rows |= sources
    run = lane.begin(lab.job("multitask_prompt", tokens=4, source_fraction=0.5))
    assert [head[-1].out_features for head in run.attached.module.source_stage.heads] == [5, 2]
    assert run.attached.source_steps(12) == 6
    assert lane.begin(lab.job("lora")).attached.source_steps(12) == 0


def test_a_task_with_words_and_without_sources_learns_from_none(prompted: Lab) -> None:
    with pytest.raises(MethodError, match="source_tasks"):
        prompted.run("multitask_prompt")
