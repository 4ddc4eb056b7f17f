"""In which order a step shrinks where memory is short."""

import pytest
import torch

from orchestrator.engine.step_size import FULL_GPU_TOKENS, StepSize

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def descent(rows: int, tokens: int, device: torch.device) -> list[tuple[int, bool]]:
    sizes: list[tuple[int, bool]] = []
    size: StepSize | None = StepSize()
    while size:
        sizes.append((size.micro_batches, size.checkpointed))
        size = size.smaller(rows, tokens, device)
    return sizes


@pytest.mark.parametrize("tokens", [8, 10**6])
def test_step_size_on_a_processor_checkpoints_single_rows_alone(tokens: int) -> None:
    assert descent(4, tokens, CPU) == [(1, False), (2, False), (4, False), (4, True)]


def test_step_size_on_a_gpu_checkpoints_before_halves_leave_it_idle() -> None:
    assert descent(8, 8 * FULL_GPU_TOKENS, GPU)[-2:] == [(8, False), (8, True)]
    assert descent(8, 2 * FULL_GPU_TOKENS, GPU) == [(1, False), (2, False), (2, True), (4, True), (8, True)]
    assert descent(2, FULL_GPU_TOKENS, GPU) == [(1, False), (1, True), (2, True)]


def test_step_size_of_rows_of_an_odd_number_ends_at_single_rows() -> None:
    assert descent(3, 30, CPU) == [(1, False), (2, False), (4, False), (4, True)]


def test_smallest_of_two_step_sizes_needs_no_more_than_either() -> None:
    assert StepSize(4).smallest_of(StepSize(2, checkpointed=True)) == StepSize(4, checkpointed=True)
