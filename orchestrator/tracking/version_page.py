"""The description of a version, which is all that its page in MLflow shows at a glance: the card, within limits."""

from __future__ import annotations

MAX_DESCRIPTION = 5000
"""Most characters of a version's description: PostgreSQL and MySQL refuse longer ones, SQLite takes any."""
DISPENSABLE = ("## Origin", "## Comparison", "## Errors")
"""Sections that are left out of a description that is too long, the first one first."""
REST = "The whole card is among the model's files: `artifacts/bundle/README.md`."


def description(card: str, links: str = "") -> str:
    """Return a card as the description of a version, without its title, with links below its first paragraph.

    Lists of versions show the first line alone, and the title is the model's name.

    Args:
        card: the card, Markdown.
        links: one line; none if empty.
    """
    head, separator, rest = card.partition("\n\n## ")
    head = head.partition("\n\n")[2] if head.startswith("# ") else head
    linked = f"{head}\n\n{links}{separator}{rest}" if links else f"{head}{separator}{rest}"
    sections = linked.split("\n\n## ")
    sections = [sections[0], *(f"## {section}" for section in sections[1:])]
    for name in DISPENSABLE:
        if len(shown := "\n\n".join(sections)) <= MAX_DESCRIPTION:
            return shown
        sections = [section for section in sections if not section.startswith(name) and section != REST] + [REST]
    return "\n\n".join(sections)[:MAX_DESCRIPTION]


def page_links(experiment: str, trial: str, run: str, sweep: str, parent: str | None, model: str | None) -> str:
    """Return links to the pages that belong to a version, relative to MLflow's address.

    Args:
        experiment: id of the experiment.
        trial: name of the trial.
        run: id of the trial's run.
        sweep: name of the sweep.
        parent: id of the sweep's run; ``None`` if it is not known.
        model: id of the logged model; ``None`` if it is not known.
    """
    pages = {f"trial `{trial}`": f"runs/{run}"}
    if parent and parent != run:
        pages[f"sweep `{sweep}`"] = f"runs/{parent}"
    if model:
        pages["logged model"] = f"models/{model}"
    return "Pages: " + ", ".join(f"[{text}](#/experiments/{experiment}/{place})" for text, place in pages.items()) + "."
