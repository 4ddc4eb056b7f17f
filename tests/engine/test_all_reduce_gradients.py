"""The sum over ranks, with two ranks that are threads."""

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.engine.data_parallel import Outcome, all_reduce_gradients
from orchestrator.engine.ranks import OtherWorkerError, Ranks


@dataclass
class Rendezvous:
    """Where two threads add up."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=30))
    tensors: dict[int, Tensor] = field(default_factory=dict)
    sums: int = 0


@dataclass(frozen=True)
class ThreadRank(Ranks):
    size: int = 2
    rendezvous: Rendezvous = field(default_factory=Rendezvous)

    def all_reduce(self, tensor: Tensor) -> None:
        self.rendezvous.tensors[self.rank] = tensor.clone()
        self.rendezvous.barrier.wait()
        tensor.copy_(self.rendezvous.tensors[0] + self.rendezvous.tensors[1])
        self.rendezvous.sums += self.rank
        self.rendezvous.barrier.wait()


class Trial:
    """Two parameters, and whatever gradients."""

    def __init__(self, *gradients: Tensor | None) -> None:
        self.parameters = [nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4))]
        for parameter, gradient in zip(self.parameters, gradients, strict=False):
            parameter.grad = gradient

    @property
    def gradients(self) -> list[list[float] | None]:
        return [None if p.grad is None else p.grad.flatten().tolist() for p in self.parameters]


Side = Callable[[], tuple[list[Trial], list[Outcome]]]


def run_two_ranks(*sides: Side) -> tuple[list[tuple[list[Trial], list[Outcome]]], Rendezvous]:
    rendezvous = Rendezvous()

    def run_rank(rank: int) -> tuple[list[Trial], list[Outcome]]:
        runs, outcomes = sides[rank]()
        return runs, all_reduce_gradients(ThreadRank(rank, 2, rendezvous), runs, outcomes)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(run_rank, range(2))), rendezvous


def full_of(value: float, *shape: int) -> Tensor:
    return torch.full(shape, float(value))


def test_all_reduce_sums_losses_and_gradients_of_a_pack_once() -> None:
    sides: list[Any] = [
        lambda: (
            [Trial(full_of(1, 2, 3), full_of(2, 4)), Trial(full_of(3, 2, 3), full_of(4, 4))],
            [torch.tensor(0.5)] * 2,
        ),
        lambda: (
            [Trial(full_of(10, 2, 3), full_of(20, 4)), Trial(full_of(30, 2, 3), full_of(40, 4))],
            [torch.tensor(0.25)] * 2,
        ),
    ]
    results, rendezvous = run_two_ranks(*sides)
    assert rendezvous.sums == 1
    for runs, outcomes in results:
        assert [float(outcome) for outcome in outcomes] == [0.75, 0.75]  # type: ignore[arg-type]
        assert [run.gradients for run in runs] == [[[11.0] * 6, [22.0] * 4], [[33.0] * 6, [44.0] * 4]]


def test_all_reduce_leaves_a_gradient_none_on_every_rank() -> None:
    """One of 0 would let weight decay at the parameter."""
    loss: list[Outcome] = [torch.tensor(1.0)]
    results, _ = run_two_ranks(lambda: ([Trial(None, None)], loss), lambda: ([Trial(None, full_of(3, 4))], loss))
    assert [runs[0].gradients for runs, _ in results] == [[None, [3.0] * 4]] * 2


def test_all_reduce_fails_one_trial_on_both_ranks() -> None:
    error = ValueError("mine")
    results, _ = run_two_ranks(
        lambda: (
            [Trial(full_of(1, 2, 3), None), Trial(full_of(1, 2, 3), None)],
            [torch.tensor(1.0), torch.tensor(2.0)],
        ),
        lambda: ([Trial(None, None), Trial(full_of(1, 2, 3), None)], [error, torch.tensor(2.0)]),
    )
    (_, (first, first_loss)), (_, (second, second_loss)) = results
    assert isinstance(first, OtherWorkerError)
    assert second is error
    assert [float(first_loss), float(second_loss)] == [4.0, 4.0]  # type: ignore[arg-type]
    assert [runs[1].gradients for runs, _ in results] == [[[2.0] * 6, None]] * 2


def test_all_reduce_spreads_a_nan_loss_to_both_ranks() -> None:
    results, _ = run_two_ranks(
        lambda: ([Trial(full_of(1, 2, 3), None)], [torch.tensor(math.nan)]),
        lambda: ([Trial(full_of(1, 2, 3), None)], [torch.tensor(1.0)]),
    )
    assert all(math.isnan(float(outcomes[0])) for _, outcomes in results)  # type: ignore[arg-type]


def test_all_reduce_keeps_the_dtype_of_gradients() -> None:
    def side() -> tuple[list[Trial], list[Outcome]]:
        run = Trial()
        run.parameters = [nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))]
        run.parameters[0].grad = torch.ones(2, dtype=torch.bfloat16)
        return [run], [torch.tensor(1.0)]

    results, _ = run_two_ranks(side, side)
    for runs, _ in results:
        gradient = runs[0].parameters[0].grad
        assert gradient is not None
        assert gradient.dtype == torch.bfloat16
        assert gradient.tolist() == [2.0, 2.0]
