"""Which node each group of lanes starts on."""

import pytest

from orchestrator.lanes.placement import planned_nodes


@pytest.mark.parametrize(
    ("sizes", "rooms", "nodes"),
    [
        ([1, 3], {"small": 1, "large": 3}, ["small", "large"]),
        ([3, 1], {"small": 1, "large": 3}, ["large", "small"]),
        ([1], {"large": 3, "small": 1}, ["small"]),  # a group that fits both leaves the larger one free
        ([2, 1], {"small": 2, "large": 8}, ["small", "large"]),  # max: 3
        ([4, 4], {"a": 4, "b": 4}, ["a", "b"]),
        ([2, 1, 1], {"a": 2}, ["a", None, None]),  # those to come have no id yet
        ([4], {"a": 2, "b": 2}, [None]),
        ([1], {}, [None]),
    ],
)
def test_each_group_has_the_smallest_node_that_holds_it(
    sizes: list[int], rooms: dict[str, int], nodes: list[str | None]
) -> None:
    assert planned_nodes(sizes, rooms) == nodes
