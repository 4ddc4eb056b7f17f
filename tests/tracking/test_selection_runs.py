"""What a comparison leaves on MLflow's runs, and the report's files beside it."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.journal.events import Event, Journal
from orchestrator.report.publish import COLUMNS, publish
from orchestrator.report.write import read_history, write_report
from orchestrator.simulation.written_sweep import WrittenSweep
from orchestrator.tracking.champion_note import champion_note
from orchestrator.tracking.connection import open_client
from orchestrator.tracking.runs import RunWriter
from orchestrator.tracking.runs_view import view_page
from orchestrator.tracking.selection_note import summary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return WrittenSweep(tmp_path / "airline-20261121-220300", trials=14).write()


@pytest.fixture
def runs(folder: Path, uri: str) -> dict[str, Any]:
    """By key, after the journal was written twice, as a mirror does that starts anew."""
    events = Journal.read(folder / "journal.jsonl")
    for _ in range(2):
        writer = RunWriter(uri, "airline")
        for event in events:
            writer.write(event)
    client = open_client(uri)
    experiment = client.get_experiment_by_name("airline")
    assert experiment
    found = {run.data.tags["key"]: run for run in client.search_runs([experiment.experiment_id], max_results=100)}
    assert len(found) == 15
    return found


def test_child_runs_have_mean_score_gap_and_tie(folder: Path, runs: dict[str, Any]) -> None:
    selection = read_history(folder).selections["airline"]
    for result in selection.scored:
        run = runs[result.trial]
        assert run.data.metrics["mean_score"] == result.mean_score
        assert run.data.metrics["checkpoint_score"] == result.checkpoint_score
        assert (run.data.metrics["mean_low"], run.data.metrics["mean_high"]) == result.interval
        assert run.data.metrics["seeds"] == len(result.seed_scores)
        assert run.data.metrics.get("gap") == result.gap
        assert run.data.tags["tied"] == str(result.tied).lower()
        assert run.data.tags["kind"] == "trial"
        assert run.data.tags["role"] == ("champion" if result.method == "lora" else "best")
    assert runs[selection.trial].data.metrics["seed_score"] == selection.winner.seed_scores[-1]


def test_parent_run_has_the_recommendation(folder: Path, runs: dict[str, Any]) -> None:
    parent, selection = runs["airline"].data, read_history(folder).selections["airline"]
    assert parent.tags["kind"] == "sweep"
    assert parent.tags["recommended"] == "lora"
    assert parent.tags["tied_methods"].split(", ") == list(selection.tied)
    assert parent.metrics["mean_score"] == selection.winner.mean_score
    assert parent.metrics["minimum_detectable_difference"] == selection.minimum_detectable_difference
    note = parent.tags["mlflow.note.content"]
    low, high = selection.winner.interval
    score = f"macro_f1 {selection.winner.mean_score:.3f} [{low:.3f}, {high:.3f}] (95 % interval)"
    assert note.startswith(f"airline: lora, {score}, [version 1](#/models/airline/versions/1), ")
    assert f"Recommended: **lora**. Reason: {selection.reason}." in note
    assert note.count("\n| ") == len(selection.scored) + 2, "a line each, below the heads"


def test_parent_run_has_score_baseline_and_costs_with_their_bounds(folder: Path, uri: str) -> None:
    """The costs are those of the result, as terminal, report and card have them, and not the kept checkpoint's."""
    (events, parent) = written(folder, uri, baselines=[{"name": "the median", "score": 0.3, "interval": [0.28, 0.33]}])
    selection = next(event for event in events if event["event"] == "selection")
    best = selection["finalists"][0]
    assert best["measurements"]["peak_memory_bytes"] == 5e8
    expected = {"mean_score": best["mean_score"], "mean_low": best["interval"][0], "mean_high": best["interval"][1]}
    expected |= {"baseline_score": 0.3, "baseline_low": 0.28, "baseline_high": 0.33}
    expected |= {"lead_over_baseline": 0.5, "lead_over_baseline_low": 0.4, "probability": 0.75, "collapsed_seeds": 1}
    expected |= {"seeds": 3, "tied_count": len(selection["tied"]), "peak_memory_bytes": 5e8}
    expected |= {"minimum_detectable_difference": selection["minimum_detectable_difference"]}
    assert expected.items() <= parent.metrics.items()
    assert not {"attach_seconds", "micro_batches", "evaluation_seconds"} & parent.metrics.keys()
    assert parent.tags["named_methods"].split(", ") == selection["tied"]
    assert (parent.tags["selection_state"], parent.tags["baseline"]) == ("recommended", "the median")
    note = parent.tags["mlflow.note.content"]
    assert "Better than the median (0.300 [0.280, 0.330])." in note
    assert "| the median | 0.300 | 0.280 to 0.330 |  | baseline |" in note
    assert "| 3, 1 with one answer for every row | recommended |" in note
    assert "Probability: lora 0.75 that a full search would not prefer another." in note
    assert "2,069 test rows. Intervals cover test rows, and seeds where there are several;" in note


def written(folder: Path, uri: str, **changes: Any) -> tuple[list[Event], Any]:
    """Events whose selection has changes and a recommended method with all that is recorded today; the parent run."""
    events = Journal.read(folder / "journal.jsonl")
    for event in events:
        if event["event"] == "selection":
            best = event["finalists"][0]
            best |= {"probability": 0.75, "collapsed_seeds": 1, "baseline_lead": [0.5, 0.4]}
            best["measurements"] |= {"peak_memory_bytes": 5e8, "micro_batches": 1.0, "attach_seconds": 0.1}
            event |= changes
        elif event["event"] == "test":
            event["measurements"] = {**event.get("measurements", {}), "peak_memory_bytes": 4e8, "attach_seconds": 0.2}
    writer = RunWriter(uri, "airline")
    for event in events:
        writer.write(event)
    return list(events), open_client(uri).get_run(writer.run_id("airline") or "").data


def test_run_of_a_result_without_an_alias_lists_its_version_alone(folder: Path, uri: str) -> None:
    events = Journal.read(folder / "journal.jsonl")
    methods = {"lora": {"version": 1, "alias": ""}, "ia3": {"version": 2, "alias": "challenger"}}
    next(event for event in events if event["event"] == "registered")["methods"] = methods
    writer = RunWriter(uri, "airline")
    for event in events:
        writer.write(event)
    tags = open_client(uri).get_run(writer.run_id("airline") or "").data.tags
    assert tags["registered_versions"] == "1 (lora), 2 (ia3, challenger)"


def test_runs_of_several_tasks_have_the_one_method_for_all(tmp_path: Path, uri: str) -> None:
    folder = WrittenSweep(tmp_path / "two-20261121-220300", trials=28, tasks=("mail", "calls")).write()
    writer = RunWriter(uri, "two")
    for event in Journal.read(folder / "journal.jsonl"):
        writer.write(event)
    overall = read_history(folder).overall
    assert overall
    for task in ("mail", "calls"):
        tags = open_client(uri).get_run(writer.run_id(task) or "").data.tags
        assert tags["recommended_for_all_tasks"] == overall.recommended
        assert tags["reason_for_all_tasks"] == overall.reason


def test_parent_run_has_the_report_as_artifacts(folder: Path, runs: dict[str, Any], uri: str, tmp_path: Path) -> None:
    history, report = read_history(folder), write_report(folder)
    for _ in range(2):  # again changes nothing
        assert publish(history, report, tracking_uri=uri) == {"airline": runs["airline"].info.run_id}
    client, parent = open_client(uri), runs["airline"].info.run_id
    place = Path(client.download_artifacts(parent, "", str(tmp_path)))
    assert (place / "report.html").read_bytes() == report.read_bytes()
    table = json.loads((place / "leaderboard.json").read_text())
    assert table["columns"] == list(COLUMNS)
    assert [row[1] for row in table["data"]][:1] == ["lora"]
    assert len({len(row) for row in table["data"]} | {len(COLUMNS)}) == 1
    assert (place / "leaderboard.csv").read_text().splitlines()[1].startswith("1,lora,recommended,0.8")
    assert {file.name for file in (place / "plots").glob("*.svg")} >= {"score-against-trainable-parameters.svg"}
    shown = json.loads(client.get_run(parent).data.tags["mlflow.loggedArtifacts"])
    assert shown == [{"path": "leaderboard.json", "type": "table"}]


def test_publish_without_database_or_run_logs_nothing(folder: Path, uri: str, tmp_path: Path) -> None:
    history, report = read_history(folder), write_report(folder)
    assert publish(history, report, tracking_uri=f"sqlite:///{tmp_path / 'none.db'}") == {}
    assert not (tmp_path / "none.db").exists()
    assert publish(history, report, tracking_uri=uri) == {}


def test_samples_are_a_table_of_the_parent_run(folder: Path, uri: str) -> None:
    """Written twice, as an exporter that starts anew does."""
    line = {"row": 3, "prompt": "ask", "reference": "good", "texts": {"lora": "well", "ia3": "bad"}}
    events = [*Journal.read(folder / "journal.jsonl"), {"event": "samples", "task": "airline", "samples": [line]}]
    for _ in range(2):
        writer = RunWriter(uri, "airline")
        for event in events:
            writer.write({"time": 0.0, **event})
    client, run = open_client(uri), writer.run_id("airline")
    assert run
    path = client.download_artifacts(run, "samples.json")
    table = json.loads(Path(path).read_text())
    assert table == {
        "columns": ["row", "prompt", "reference", "lora", "ia3"],
        "data": [[3, "ask", "good", "well", "bad"]],
    }
    publish(read_history(folder), write_report(folder), tracking_uri=uri)
    tag = json.loads(client.get_run(run).data.tags["mlflow.loggedArtifacts"])
    assert tag == [{"path": name, "type": "table"} for name in ("samples.json", "leaderboard.json")]


def test_runs_and_versions_lead_to_each_other(folder: Path, uri: str) -> None:
    methods = {"lora": {"version": 3, "alias": "champion"}, "ia3": {"version": 4, "alias": "challenger"}}
    journal = Journal(folder / "journal.jsonl")
    journal.append("registered", task="airline", name="airline", version=3, aliases=["champion"], methods=methods)
    writer = RunWriter(uri, "airline")
    for event in Journal.read(folder / "journal.jsonl"):
        writer.write(event)
    client, selection = open_client(uri), read_history(folder).selections["airline"]
    parent = client.get_run(writer.run_id("airline") or "").data.tags
    assert parent["registered_versions"] == "3 (lora, champion), 4 (ia3, challenger)"
    assert "[airline version 4](#/models/airline/versions/4) (ia3)" in parent["mlflow.note.content"]
    assert "Recommended: **lora**" in parent["mlflow.note.content"]
    trial = client.get_run(writer.run_id(selection.result("ia3").trial) or "").data.tags
    assert "[airline version 4](#/models/airline/versions/4)" in trial["mlflow.note.content"]
    assert trial["registered_version"] == "4"


def test_experiment_begins_with_what_was_found_and_keeps_other_text(folder: Path, uri: str) -> None:
    client = open_client(uri)
    experiment = client.create_experiment("airline")
    client.set_experiment_tag(experiment, "mlflow.note.content", "Ask Ada.")
    journal = Journal(folder / "journal.jsonl")
    journal.append("registered", task="airline", name="airline", version=3, aliases=["champion"], methods={})
    for _ in range(2):
        writer = RunWriter(uri, "airline")
        for event in Journal.read(folder / "journal.jsonl"):
            writer.write(event)
    note = client.get_experiment(experiment).tags["mlflow.note.content"]
    found, other = note.split("\n\n")
    assert found.startswith("airline: lora, macro_f1 0.8")
    assert "[version 3](#/models/airline/versions/3), 1.9 MB, 2,069 test rows. " in found
    assert '`mlflow.pyfunc.load_model("models:/airline/3")`' in found
    assert found.endswith(f"[Its trials by score]({view_page(experiment, folder.name)}).")
    assert other == "Ask Ada."


def test_champion_note_says_what_was_beaten_and_what_not() -> None:
    lora = {"method": "lora", "mean_score": 0.8, "interval": [0.7, 0.9], "tied": True, "baseline_lead": [0.5, 0.4]}
    ia3 = {"method": "ia3", "mean_score": 0.79, "tied": True, "gap": None}
    prefix = {"method": "prefix", "mean_score": 0.6, "tied": False, "gap": 0.1}
    baselines = [{"name": "always answering negative", "score": 0.3, "interval": [0.2, 0.4]}]
    selection = {"task": "mail", "recommended": "lora", "metric": "accuracy", "rows": 1000, "tied": ["lora", "ia3"]}
    selection |= {"finalists": [lora, ia3, prefix], "others": [], "baselines": baselines}
    note = champion_note(selection, "mail", 2)
    assert "versions/2), 1,000 test rows. Better than always answering negative (0.300 [0.200, 0.400])." in note
    assert "Better than `prefix` (0.600). Tied with `ia3`. Load " in note
    lora["baseline_lead"] = [0.05, -0.01]
    assert "**Not shown to be better than always answering negative** (0.300 [0.200, 0.400])." in champion_note(
        selection, "mail", 2
    )


def test_experiment_has_a_saved_view_of_each_sweep(folder: Path, runs: dict[str, Any], uri: str) -> None:
    experiment = open_client(uri).get_experiment_by_name("airline")
    assert experiment
    view = json.loads(experiment.tags["mlflow.sharedViewState.airline-20261121-220300"])
    assert {"tags.`method`", "tags.`state`", "metrics.`mean_score`"} < set(view["selectedColumns"])
    assert (view["orderByKey"], view["orderByAsc"]) == ("metrics.`validation_macro_f1`", False)
    shown = open_client(uri).search_runs([experiment.experiment_id], view["searchFilter"], max_results=100)
    assert {run.info.run_id for run in shown} == {run.info.run_id for run in runs.values()}


def test_description_of_a_run_recommends_nothing_no_better_than_the_baseline(folder: Path) -> None:
    event = next(event for event in Journal.read(folder / "journal.jsonl") if event["event"] == "selection")
    best, *others = event["finalists"]
    baselines = [{"name": "the median", "score": 0.84, "interval": [0.83, 0.85]}]
    finalists = [{**best, "baseline_lead": [0.01, -0.01]}, *others]
    told = summary({**event, "finalists": finalists, "baselines": baselines})
    assert told.startswith("**No method was shown to be better than the median (macro-F1 0.840 [0.830, 0.850]).**")
    assert "Closest: **lora**." in told
    assert "ecommended" not in told


@pytest.mark.parametrize(("look", "level"), [({}, "95 %"), ({"look": 1}, "95 %"), ({"look": 2}, "97.5 %")])
def test_notes_of_runs_have_the_level_of_their_look(folder: Path, look: dict[str, int], level: str) -> None:
    events = Journal.read(folder / "journal.jsonl")
    selection = next(event for event in events if event["event"] == "selection")
    event = {key: value for key, value in selection.items() if key != "look"} | look
    assert f"| {level} interval |" in summary(event)
    assert f"Ties and differences are at the {level} level." in summary(event)
    assert f"] ({level} interval), [version 2](" in champion_note(event, "airline", 2)


def test_description_of_a_run_says_which_methods_are_undecided_or_cut(folder: Path) -> None:
    event = next(event for event in Journal.read(folder / "journal.jsonl") if event["event"] == "selection")
    first, second = ({**result, "reason": "0.2 lower than lora on validation"} for result in event["others"][:2])
    told = summary({**event, "others": [{**first, "undecided": True}, {**second, "cut": True}]})
    assert f"| {first['method']} | {first['mean_score']:.3f} |" in told
    assert told.count("| undecided: more trials may bring it ahead") == 1
    assert told.count("| cut by the cap on finalists") == 1
