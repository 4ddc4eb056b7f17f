"""The sum over ranks, with two ranks that are threads."""

import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from orchestrator.engine.data_parallel import Outcome, reduced
from orchestrator.engine.ranks import OtherWorkerError, Ranks


@dataclass
class Meeting:
    """Where two threads add up."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=30))
    brought: dict[int, Tensor] = field(default_factory=dict)
    sums: int = 0


@dataclass(frozen=True)
class Thread(Ranks):
    size: int = 2
    meeting: Meeting = field(default_factory=Meeting)

    def all_reduce(self, tensor: Tensor) -> None:
        self.meeting.brought[self.rank] = tensor.clone()
        self.meeting.barrier.wait()
        tensor.copy_(self.meeting.brought[0] + self.meeting.brought[1])
        self.meeting.sums += self.rank
        self.meeting.barrier.wait()


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


def met(*sides: Side) -> tuple[list[tuple[list[Trial], list[Outcome]]], Meeting]:
    meeting = Meeting()

    def one(rank: int) -> tuple[list[Trial], list[Outcome]]:
        runs, outcomes = sides[rank]()
        return runs, reduced(Thread(rank, 2, meeting), runs, outcomes)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, range(2))), meeting


def ones(value: float, *shape: int) -> Tensor:
    return torch.full(shape, float(value))


def test_losses_and_gradients_of_a_pack_are_summed_in_one_go() -> None:
    sides = [
        lambda: ([Trial(ones(1, 2, 3), ones(2, 4)), Trial(ones(3, 2, 3), ones(4, 4))], [torch.tensor(0.5)] * 2),
        lambda: ([Trial(ones(10, 2, 3), ones(20, 4)), Trial(ones(30, 2, 3), ones(40, 4))], [torch.tensor(0.25)] * 2),
    ]
    found, meeting = met(*sides)
    assert meeting.sums == 1
    for runs, outcomes in found:
        assert [float(outcome) for outcome in outcomes] == [0.75, 0.75]  # type: ignore[arg-type]
        assert [run.gradients for run in runs] == [[[11.0] * 6, [22.0] * 4], [[33.0] * 6, [44.0] * 4]]


def test_a_gradient_that_no_rank_has_stays_away() -> None:
    """One of 0 would let weight decay at the parameter."""
    loss: list[Outcome] = [torch.tensor(1.0)]
    found, _ = met(lambda: ([Trial(None, None)], loss), lambda: ([Trial(None, ones(3, 4))], loss))
    assert [runs[0].gradients for runs, _ in found] == [[None, [3.0] * 4]] * 2


def test_what_one_rank_could_not_train_fails_on_both_and_its_neighbour_does_not() -> None:
    error = ValueError("mine")
    found, _ = met(
        lambda: ([Trial(ones(1, 2, 3), None), Trial(ones(1, 2, 3), None)], [torch.tensor(1.0), torch.tensor(2.0)]),
        lambda: ([Trial(None, None), Trial(ones(1, 2, 3), None)], [error, torch.tensor(2.0)]),
    )
    (_, (here, fine)), (_, (there, other)) = found
    assert isinstance(here, OtherWorkerError)
    assert there is error
    assert [float(fine), float(other)] == [4.0, 4.0]  # type: ignore[arg-type]
    assert [runs[1].gradients for runs, _ in found] == [[[2.0] * 6, None]] * 2


def test_a_loss_that_is_no_number_is_none_on_either_rank() -> None:
    found, _ = met(
        lambda: ([Trial(ones(1, 2, 3), None)], [torch.tensor(math.nan)]),
        lambda: ([Trial(ones(1, 2, 3), None)], [torch.tensor(1.0)]),
    )
    assert all(math.isnan(float(outcomes[0])) for _, outcomes in found)  # type: ignore[arg-type]


def test_gradients_keep_their_type() -> None:
    def side() -> tuple[list[Trial], list[Outcome]]:
        run = Trial()
        run.parameters = [nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))]
        run.parameters[0].grad = torch.ones(2, dtype=torch.bfloat16)
        return [run], [torch.tensor(1.0)]

    found, _ = met(side, side)
    for runs, _ in found:
        gradient = runs[0].parameters[0].grad
        assert gradient is not None
        assert gradient.dtype == torch.bfloat16
        assert gradient.tolist() == [2.0, 2.0]
