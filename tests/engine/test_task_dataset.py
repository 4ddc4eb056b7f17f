"""Datasets for methods that read text or learn from source tasks."""

from pathlib import Path
from typing import Any

import pytest
import torch

from methods.base.spec import MethodError
from orchestrator.engine.source_batches import source_batches
from orchestrator.engine.task_dataset import TaskDataset
from orchestrator.engine.trial_run import TrialRun

from .conftest import NAMES, Lab, dataset_of, equal, state, store_tokenizer, table, train


def test_task_text_is_none_without_a_tokenizer(lab: Lab) -> None:
    assert lab.dataset.text is None


def test_task_text_holds_the_sweeps_tokenizer_and_labels(lab: Lab, tmp_path: Path) -> None:
    store_tokenizer(tmp_path)
    text = dataset_of(lab, tmp_path, table([0, 1, 2])).text
    assert text is not None
    assert text.labels == NAMES
    assert text.max_length == lab.training.max_length
    assert text.tokenizer("word5 word6")["input_ids"] == [5, 6]


def test_examples_take_classes_in_turn(lab: Lab, tmp_path: Path) -> None:
    many = table([0] * 20 + [1] * 3 + [2] * 2)
    dataset = dataset_of(lab, tmp_path, many)
    for count, classes in ((3, [0, 1, 2]), (6, [0, 0, 1, 1, 2, 2]), (8, [0, 0, 0, 1, 1, 1, 2, 2])):
        assert sorted(label for _, label in dataset.examples(count)) == classes
    columns = many["input_ids"].to_pylist(), many["label"].to_pylist()
    labels_by_ids = {tuple(ids): label for ids, label in zip(*columns, strict=True)}
    assert all(labels_by_ids[tuple(ids)] == label for ids, label in dataset.examples(25))
    assert len(dataset.examples(99)) == 25
    assert dataset.examples(4) == dataset.examples(9)[:4] == dataset_of(lab, tmp_path, many).examples(4)
    assert dataset.examples(4) != dataset_of(lab, tmp_path, many, seed=1).examples(4)


def test_examples_of_a_language_model_have_class_0(lab: Lab, tmp_path: Path) -> None:
    examples = dataset_of(lab, tmp_path, table([0, 1, 2, 1]).drop_columns("label"), ()).examples(3)
    assert len(examples) == 3
    assert {label for _, label in examples} == {0}


def test_trained_method_is_scored_again_after_steps(lab: Lab) -> None:
    run = lab.run("linear_probe", learning_rate=0.5)
    train(run, 1)
    before = run.evaluate("validation").predictions
    train(run, 5)
    assert not run.evaluate("validation").predictions.equals(before)


def test_hard_prompts_give_different_scores(prompted: Lab) -> None:
    runs = [prompted.run("hard_prompt", examples=examples) for examples in (0, 3)]
    first, second = (run.evaluate("validation").predictions["probabilities"].to_pylist() for run in runs)
    assert first != second


def as_lists(batches: Any) -> list[dict[str, list[Any]]]:
    return [{name: tensor.tolist() for name, tensor in batch.items()} for batch in batches]


def test_source_batches_alternate_and_start_at_any_step(sources: dict[str, TaskDataset]) -> None:
    tasks = list(sources.values())
    straight = as_lists(source_batches(tasks, 4, 0, 9))
    assert [set(batch["task_ids"]) for batch in straight] == [{0}, {1}, {0}, {1}, {0}, {1}, {0}, {1}, {0}]
    assert max(max(batch["labels"]) for batch in straight[::2]) == 1
    for start in range(10):
        assert as_lists(source_batches(tasks, 4, start, 9)) == straight[start:]
    batches = [tasks[1].batch(indices) for indices in tasks[1].training_batches(4, 0, 4)]
    assert [batch["input_ids"] for batch in straight[1::2]] == [batch["input_ids"].tolist() for batch in batches]


def two_stages(lab: Lab, sources: dict[str, TaskDataset], **changes: Any) -> TrialRun:
    changes = {"tokens": 4, "ranks": 2, "source_fraction": 0.5, **changes}
    return TrialRun(lab.job("multitask_prompt", **changes), lab.backbone, lab.dataset, lab.training, sources)


@pytest.mark.parametrize("pause", [3, 6, 8])
def test_source_stage_resumes_exactly_at_any_step(
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


def test_source_stage_trains_its_own_parameters_first(lab: Lab, sources: dict[str, TaskDataset]) -> None:
    run = two_stages(lab, sources)
    task_parameters = {name for name in state(run) if "source_stage" not in name}
    begun = state(run)
    train(run, 5)
    middle = state(run)
    assert {name for name in begun if not torch.equal(begun[name], middle[name])} == begun.keys() - task_parameters
    train(run, 1)
    moved = state(run)
    changed = {name for name in task_parameters if not torch.equal(middle[name], moved[name])}
    assert changed == {name for name in task_parameters if "prompt_encoder" in name}, "the head starts untrained"
    train(run, 6)
    after = state(run)
    assert {name for name in begun if not torch.equal(moved[name], after[name])} == task_parameters


def test_task_rows_start_at_0_after_the_source_stage(lab: Lab, sources: dict[str, TaskDataset]) -> None:
    run, plain = two_stages(lab, sources), lab.run("lora")
    read_rows: list[Any] = []
    batch = lab.dataset.batch
    lab.dataset.batch = lambda indices: read_rows.append(indices.tolist()) or batch(indices)  # type: ignore[method-assign]
    try:
        train(run, 12)
    finally:
        del lab.dataset.batch
    assert read_rows == [indices.tolist() for indices in plain._batches][:6]


def test_source_step_reads_the_same_rows_after_rewind(lab: Lab, sources: dict[str, TaskDataset]) -> None:
    run, smooth = two_stages(lab, sources), two_stages(lab, sources)
    train(run, 2)
    train(smooth, 2)
    run.forward()
    run.rewind()
    assert train(run, 6) == train(smooth, 6)


def test_source_method_without_source_tasks_raises(prompted: Lab) -> None:
    with pytest.raises(MethodError, match="source_tasks"):
        prompted.run("multitask_prompt")
