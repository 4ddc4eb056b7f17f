"""A batch in parts against the batch as a whole."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orchestrator.engine.micro_batches import parts
from orchestrator.engine.step import step
from orchestrator.engine.trial_run import TrialRun

from .conftest import Lab, equal, state, train


def test_weights_are_shares_of_what_the_loss_is_the_mean_of() -> None:
    labels = torch.tensor([[5, 6, -100], [-100, 7, 8], [-100, -100, 9], [-100, -100, -100]])
    batch = {"input_ids": torch.arange(12).reshape(4, 3), "labels": labels}
    found = list(parts(batch, 2))
    assert [weight for _, weight in found] == [3 / 4, 1 / 4]
    assert torch.equal(torch.cat([part["input_ids"] for part, _ in found]), batch["input_ids"])
    assert [weight for _, weight in parts(batch, 4)] == [1 / 4, 2 / 4, 1 / 4], "nothing is learned from the last row"


def test_rows_count_alike_where_each_has_a_class() -> None:
    batch = {"input_ids": torch.zeros(5, 3, dtype=torch.long), "labels": torch.arange(5)}
    assert [weight for _, weight in parts(batch, 2)] == [3 / 5, 2 / 5]


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_parts_train_as_the_whole_does(make_lab: Callable[[str], Lab], kind: str) -> None:
    lab = make_lab(kind)
    whole, parted = (lab.run("lora", batch_size=5, dropout=0.0) for _ in range(2))
    assert parted.halve()
    for _ in range(3):
        assert step([whole]) == step([parted]) == []
    assert parted.measurements["micro_batches"] == 2
    for name, value in state(whole).items():
        torch.testing.assert_close(state(parted)[name], value, rtol=1e-3, atol=2e-3, msg=name)


def test_a_pack_holds_trials_in_parts_and_whole_ones(lab: Lab) -> None:
    def trials() -> list[TrialRun]:
        runs = [lab.run("lora", 0, batch_size=4), lab.run("ia3", 1, batch_size=5), lab.run("lora", 2, batch_size=3)]
        assert runs[1].halve()
        assert runs[1].halve()
        return runs

    alone, together = trials(), trials()
    for _ in range(3):
        assert [step([run]) for run in alone] == [[], [], []]
        assert step(together) == []
    for one, other in zip(alone, together, strict=True):
        assert other.step == 3
        for name, value in state(one).items():
            torch.testing.assert_close(state(other)[name], value, rtol=1e-4, atol=1e-6, msg=name)


class Cramped:
    """Room for so many rows of a trial at once, and for no second trial beside."""

    def __init__(self, rows: int, error: Exception) -> None:
        self.rows, self.error = rows, error
        self.forward = TrialRun.forward

    def __call__(self, run: TrialRun) -> torch.Tensor:
        loss = self.forward(run)
        if run.params.batch_size / run._micro_batches > self.rows:
            raise self.error
        return loss


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate")],
    ids=["gpu", "cpu"],
)
def test_out_of_memory_halves_the_micro_batch(lab: Lab, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    fine, cramped, neighbour = (lab.run("lora", 0, batch_size=8, dropout=0.0) for _ in range(3))
    train(fine, 2)
    monkeypatch.setattr(TrialRun, "forward", _method(Cramped(2, error)))
    assert step([cramped, neighbour]) == []
    assert step([cramped, neighbour]) == []
    assert cramped.measurements["micro_batches"] >= 4
    assert neighbour.measurements["micro_batches"] >= 4
    for name, value in state(fine).items():
        torch.testing.assert_close(state(cramped)[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_row_that_does_not_fit_fails_the_trial_and_leaves_it_as_it_was(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = lab.run("lora", batch_size=4)
    before = state(run)
    monkeypatch.setattr(TrialRun, "forward", _method(Cramped(0, torch.OutOfMemoryError("no room"))))
    ((failed, error),) = step([run])
    assert (failed, str(error)) == (run, "no room")
    assert run.step == 0
    assert equal(state(run), before)


def test_the_number_of_parts_is_remembered(lab: Lab, tmp_path: Path) -> None:
    run = lab.run("lora", batch_size=4)
    assert [run.halve(), run.halve(), run.halve()] == [True, True, False]
    assert step([run]) == []
    folder = tmp_path / "parts"
    folder.mkdir()
    run.save(folder, resumable=True)
    again = lab.run("lora", batch_size=4)
    again.restore(folder)
    assert step([again]) == []
    assert again.measurements["micro_batches"] == 4


def _method(cramped: Cramped) -> Callable[[TrialRun], torch.Tensor]:
    return lambda run: cramped(run)
