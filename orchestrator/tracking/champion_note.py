"""What a sweep found for a task, in one paragraph: where an experiment and the task's run begin to be read."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.common.units import size
from orchestrator.journal.events import Event
from orchestrator.selection.baseline import Baseline
from orchestrator.selection.looks import level_text
from orchestrator.tracking.versions import version_link


def champion_note(selection: Event, name: str, version: int) -> str:
    """Return the recommended method with its score, size, what it is better than, and how to load it, as Markdown.

    It begins without markup: a list of experiments shows its first words, and an experiment's page its first line.

    Args:
        selection: the ``selection`` event of the task.
        name: name of the registered model.
        version: number of the version that holds the method.
    """
    best = _recommended(selection)
    low, high = best["interval"]
    interval = f"[{low:.3f}, {high:.3f}] ({level_text(selection.get('look', 1))} interval)"
    score = f"{selection['metric']} {best['mean_score']:.3f} {interval}"
    link = version_link(name, version, f"version {version}")
    adapter_bytes = best.get("measurements", {}).get("adapter_bytes")
    parts = [best["method"], score, link, *([size(adapter_bytes)] if adapter_bytes else [])]
    sentences = [
        f"{selection['task']}: {', '.join(parts)}, {selection['rows']:,} test rows.",
        *_beaten(selection, best),
        f'Load it with `mlflow.pyfunc.load_model("models:/{name}/{version}")`.',
    ]
    return " ".join(sentences)


def with_note(description: str, task: str, note: str) -> str:
    """Return an experiment's description with the note of a task, in place of an earlier one; other text stays.

    Args:
        description: the description that is there, empty for none.
        task: name of the task.
        note: paragraph of :func:`champion_note`.
    """
    parts = filter(None, description.split("\n\n"))
    others = [part for part in parts if not (part.startswith(f"{task}: ") and "](#/models/" in part)]
    return "\n\n".join([note, *others])


def _recommended(selection: Event) -> Event:
    method = selection["recommended"]
    best: Event = next(result for result in selection["finalists"] if result["method"] == method)
    return best


def _beaten(selection: Event, best: Event) -> Iterator[str]:
    """Yield what the method is better than at the look's level, and what is tied with it."""
    baselines, lead = selection.get("baselines") or (), best.get("baseline_lead")
    if baselines and lead:
        baseline = Baseline.from_dict(baselines[0])
        beaten = f"Better than {baseline.name}" if lead[1] > 0 else f"**Not shown to be better than {baseline.name}**"
        yield f"{beaten} ({baseline.text})."
    worse = [f"`{result['method']}` ({result['mean_score']:.3f})" for result in selection["finalists"]
             if result.get("gap") and not result["tied"]]  # fmt: skip
    tied = [f"`{method}`" for method in selection["tied"] if method != best["method"]]
    if worse:
        yield f"Better than {', '.join(worse)}."
    if tied:
        yield f"Tied with {', '.join(tied)}."
