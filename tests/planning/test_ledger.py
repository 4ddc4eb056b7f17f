from __future__ import annotations

import pytest
import torch

from orchestrator.planning.estimates.cost_counter import CostCounter

KB = 1024


def block(kilobytes: int = 1) -> torch.Tensor:
    return torch.empty(kilobytes * KB // 4, device="meta")


def test_what_is_alive_and_the_most_that_was() -> None:
    with CostCounter({}) as counter:
        kept = block(4)
        for _ in range(3):
            block(16)
        assert counter.alive == 4 * KB
        assert counter.peak == 20 * KB
        del kept
        assert counter.alive == 0


def test_views_and_changes_in_place_take_nothing() -> None:
    with CostCounter({}) as counter:
        whole = block(4)
        parts = [*whole.chunk(4), whole.view(2, -1).T, whole.add_(1)]
        assert counter.alive == counter.peak == 4 * KB
        del whole
        assert counter.alive == 4 * KB, "a view keeps all of it"
        del parts
        assert counter.alive == 0


def test_what_was_there_before_is_told_once_and_not_counted() -> None:
    before = block(8)
    counter = CostCounter({})
    assert counter.know([before, before[:4]]) == 8 * KB
    with counter:
        before.mul_(2)
        part = before[1:]
    assert counter.alive == counter.peak == 0
    del before, part
    assert counter.alive == 0


def test_what_a_backward_pass_needs_is_there_until_it_has_passed() -> None:
    weight = torch.empty(32, 32, device="meta", requires_grad=True)
    given = torch.empty(8, 32, device="meta")
    counter = CostCounter({})
    counter.know([weight, given])
    with counter:
        result = (given @ weight).tanh().sum()
        assert counter.alive == 8 * 32 * 4 + 4, "tanh keeps its result; nothing keeps the product"
        result.backward()
        del result
    assert weight.grad is not None
    assert counter.alive == weight.grad.nbytes


def test_products_are_counted_in_both_passes() -> None:
    weight = torch.empty(32, 64, device="meta", requires_grad=True)
    with CostCounter({}) as counter:
        (torch.empty(8, 32, device="meta") @ weight).sum().backward()
    assert counter.flops == 2 * (2 * 8 * 32 * 64), "forward, and the gradient of the weight"


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_traffic_is_what_is_read_and_written(device: str) -> None:
    one, other = torch.ones(256, device=device), torch.ones(256, device=device)
    counter = CostCounter({})
    counter.know([one, other])
    with counter:
        one + other
        one.view(16, 16)
    assert counter.bytes_moved == 3 * KB
    assert counter.calls == 2
