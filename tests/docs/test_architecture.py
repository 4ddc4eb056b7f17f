"""docs/architecture.md says what the code says: layers, folders, the journal's events and their fields."""

import ast
import re
import tomllib
from collections import defaultdict

from orchestrator.journal.events import Journal

from .documents import ROOT, code_names, table

DOCUMENT = ROOT / "docs" / "architecture.md"
NEW_FIELDS = {
    "sweep": {"device"},
    "selection": {"baselines", "tuning_unit", "look"},
    "searched": {"next"},
    "rung": {"curve"},
    "end": {"curve"},
}
"""Fields that the recorded journals are too old for."""
JOURNALS = sorted((ROOT / "tests" / "data").rglob("journal.jsonl"))


def test_layers_are_those_of_the_import_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [contract for contract in contracts if contract.get("containers") == ["orchestrator"]]
    drawn = re.findall(r"^│ (.+?) +│ .+ │$", DOCUMENT.read_text(), flags=re.MULTILINE)
    assert drawn == contract["layers"]


def test_folders_are_those_of_the_packages() -> None:
    folders = {f"orchestrator/{path.parent.name}" for path in (ROOT / "orchestrator").glob("*/__init__.py")}
    listed = [code_names(row[0])[0] for row in table(DOCUMENT, "folder")]
    assert sorted(listed) == sorted(folders | {"methods", "search_spaces"})
    for package in (ROOT / "methods").glob("*/__init__.py"):
        assert f"`{package.parent.name}/`" in DOCUMENT.read_text()


def test_journal_table_lists_every_event_and_its_writer() -> None:
    listed = {code_names(row[0])[0]: code_names(row[1])[0] for row in table(DOCUMENT, "event")}
    assert listed == written_events()


def test_journal_table_lists_the_fields_of_recorded_journals() -> None:
    listed = {code_names(row[0])[0]: set(code_names(row[2])) for row in table(DOCUMENT, "event")}
    recorded: dict[str, set[str]] = defaultdict(set)
    for journal in JOURNALS:
        for event in Journal.read(journal):
            recorded[event["event"]] |= set(event) - {"time", "event"}
    assert len(recorded) >= 10
    assert {event: listed[event] - NEW_FIELDS.get(event, set()) for event in recorded} == dict(recorded)


def test_glossary_has_ten_words_at_most() -> None:
    words = [row[0] for row in table(DOCUMENT, "word")]
    assert len(words) <= 10
    assert {"lane", "pack", "rung", "journal", "lease", "backbone", "champion", "challenger"} <= set(words)


def written_events() -> dict[str, str]:
    """Return the journal's events, each with the file that writes it by a call of append() or _log()."""
    events = {}
    simulated = ROOT / "orchestrator" / "simulation"  # writes made-up sweeps for tests and benchmarks
    for path in (path for path in (ROOT / "orchestrator").rglob("*.py") if simulated not in path.parents):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and (event := _event(node)):
                events[event] = path.relative_to(ROOT).as_posix()
    return events


def _event(call: ast.Call) -> str:
    assert isinstance(call.func, ast.Attribute)
    if call.func.attr not in ("append", "_log") or not call.args or not (call.keywords or len(call.args) > 1):
        return ""
    first = call.args[0]
    if isinstance(first, ast.Name) and first.id == "WARM_START":
        return "warm_start"
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
