"""Resuming a sweep: it is found, locked and planned as before, or refused in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from orchestrator import cli
from orchestrator.backbone.publish import PreparedBackbone
from orchestrator.backbone.store import Published, backbone_digest
from orchestrator.cli.output.console import console
from orchestrator.cli.output.next_commands import resume_hint
from orchestrator.cli.output.plan import plan_json, print_plan
from orchestrator.cli.output.resume import summary
from orchestrator.common.errors import InputError
from orchestrator.config import load_config
from orchestrator.journal.events import Journal
from orchestrator.journal.folders import lock_folder
from orchestrator.planning.plan import SweepPlan, make_plan
from orchestrator.sweep.manifest import changed_inputs, changed_versions, describe, driver, identity
from orchestrator.sweep.resume import open_sweep, resumed_plan
from orchestrator.sweep.saved_state import SavedSweep

from ..small_plan import small_plan
from ..small_sweep import write_sweep
from .test_every_task_type import TEMPLATE
from .test_every_task_type import write_sweep as write_sweep_of_type

NAME = "tiny-20260101-120000"


def planned_sweep(folder: Path, **changes: Any) -> SweepPlan:
    """Write the checkpoint, the rows and the journal of a sweep that started, and return its plan."""
    plan = make_plan(load_config(write_sweep(folder, **changes)))
    write_journal(folder, plan)
    return plan


def recorded_sweep(folder: Path, *events: dict[str, Any]) -> SweepPlan:
    """Write the journal alone, with more events, for tests that only read it, and return its plan."""
    mlflow = {"tracking_uri": f"sqlite:///{folder / 'mlflow.db'}"}
    plan = small_plan(["lora", "ia3"], storage=str(folder / "sweeps"), mlflow=mlflow)
    write_journal(folder, plan, *events)
    return plan


def write_journal(folder: Path, plan: SweepPlan, *events: dict[str, Any]) -> None:
    digest = backbone_digest(plan.source, "AutoModelForSequenceClassification", "nf4", True)
    backbones = {"mail": PreparedBackbone(Published(digest, 1000, 1000, fresh=True), None, "checksum")}
    journal = Journal(folder / "sweeps" / NAME / "journal.jsonl")
    journal.append("sweep", **describe(plan, NAME, backbones), **driver(0.0))
    for event in events:
        journal.append(**event)


def saved_of(folder: Path, reference: str = NAME) -> SavedSweep:
    with open_sweep(reference, str(folder / "sweeps")) as saved:
        return saved


def refusal(folder: Path, reference: str = NAME, file: Path | None = None) -> str:
    """Return the lines with which a sweep is not resumed."""
    with pytest.raises(InputError) as refused, open_sweep(reference, str(folder / "sweeps")) as saved:
        resumed_plan(saved, file)
    return "\n".join(refused.value.lines())


def test_resumed_plan_needs_only_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = planned_sweep(
        tmp_path, methods=["lora", "linear_probe"], search_space={"lora": {"rank": {"choices": [2, 4]}}}
    )
    (tmp_path / "sweep.yaml").unlink()
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    plan = resumed_plan(saved_of(tmp_path))
    assert plan.config.resolved() == before.config.resolved()
    assert plan.rungs == before.rungs
    assert [study.study for study in plan.studies] == [study.study for study in before.studies]
    assert plan.studies[0].space == before.studies[0].space


def test_resumed_plan_finds_relative_places_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    planned_sweep(tmp_path, storage="sweeps", mlflow={"tracking_uri": "sqlite:///mlflow.db"})
    config = resumed_plan(saved_of(tmp_path)).config
    assert (config.storage, config.mlflow.tracking_uri) == ("sweeps", "sqlite:///mlflow.db")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    config = resumed_plan(saved_of(tmp_path)).config
    assert config.storage == str(tmp_path / "sweeps")
    assert (config.mlflow.tracking_uri, config.mlflow.registry_uri) == (f"sqlite:///{tmp_path / 'mlflow.db'}", None)


def test_resume_makes_token_types_of_pairs_only_where_the_sweep_did(tmp_path: Path) -> None:
    """Releases before token types were passed recorded none, and their adapters know one type alone."""
    file = write_sweep(tmp_path)
    settings = tmp_path / "checkpoint" / "tokenizer_config.json"
    names = ["input_ids", "token_type_ids", "attention_mask"]  # as the tokenizers of BERT have it
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "model_input_names": names}))
    rows = "".join(f"good {word},bad {word},{number % 2}\n" for number, word in enumerate(map(str, range(40))))
    (tmp_path / "rows.csv").write_text("one,two,label\n" + rows)
    task = {"type": "classification", "data": "rows.csv", "text": "one", "text_pair": "two", "label": "label"}
    methods = ["linear_probe"]
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "tasks": {"mail": task}, "methods": methods}))
    write_journal(tmp_path, make_plan(load_config(file)))
    journal = tmp_path / "sweeps" / NAME / "journal.jsonl"

    def types_of_tokens() -> set[int]:
        plan = resumed_plan(saved_of(tmp_path))
        tokens = plan.tasks["mail"].type.tokenize(plan.tasks["mail"].data.splits["test"], plan.tokenizer, 16)
        assert plan.tasks["mail"].data.constants == plan.tasks["mail"].type.constants  # a bundle records the former
        columns = tokens.select([name for name in tokens.column_names if name == "token_type_ids"]).to_pydict()
        return {each for rows in columns.values() for types in rows for each in types}

    assert types_of_tokens() == {0, 1}
    assert '"constants": {"token_types": 2.0}' in journal.read_text()
    journal.write_text(journal.read_text().replace('"constants": {"token_types": 2.0}', '"constants": {}'))
    assert types_of_tokens() == set()


def test_resume_refuses_changed_data(tmp_path: Path) -> None:
    planned_sweep(tmp_path)
    rows = tmp_path / "rows.csv"
    rows.write_text(rows.read_text().replace("late", "soon"))
    assert "data.mail: the rows have changed since the sweep started" in refusal(tmp_path)


def test_resume_refuses_changed_checkpoint(tmp_path: Path) -> None:
    planned_sweep(tmp_path)
    weights = tmp_path / "checkpoint" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert "backbone.mail: the checkpoint has changed since the sweep started" in refusal(tmp_path)


def chat_plan(folder: Path, max_length: int = 24) -> SweepPlan:
    """Return the plan of a sweep of conversations of 13 tokens, all trained, and of prompts with choices."""
    file = write_sweep_of_type(folder, "decoder")
    values = yaml.safe_load(file.read_text())
    values["tasks"] = {"mail": {**values["tasks"]["chat"], "train_on": "all"}, "pick": values["tasks"]["pick"]}
    values["backbone"]["chat_template"] = "chat.jinja"
    values["training"]["max_length"] = max_length
    file.write_text(yaml.safe_dump({**values, "methods": ["norm_tuning"]}))
    (folder / "chat.jinja").write_text(TEMPLATE)
    return make_plan(load_config(file))


def test_sweep_records_and_plan_shows_what_is_cut(tmp_path: Path) -> None:
    plan = chat_plan(tmp_path, max_length=4)
    write_journal(tmp_path, plan)
    rows = plan.tasks["mail"].data.rows
    recorded = saved_of(tmp_path).description["tasks"]["mail"]["cut"]
    assert recorded == {
        split: {"cut": count, "rows": count, "is_estimate": False, "trained": 13 * count, "lost": 9 * count}
        for split, count in rows.items()
    }
    assert plan_json(plan)["tasks"]["mail"]["trained_tokens_cut"] == {split: 9 * count for split, count in rows.items()}
    with console.capture() as capture:
        print_plan(plan, Path("mail.yaml"))
    shown = " ".join(capture.get().split())
    lost = f"train {rows['train']} of {rows['train']} rows (100.0%), which lose {9 * rows['train']} of their"
    assert f"note: mail: rows of more than 4 tokens (training.max_length) are cut: {lost}" in shown
    (tmp_path / "other").mkdir()
    other = chat_plan(tmp_path / "other")
    assert other.cut_rows(other.tasks["mail"])["test"].cut == 0


def test_resume_refuses_changed_chat_template(tmp_path: Path) -> None:
    plan = chat_plan(tmp_path)
    assert identity(plan)["chat_template"].keys() == {"mail"}, "no prompt of the other task is rendered"
    write_journal(tmp_path, plan)
    resumed_plan(saved_of(tmp_path))
    (tmp_path / "chat.jinja").write_text(TEMPLATE.replace(" : ", " "))
    refused = refusal(tmp_path)
    assert (
        refused.splitlines()[0] == f"{NAME}: chat_template.mail: the chat template has changed since the sweep started"
    )


def test_resume_of_a_journal_without_chat_templates_checks_none() -> None:
    current = {"data": {"chat": "a"}, "chat_template": {"chat": "b"}}
    assert changed_inputs({"data": {"chat": "a"}}, current) == []


def test_changed_inputs_name_changed_spaces_and_rungs() -> None:
    plan = small_plan(["lora", "ia3"])
    assert changed_inputs(identity(plan), identity(plan)) == []
    narrower = small_plan(["lora", "ia3"], search_space={"lora": {"rank": {"choices": [2]}}})
    fewer = small_plan(["lora"])
    later = replace(plan, rungs=(10, 40))
    changed = [
        [problem.where for problem in changed_inputs(identity(plan), identity(other))]
        for other in (narrower, fewer, later)
    ]
    assert changed == [["spaces.mail/lora"], ["spaces.mail/ia3"], ["rungs.steps"]]


def test_resume_takes_passwords_from_the_configuration_file(tmp_path: Path) -> None:
    uri = "postgresql://me:hunter2@host/db"
    planned_sweep(tmp_path, mlflow={"tracking_uri": uri})
    assert "hunter2" not in (tmp_path / "sweeps" / NAME / "journal.jsonl").read_text()
    assert "add --config SWEEP.yaml" in refusal(tmp_path)
    plan = resumed_plan(saved_of(tmp_path), tmp_path / "sweep.yaml")
    assert plan.config.mlflow.tracking_uri == uri
    folder = tmp_path / "sweeps" / NAME
    assert resume_hint(folder, plan.config).endswith(f" resume {folder} --config {tmp_path / 'sweep.yaml'}")
    changed = write_sweep(tmp_path, budget={"trials": 7}, mlflow={"tracking_uri": uri})
    assert refusal(tmp_path, file=changed).startswith(
        f"{changed}: budget: differs from the configuration that the sweep started with"
    )


def test_resume_refuses_a_sweep_whose_folder_was_renamed(tmp_path: Path) -> None:
    planned_sweep(tmp_path)
    (tmp_path / "sweeps" / NAME).rename(tmp_path / "sweeps" / "other")
    assert refusal(tmp_path, "other") == (
        f"{tmp_path / 'sweeps' / 'other'}: this folder was called {NAME} when the sweep began; rename it back,"
        " wherever it is now"
    )


def test_resume_refuses_sweep_stopped_before_its_first_event(tmp_path: Path) -> None:
    Journal(tmp_path / "sweeps" / NAME / "journal.jsonl").append("close", reason="interrupted", message="")
    assert "nothing to resume" in refusal(tmp_path)


def test_open_sweep_ignores_a_torn_last_line(tmp_path: Path) -> None:
    recorded_sweep(tmp_path, {"event": "trial", "trial": "mail/lora/0", "params": {}, "seed": 7})
    with (tmp_path / "sweeps" / NAME / "journal.jsonl").open("a") as file:
        file.write('{"event": "end", "tri')
    assert (saved_of(tmp_path).trials_left, saved_of(tmp_path).trials_done) == (1, 0)


def test_open_sweep_accepts_a_unique_beginning_of_its_name(tmp_path: Path) -> None:
    recorded_sweep(tmp_path)
    assert saved_of(tmp_path, "tiny").sweep == NAME
    Journal(tmp_path / "sweeps" / "tiny-2" / "journal.jsonl")
    assert refusal(tmp_path, "tiny") == f"tiny: several sweeps have names that begin so: tiny-2, {NAME}"
    assert saved_of(tmp_path, "tiny-202").sweep == NAME
    assert "there is no sweep of that name" in refusal(tmp_path, "")


def test_lock_folder_is_held_until_its_driver_dies(tmp_path: Path) -> None:
    recorded_sweep(tmp_path)
    folder = tmp_path / "sweeps" / NAME
    code = (
        "import sys, pathlib; from orchestrator.journal.folders import lock_folder\n"
        "with lock_folder(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], **pipes) as other:
        assert other.stdout
        assert other.stdout.readline() == b"held\n"
        assert refusal(tmp_path).startswith(f"{NAME}: is still running (process ")
        other.kill()
    with lock_folder(folder):
        pass
    saved_of(tmp_path)


def test_resume_summary_counts_trials_done_and_left(tmp_path: Path) -> None:
    trials = [{"event": "trial", "trial": f"mail/lora/{number}", "params": {}, "seed": number} for number in range(3)]
    end = {"event": "end", "trial": "mail/lora/0", "state": "complete", "reason": "", "lane_seconds": 1.0}
    plan = recorded_sweep(tmp_path, *trials, end)
    assert summary(saved_of(tmp_path), plan) == "resumed: 1 of 10 trials are done, 2 continue from their checkpoints"
    assert changed_versions(saved_of(tmp_path).description["versions"]) == {}
    assert changed_versions({**saved_of(tmp_path).description["versions"], "peft": "0.0.1"})["peft"][0] == "0.0.1"


@pytest.mark.parametrize(
    ("events", "resumable"),
    [
        ([], True),
        ([{"event": "close", "reason": "failed"}], True),
        ([{"event": "searched", "reason": "budget"}], False),  # no trial came to a result, and none will
        ([{"event": "rung", "value": 0.5}, {"event": "searched", "reason": "budget"}], True),
        ([{"event": "registered", "task": "mail"}, {"event": "close", "reason": "finished"}], False),
    ],
)
def test_resume_command_is_shown_only_for_resumable_sweeps(
    tmp_path: Path, events: list[dict[str, Any]], resumable: bool
) -> None:
    plan = recorded_sweep(tmp_path, *events)
    folder = tmp_path / "sweeps" / NAME
    hint = resume_hint(folder, plan.config)
    assert hint.endswith(f" resume {folder}") == resumable
    assert bool(hint) == resumable


def test_resume_of_finished_sweep_names_other_commands(tmp_path: Path) -> None:
    registered = {"event": "registered", "task": "mail", "name": "mail", "version": 1, "aliases": ["champion"]}
    recorded_sweep(tmp_path, registered, {"event": "close", "reason": "finished"})
    before = (tmp_path / "sweeps" / NAME / "journal.jsonl").read_bytes()
    result = CliRunner().invoke(cli.app, ["resume", "tiny", "--storage", str(tmp_path / "sweeps")])
    assert result.exit_code == 0
    assert f"{NAME} is finished; there is nothing to resume." in result.output
    assert f" report {tmp_path / 'sweeps' / NAME}" in result.output
    json_result = CliRunner().invoke(cli.app, ["resume", "tiny", "--storage", str(tmp_path / "sweeps"), "--json"])
    assert json.loads(json_result.stdout)["reason"] == "finished"
    assert (tmp_path / "sweeps" / NAME / "journal.jsonl").read_bytes() == before
