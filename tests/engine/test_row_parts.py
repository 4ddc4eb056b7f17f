"""Splitting and joining of rows against torch's own."""

import pytest
import torch

from orchestrator.engine.row_parts import join_tensors, split_tensor

COUNTS = [2, 1, 3]


def leaf() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(6, 4, 2, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("used", [(0, 1, 2), (0, 2), (1,)])
def test_split_rows_have_the_gradients_of_torch_split(used: tuple[int, ...]) -> None:
    x, reference = leaf(), leaf()
    for parts in (split_tensor(x, COUNTS), reference.split(COUNTS)):
        sum(((place + 2.0) * parts[place].square()).sum() for place in used).backward()  # type: ignore[union-attr]
    torch.testing.assert_close(x.grad, reference.grad, rtol=0, atol=0)


def test_split_rows_may_be_changed_in_place() -> None:
    x = leaf()
    first, *_ = split_tensor(x * 1, COUNTS)
    first.mul_(3).sum().backward()
    assert x.grad is not None
    assert x.grad[:, 0, 0].tolist() == [3, 3, 0, 0, 0, 0]


def test_joined_rows_have_the_gradients_of_torch_cat() -> None:
    gradients = []
    for join in (join_tensors, torch.cat):
        x = leaf()
        parts = list(x.split(COUNTS))
        joined = join([parts[2], parts[0].detach(), parts[1]])
        joined.square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=0)


def test_joined_rows_of_two_dtypes_have_gradients_of_their_own() -> None:
    one, other = torch.ones(2, 3, requires_grad=True), torch.ones(1, 3, dtype=torch.bfloat16, requires_grad=True)
    joined = join_tensors([one, other])
    joined.sum().backward()
    assert joined.dtype == torch.float32
    assert [one.grad.dtype, other.grad.dtype] == [torch.float32, torch.bfloat16]  # type: ignore[union-attr]


def test_parts_without_gradients_have_no_graph() -> None:
    with torch.no_grad():
        parts = split_tensor(leaf(), COUNTS)
        assert not join_tensors(parts).requires_grad
    assert split_tensor(torch.ones(6), COUNTS)[0].grad_fn is None
