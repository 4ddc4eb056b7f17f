"""Which groups of lanes are not needed any more: a decision without Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def groups_to_retire(groups: Sequence[range], jobs: Mapping[int, int], needed: int) -> list[range]:
    """Return the groups that may end because the others have all lanes that are still needed.

    Lanes end by group, since a cluster takes a node back only when nothing is left on it. Groups that wait for a node
    end first, then idle ones, the largest first. At least one living lane stays: a job whose lane dies must find one.

    Args:
        groups: numbers of the lanes of each group that has not ended.
        jobs: number of jobs that each living lane holds.
        needed: number of lanes that are still needed.
    """
    living = {group: sum(lane in jobs for lane in group) for group in groups}
    left = sum(living.values())
    retired: list[range] = []
    if left < max(1, needed):
        return retired
    for group in sorted(groups, key=lambda group: (living[group] > 0, -living[group], group.start)):
        is_idle = not any(jobs.get(lane) for lane in group)
        if is_idle and left - living[group] >= max(1, needed):
            retired.append(group)
            left -= living[group]
    return retired
