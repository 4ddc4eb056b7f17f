"""``peft-sweep explain``: why a trial or a method came out as it did."""

from __future__ import annotations

from orchestrator.cli.output.console import console, print_field
from orchestrator.journal.events import Journal
from orchestrator.journal.folders import JOURNAL, find_sweep
from orchestrator.journal.validity import blaming_journal
from orchestrator.report.explain import Explanation, explain


def explain_in(sweep: str, name: str, storage: str) -> Explanation:
    """Explain a trial or a method of a sweep.

    Raises:
        InputError: if there is no such sweep, trial or method.
    """
    folder = find_sweep(sweep, storage)
    with blaming_journal(folder / JOURNAL):
        return explain(folder.name, Journal.read(folder / JOURNAL), name)


def print_explanation(explanation: Explanation) -> None:
    """Print an explanation as text."""
    console.print(f"{explanation.subject}  {explanation.outcome}")
    for name, text in explanation.lines:
        print_field(name, text)
