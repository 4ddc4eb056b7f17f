import pytest

from orchestrator.lanes.retirement import groups_to_retire

A, B, C = range(8), range(8, 12), range(12, 13)  # lanes per node
ALL = (A, B, C)


def living(*groups: range, busy: tuple[int, ...] = ()) -> dict[int, int]:
    return {lane: int(lane in busy) for group in groups for lane in group}


@pytest.mark.parametrize(
    ("jobs", "needed", "retired"),
    [
        (living(*ALL), 13, []),
        (living(*ALL), 12, [C]),
        (living(*ALL), 9, [B]),
        (living(*ALL), 8, [B, C]),
        (living(*ALL), 4, [A, C]),  # the largest first: it costs most
        (living(*ALL), 1, [A, B]),
        (living(*ALL), 0, [A, B]),  # one stays, for a job whose lane dies
        (living(*ALL, busy=(0,)), 1, [B, C]),  # a group with a job stays
        (living(*ALL, busy=(0, 9)), 2, [C]),
        (living(*ALL, busy=(0, 9, 12)), 3, []),
        (living(A), 8, [B, C]),  # those that wait for nodes are needed no more
        (living(A), 9, []),
        (living(A, C), 2, [B, C]),
        ({}, 0, []),  # none has started yet: one must
        (living(C, busy=(12,)), 1, [A, B]),
    ],
)
def test_retirement_leaves_the_lanes_that_are_needed(jobs: dict[int, int], needed: int, retired: list[range]) -> None:
    assert sorted(groups_to_retire(ALL, jobs, needed), key=lambda group: group.start) == retired
