"""``peft-sweep select`` on a journal: what it answers, what it refuses, and that it starts nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orchestrator import cli
from orchestrator.common.errors import InputError
from orchestrator.journal.events import Journal
from orchestrator.journal.folders import find_sweep
from orchestrator.selection.overall import overall

from ..selection.small_evidence import measurements, result, selection

LORA = result("lora", 0.82, tied=True, pareto=True, measurements=measurements(size=2.4e6, merges=True))
ADAPTER = result("adapter", 0.81, tied=True, pareto=True, measurements=measurements(size=0.3e6))
MAIL = selection(LORA, ADAPTER, others=(result("ia3", 0.7, measurements=measurements(size=1e5), reason="far behind"),))
POST = selection(ADAPTER, result("lora", 0.8, measurements=measurements(), gap=0.01), task="post")
NAME = "tiny-20260101-120000"


@pytest.fixture
def sweeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "sweeps"


def write(sweeps: Path, *tasks: Any, name: str = NAME, trials: int = 0, storage: str = "sweeps") -> None:
    journal = Journal(sweeps / name / "journal.jsonl")
    journal.append("sweep", sweep=name, backbone={"bytes": 1e9}, config={"storage": storage})
    lines: list[dict[str, Any]] = []
    for number in range(trials):
        key = f"mail/lora/{number}"
        lines.append({"event": "trial", "trial": key, "params": {"rank": 8, "learning_rate": 1e-3}})
        lines += [
            {"event": "rung", "trial": key, "step": step, "value": 0.5, "measurements": measurements()}
            for step in (20, 40, 80)
        ]
        lines.append({"event": "end", "trial": key, "state": "complete"})
    with journal.path.open("a") as file:
        file.writelines(json.dumps({"time": 0.0, **line}) + "\n" for line in lines)
    for task in tasks:
        journal.append("selection", **task.to_dict())
    if len(tasks) > 1:
        journal.append("selection_overall", **overall(tasks).to_dict())
    journal.append("close", reason="finished" if tasks else "interrupted", message="")


def asked(*arguments: str) -> Any:
    return CliRunner().invoke(cli.app, ["select", *arguments], catch_exceptions=False)


def test_select_command_prints_answer_reason_and_next_step(sweeps: Path) -> None:
    write(sweeps, MAIL)
    found = asked(NAME, "--prefer", "size")
    assert found.exit_code == 0
    for words in (
        "mail  adapter: macro-F1 0.810 [0.790, 0.830] (95 % interval, 2,000 test rows, 3 seeds)",
        "tied         lora",
        "300 kB, lora 2.4 MB",
        f"export {NAME}/mail/adapter/1",
    ):
        assert words in found.output


def test_select_json_of_one_task_is_an_object(sweeps: Path) -> None:
    write(sweeps, MAIL)
    found = json.loads(asked(NAME, "--max-size", "1MB", "--json").output)
    assert (found["method"], found["tied"], found["pareto"]) == ("adapter", ["adapter"], ["lora", "adapter"])


def test_select_tells_the_probability_of_each_method(sweeps: Path) -> None:
    lora, adapter = replace(LORA, probability=0.75), replace(ADAPTER, probability=0.25)
    write(sweeps, selection(lora, adapter))
    found = json.loads(asked(NAME, "--json").output)
    assert (found["probability"], found["named"]) == ({"lora": 0.75, "adapter": 0.25}, ["lora", "adapter"])
    assert "lora 0.75 that a full search would not prefer another; adapter 0.25" in asked(NAME).output


def test_select_of_several_tasks_is_a_list_or_one_task(sweeps: Path) -> None:
    write(sweeps, MAIL, POST)
    assert [one["task"] for one in json.loads(asked(NAME, "--json").output)] == ["mail", "post"]
    assert json.loads(asked(NAME, "--task", "post", "--json").output)["method"] == "adapter"
    assert "one method for all tasks: " in asked(NAME).output
    with pytest.raises(InputError, match="did you mean post"):
        asked(NAME, "--task", "pots")


def test_select_without_a_match_exits_with_1(sweeps: Path) -> None:
    write(sweeps, MAIL)
    found = asked(NAME, "--max-size", "1kB", "--mergeable")
    assert found.exit_code == 1
    assert "relax one limit: write --max-size 2.4MB, and lora satisfies the rest (2.4 MB)" in found.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tiny-20260101-21000"], "did you mean tiny-20260101-120000?"),
        ([NAME, "--max-size", "huge"], "write it as in 10MB"),
        ([NAME, "--max-latency-overhead", "some"], "write it as in 5%"),
        ([NAME, "--max-latency-overhead", "5"], "without % is 500%; write 5% or 500%"),
        ([NAME, "--max-size", "1"], "has no unit; write 1MB, 1kB or 1B"),
        ([NAME, "--max-forgetting", "5%"], "is not a number of nats per token"),
        ([NAME, "--prefer", "sizes"], "write score, size, memory"),
        (["stopped"], r"has no result \(interrupted\)"),
    ],
)
def test_select_refuses_invalid_arguments_in_one_line(sweeps: Path, arguments: list[str], words: str) -> None:
    write(sweeps, MAIL)
    write(sweeps, name="stopped")
    with pytest.raises(InputError, match=words) as raised:
        asked(*arguments)
    assert len(raised.value.lines()) == 1


def test_find_sweep_by_name_folder_and_storage(sweeps: Path, tmp_path: Path) -> None:
    write(sweeps, MAIL)
    write(tmp_path / "elsewhere", MAIL, name="other")
    assert find_sweep(NAME) == find_sweep(f"sweeps/{NAME}") == sweeps / NAME
    assert find_sweep("other", "elsewhere").name == "other"
    assert find_sweep("other", f"file://{tmp_path}/elsewhere").name == "other"
    assert find_sweep(NAME, "s3://bucket/sweeps") == sweeps / NAME, "its journal is beside the driver"


@pytest.mark.slow
def test_select_of_500_trials_takes_seconds_without_torch(sweeps: Path) -> None:
    write(sweeps, MAIL, POST, trials=500)
    code = (
        "import sys\nfrom orchestrator import cli\nheavy = {'ray', 'torch', 'mlflow', 'transformers', 'optuna'}\n"
        "try:\n    cli.main()\n"
        "finally:\n    print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, "select", NAME, "--max-size", "1MB", "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr.strip().endswith("[]"), done.stderr
    assert len(json.loads(done.stdout)) == 2
    assert time.perf_counter() - begin < 10, "2 s where nothing else runs; see benchmarks.select"


def test_select_shows_memory_as_it_limits_it(sweeps: Path) -> None:
    write(sweeps, MAIL)
    output = asked(NAME).output
    (line,) = [line for line in output.splitlines() if line.split()[:1] == ["adapter"]]
    shown = " ".join(line.split()[4:6])
    assert json.loads(asked(NAME, "--max-memory", shown.replace(" ", ""), "--json").output)["method"]
    (chosen,) = [line for line in output.splitlines() if line.split()[:1] == ["lora"]]
    assert chosen.split()[-1] == "chosen"


def test_select_says_how_every_method_came_out(sweeps: Path) -> None:
    ia3 = replace(result("ia3", 0.70), gap=0.05, measurements=measurements(size=1e5))
    others = [replace(result(name, 0.5), reason="0.3 lower", measurements=measurements(size=1e5)) for name in "xyz"]
    others = [others[0], replace(others[1], cut=True), replace(others[2], undecided=True)]
    write(sweeps, replace(selection(LORA, ADAPTER, ia3), others=tuple(others)))
    output = asked(NAME).output
    assert "mean macro-F1" in output
    assert "added latency" in output
    words = {line.split()[0]: line.rstrip().split("  ")[-1].strip() for line in output.splitlines() if line.split()}
    expected = {"lora": "chosen", "adapter": "tied", "ia3": "lower", "x": "eliminated", "y": "cut by the cap"}
    assert expected | {"z": "undecided"} == {name: words[name] for name in (*expected, "z")}


def test_next_line_names_a_program_that_is_there(sweeps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started as a module, a program has no neighbour of its name."""
    write(sweeps, MAIL)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "package" / "__main__.py")])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    assert "next: bin/peft-sweep export" in asked(NAME).output


@pytest.mark.parametrize(
    ("place", "storage", "reference"),
    [
        ("sweeps", "sweeps", NAME),
        ("elsewhere", "elsewhere", f"elsewhere/{NAME}"),
        ("sweeps", "s3://bucket/team/", f"s3://bucket/team/{NAME}"),
    ],
)
def test_select_names_a_trial_that_export_finds(
    sweeps: Path, tmp_path: Path, place: str, storage: str, reference: str
) -> None:
    write(tmp_path / place, MAIL, storage=storage)
    assert f"export {reference}/mail/lora/1\n" in asked(f"{place}/{NAME}").output
