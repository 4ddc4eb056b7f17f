"""What the cost counter counts, on the meta device and elsewhere."""

from __future__ import annotations

import pytest
import torch

from orchestrator.planning.estimates.cost_counter import CostCounter

KB = 1024


def block(kilobytes: int = 1) -> torch.Tensor:
    return torch.empty(kilobytes * KB // 4, device="meta")


def test_cost_counter_counts_alive_and_peak_bytes() -> None:
    with CostCounter({}) as counter:
        lasting = block(4)
        for _ in range(3):
            block(16)
        assert counter.alive_bytes == 4 * KB
        assert counter.peak_bytes == 20 * KB
        del lasting
        assert counter.alive_bytes == 0


def test_cost_counter_ignores_views_and_in_place_operators() -> None:
    with CostCounter({}) as counter:
        tensor = block(4)
        views = [*tensor.chunk(4), tensor.view(2, -1).T, tensor.add_(1)]
        assert counter.alive_bytes == counter.peak_bytes == 4 * KB
        del tensor
        assert counter.alive_bytes == 4 * KB, "a view keeps the whole storage"
        del views
        assert counter.alive_bytes == 0


def test_cost_counter_excludes_tensors_that_existed_before() -> None:
    before = block(8)
    counter = CostCounter({})
    assert counter.exclude([before, before[:4]]) == 8 * KB
    with counter:
        before.mul_(2)
        part = before[1:]
    assert counter.alive_bytes == counter.peak_bytes == 0
    del before, part
    assert counter.alive_bytes == 0


def test_cost_counter_follows_activations_until_the_backward_pass() -> None:
    weight = torch.empty(32, 32, device="meta", requires_grad=True)
    inputs = torch.empty(8, 32, device="meta")
    counter = CostCounter({})
    counter.exclude([weight, inputs])
    with counter:
        result = (inputs @ weight).tanh().sum()
        assert counter.alive_bytes == 8 * 32 * 4 + 4, "tanh saves its result; nothing saves the product"
        result.backward()
        del result
    assert weight.grad is not None
    assert counter.alive_bytes == weight.grad.nbytes


def test_cost_counter_counts_flops_of_both_passes() -> None:
    weight = torch.empty(32, 64, device="meta", requires_grad=True)
    with CostCounter({}) as counter:
        (torch.empty(8, 32, device="meta") @ weight).sum().backward()
    assert counter.flops == 2 * (2 * 8 * 32 * 64), "forward, and the gradient of the weight"


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_cost_counter_counts_bytes_read_and_written(device: str) -> None:
    left, right = torch.ones(256, device=device), torch.ones(256, device=device)
    counter = CostCounter({})
    counter.exclude([left, right])
    with counter:
        left + right
        left.view(16, 16)
    assert counter.bytes_moved == 3 * KB
    assert counter.calls == 2
