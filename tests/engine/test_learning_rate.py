"""The learning rate of each parameter group: its initial rate times the schedule."""

import pytest
import torch
from torch import nn

from methods.base.spec import ParameterGroup
from orchestrator.engine.learning_rate import optimizer_groups, schedule, set_learning_rates

from .conftest import Lab, train


@pytest.mark.parametrize(
    ("step", "total", "warmup", "factor"),
    [
        (0, 10, 0.0, 1.0),
        (5, 10, 0.0, 0.5),
        (9, 10, 0.0, 0.1),
        (10, 10, 0.0, 0.0),
        (0, 10, 0.3, 0.25),  # three steps of warm-up
        (2, 10, 0.3, 0.75),
        (3, 10, 0.3, 1.0),
        (9, 10, 0.3, 1 / 7),
        (0, 10, 0.01, 0.5),  # any warm-up takes a step
        (1, 10, 0.01, 1.0),
        (0, 1, 0.0, 1.0),
        (0, 1, 0.5, 0.5),
        (1, 1, 0.5, 0.0),
    ],
)
def test_schedule(step: int, total: int, warmup: float, factor: float) -> None:
    assert schedule(step, total, warmup) == pytest.approx(factor)


@pytest.mark.parametrize("warmup", [0.0, 0.06, 0.5, 0.9])
def test_schedule_stays_above_0_and_peaks_at_1(warmup: float) -> None:
    factors = [schedule(step, 50, warmup) for step in range(50)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1


def test_learning_rate_follows_the_full_schedule_in_every_rung(lab: Lab) -> None:
    run = lab.run("lora", stop=3, warmup=0.0)
    rates = []
    for _ in range(3):
        train(run, 1)
        rates.append(run._optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-2 * (12 - step) / 12 for step in range(3)])


def test_learning_rate_of_each_group_has_its_multiplier() -> None:
    head, body = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    groups = [ParameterGroup((head,)), ParameterGroup((body,), 0.5)]
    optimizer = torch.optim.SGD(optimizer_groups(groups, 1e-2))
    for factor in (0.5, 0.25):
        set_learning_rates(optimizer, factor)
        assert [group["lr"] for group in optimizer.param_groups] == [1e-2 * factor, 5e-3 * factor]
