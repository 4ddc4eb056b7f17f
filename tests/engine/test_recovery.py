"""Recovery from too little memory in a step: what is let go of first, what is tried, and what is remembered."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from orchestrator.engine import packing
from orchestrator.engine.frozen_prefix import FrozenPrefix
from orchestrator.engine.matmul import shared_matmul
from orchestrator.engine.micro_batch_memory import MicroBatchMemory
from orchestrator.engine.optimizers import step_optimizer
from orchestrator.engine.step import train_step
from orchestrator.engine.step_size import StepSize
from orchestrator.engine.trial_run import TrialRun

from .conftest import Lab, equal, state, train

CPU = torch.device("cpu")
Forward = Callable[[TrialRun], Tensor]


def no_room() -> torch.OutOfMemoryError:
    return torch.OutOfMemoryError("CUDA out of memory")


class Saved:
    """What a graph holds of a tensor; it lives as long as the graph."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@pytest.fixture
def graphs() -> Iterator[list[weakref.ref[Saved]]]:
    """Everything that graphs have saved for a backward pass."""
    saved: list[weakref.ref[Saved]] = []

    def pack(tensor: Tensor) -> Saved:
        holder = Saved(tensor.detach())  # an operator's own output would hold its graph, which holds it
        saved.append(weakref.ref(holder))
        return holder

    with saved_tensors_hooks(pack, lambda holder: holder.tensor):
        yield saved


def replace_forward(monkeypatch: pytest.MonkeyPatch, forward: Callable[[TrialRun, Forward], Tensor]) -> None:
    original = TrialRun.forward
    monkeypatch.setattr(TrialRun, "forward", lambda run, **options: forward(run, partial(original, **options)))


@pytest.mark.parametrize("place", ["forward", "backward"])
def test_failed_pack_leaves_no_graph_to_the_repetition(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, graphs: list[weakref.ref[Saved]], place: str
) -> None:
    runs = [lab.run(method, number) for number, method in enumerate(("lora", "ia3", "adapter"))]
    alive: list[int] = []
    products: list[int] = []

    def fail(*_: object) -> None:
        raise no_room()

    def failing_matmul(*arguments: Any) -> tuple[Tensor, ...]:
        products.append(1)
        if len(products) == 12 and place == "forward":
            raise no_room()
        return shared_matmul(*arguments)

    def forward(run: TrialRun, original: Forward) -> Tensor:
        alive.append(sum(saved() is not None for saved in graphs))
        loss = original(run)
        if len(alive) <= len(runs) and place == "backward" and run is runs[0]:
            loss.register_hook(fail)
        return loss

    monkeypatch.setattr(packing, "shared_matmul", failing_matmul)
    replace_forward(monkeypatch, forward)
    assert train_step(runs) == []
    assert len(alive) == 2 * len(runs)
    assert len(graphs) > 100
    assert alive[len(runs) :] == [0] * len(runs)


def test_member_without_room_leaves_no_graph_to_its_repetition(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, graphs: list[weakref.ref[Saved]]
) -> None:
    runs = [lab.run(method, number) for number, method in enumerate(("lora", "ia3", "adapter"))]
    alive: list[int] = []

    def forward(run: TrialRun, original: Forward) -> Tensor:
        before = sum(saved() is not None for saved in graphs)
        loss = original(run)
        alive.append(before)
        if run is runs[1] and len(alive) <= len(runs):
            raise no_room()
        return loss

    replace_forward(monkeypatch, forward)
    assert train_step(runs) == []
    assert len(graphs) > 100
    assert alive[len(runs) :] == [0]


def test_member_without_room_frees_its_activations_before_its_neighbours_go_on(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [lab.run("lora", 0), lab.run("lora", 1)]
    losses: list[weakref.ref[Tensor]] = []
    alive: list[bool] = []

    def forward(run: TrialRun, original: Forward) -> Tensor:
        loss = original(run)
        if run is runs[0] and not losses:
            losses.append(weakref.ref(loss))
            raise no_room()
        alive.append(losses[0]() is not None)
        return loss

    replace_forward(monkeypatch, forward)
    assert train_step(runs) == []
    assert alive == [False, False]


def test_shortage_that_others_caused_is_not_remembered(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = MicroBatchMemory()
    first, second = (
        TrialRun(lab.job("lora", k), lab.backbone, lab.dataset, lab.training, micro_batch_memory=memory) for k in (0, 1)
    )
    kept = ["a paused trial", "cached activations"]

    def forward(run: TrialRun, original: Forward) -> Tensor:
        loss = original(run)
        if kept:
            raise no_room()
        return loss

    replace_forward(monkeypatch, forward)
    first.free_memory = kept.clear
    assert train_step([first]) == train_step([second]) == []
    assert [run.measurements["micro_batches"] for run in (first, second)] == [1, 1]


def test_step_is_tried_with_released_memory_before_it_shrinks(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run = lab.run("lora", batch_size=4, dropout=0.0)
    events: list[str] = []

    def forward(run: TrialRun, original: Forward) -> Tensor:
        events.append(f"{run._size.micro_batches}")
        loss = original(run)
        if run._size.micro_batches < 4:
            raise no_room()
        return loss

    replace_forward(monkeypatch, forward)
    run.free_memory = lambda: events.append("freed")
    assert train_step([run]) == []
    assert events[:4] == ["1", "freed", "1", "2"]
    assert set(events[4:]) == {"4"}
    assert not run.checkpointed


def test_rows_that_do_not_fit_alone_are_trained_with_checkpointed_blocks(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, run, packed = (lab.run("lora", 0, batch_size=2, dropout=0.0) for _ in range(3))
    train(reference, 3)

    def forward(run: TrialRun, original: Forward) -> Tensor:
        loss = original(run)
        if not run.checkpointed:
            raise no_room()
        return loss

    replace_forward(monkeypatch, forward)
    for _ in range(3):
        assert train_step([run, packed]) == []
    for trained in (run, packed):
        assert trained.checkpointed
        assert trained.measurements["micro_batches"] == 2
        for name, value in state(reference).items():
            torch.testing.assert_close(state(trained)[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_checkpointed_trial_has_the_results_of_a_plain_one(make_lab: Callable[[str], Lab], kind: str) -> None:
    lab = make_lab(kind)
    plain, checkpointed = (lab.run("lora") for _ in range(2))
    checkpointed._resize(StepSize(checkpointed=True))
    neighbours = [lab.run("ia3", 1), lab.run("ia3", 2)]
    for _ in range(3):
        assert train_step([plain]) == []
        assert train_step([neighbours[0], checkpointed, neighbours[1]]) == []
    assert equal(state(plain), state(checkpointed)), "dropout draws the same numbers in both runs of a block"
    assert [run.step for run in neighbours] == [3, 3]


def test_checkpointed_blocks_begin_above_the_frozen_prefix(lab: Lab) -> None:
    def begin(prefix: FrozenPrefix | None) -> TrialRun:
        job = lab.job("last_layers", fraction=0.5)
        return TrialRun(job, lab.backbone, lab.dataset, lab.training, prefix=prefix)

    plain, checkpointed = begin(None), begin(FrozenPrefix(lab.backbone))
    checkpointed._resize(StepSize(checkpointed=True))
    calls: list[int] = []
    for index in range(2):
        attention = checkpointed._view.get_submodule(f"bert.encoder.layer.{index}.attention")
        attention.register_forward_hook(lambda *_, index=index: calls.append(index))
    for _ in range(3):
        assert train_step([plain]) == train_step([checkpointed]) == []
    assert calls == [1] * 6, "the lower block comes from the cache, the upper one runs twice"
    assert equal(state(plain), state(checkpointed))


def test_checkpointed_blocks_are_saved_with_the_trial(lab: Lab, tmp_path: Path) -> None:
    run = lab.run("lora")
    run._resize(StepSize(2, checkpointed=True))
    assert train_step([run]) == []
    run.save(tmp_path, resumable=True)
    restored = lab.run("lora")
    restored.restore(tmp_path)
    assert restored._size == StepSize(2, checkpointed=True)
    assert train_step([run]) == train_step([restored]) == []
    assert equal(state(run), state(restored))


def two_groups() -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
    parameters = [nn.Parameter(torch.arange(3.0) + k) for k in range(4)]
    for k, parameter in enumerate(parameters):
        parameter.grad = torch.ones(3) * (k + 1)
    groups: list[dict[str, Any]] = [{"params": parameters[:2], "lr": 0.1}, {"params": parameters[2:], "lr": 0.2}]
    return parameters, torch.optim.AdamW(groups, fused=True)


@pytest.mark.parametrize("allocation", range(8))
def test_optimizer_finishes_an_update_that_ran_out_of_memory(allocation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, undisturbed = two_groups()
    undisturbed.step()
    parameters, optimizer = two_groups()
    zeros_like, made, freed = torch.zeros_like, [], []

    def failing_zeros_like(*arguments: Any, **options: Any) -> Tensor:
        made.append(1)
        if len(made) == allocation + 1:
            raise no_room()
        return zeros_like(*arguments, **options)

    monkeypatch.setattr(torch, "zeros_like", failing_zeros_like)
    step_optimizer(optimizer, lambda: freed.append(1), CPU)
    assert freed == [1]
    for parameter, other in zip(parameters, expected, strict=True):
        assert torch.equal(parameter, other)
        assert torch.equal(optimizer.state[parameter]["exp_avg"], undisturbed.state[other]["exp_avg"])
        assert optimizer.state[parameter]["step"] == 1
        assert parameter.grad is not None, "the method's own schedule may read it"


def test_trial_whose_optimizer_state_does_not_fit_at_first_trains(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    reference, run = lab.run("lora"), lab.run("lora")
    train(reference, 1)
    kept, zeros_like = ["a paused trial"], torch.zeros_like

    def failing_zeros_like(*arguments: Any, **options: Any) -> Tensor:
        if kept:
            raise no_room()
        return zeros_like(*arguments, **options)

    loss = run.forward()
    loss.backward()
    monkeypatch.setattr(torch, "zeros_like", failing_zeros_like)
    run.free_memory = kept.clear
    run.finish_step(loss)
    assert run.step == 1
    assert equal(state(run), state(reference))
