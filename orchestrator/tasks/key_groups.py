"""Groups of keys of which a section names exactly one: the layouts of a task's rows."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.common.section import Section, refusal


def named_group(section: Section, groups: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the group whose keys a section names, all of them and no others.

    Args:
        section: The section.
        groups: Keys of each group; no key is in two.

    Raises:
        ValueError: If the section names no group, a part of one, or keys of several; pydantic reports it.
    """
    named = [key for group in groups for key in group if getattr(section, key)]
    chosen = [group for group in groups if not set(group).isdisjoint(named)]
    if len(chosen) != 1:
        given = f"has {' and '.join(named)}" if named else "names no columns"
        *first, last = (" and ".join(group) for group in groups)
        raise refusal([((), f"{given}; write {', '.join(first)}, or {last}")])
    if missing := [key for key in chosen[0] if key not in named]:
        raise refusal([((missing[0],), f"is missing; {named[0]} needs it")])
    return chosen[0]
