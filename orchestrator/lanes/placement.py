"""Which node each group of lanes starts on: a decision without Ray.

A node goes back to its cluster only when nothing is left on it. So the lanes of a group have to be on one node, and
that must be a node on which no other group takes their room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def planned_nodes(sizes: Sequence[int], rooms: Mapping[str, int]) -> list[str | None]:
    """Return the node of each group: the largest group first, each on the smallest node that is left and holds it.

    Args:
        sizes: lanes per group.
        rooms: lanes that each node holds, by node id.

    Returns:
        A node id for each group, in their order; ``None`` for a group that waits for a node to come.
    """
    left = dict(rooms)
    nodes: list[str | None] = [None] * len(sizes)
    for group in sorted(range(len(sizes)), key=lambda group: -sizes[group]):
        if fitting := [node for node, room in left.items() if room >= sizes[group]]:
            nodes[group] = node = min(fitting, key=lambda node: left[node])
            del left[node]
    return nodes
