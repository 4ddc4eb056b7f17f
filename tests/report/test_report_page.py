"""What the report says, of sweeps of every ending, and that nothing in it is anything but text."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from orchestrator.journal.events import Journal
from orchestrator.report.costs import costs
from orchestrator.report.early_ends import early_ends
from orchestrator.report.history import History
from orchestrator.report.method_rows import method_rows
from orchestrator.report.page import TaskPage
from orchestrator.report.write import read_history, render, write_report
from orchestrator.tasks.cut_rows import CutRows

EVIL = "<script>alert('x')</script>\" onload=\"alert(1)"
Write = Callable[..., Path]


class Page(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def told(folder: Path) -> Page:
    return Page(render(folder, read_history(folder)))


def rewritten(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Path:
    """The journal with every event changed, or left out."""
    journal = folder / "journal.jsonl"
    events = [change(event) for event in Journal.read(journal)]
    journal.write_text("".join(json.dumps(event) + "\n" for event in events if event))
    return folder


def test_report_begins_with_recommendation_and_uncertainty(swept: Path) -> None:
    page, best = told(swept), next(iter(read_history(swept).selections.values())).winner
    answer = page.text[: page.text.index("Methods")]
    low, high = best.interval
    assert "Use lora" in answer
    assert f"{best.mean_score:.3f} macro-F1 95 % interval {low:.3f} to {high:.3f}" in answer
    assert "2,069 test rows · 3 seeds" in answer
    assert "Tied with it (95 % level): adapter ia3" in answer or "level): ia3 adapter" in answer
    assert "lora has the best score of the 3 tied methods" in answer
    assert "prefer: size selects ia3" in answer
    assert "least significant difference to the nearest rival: 0.024; a true difference of that size is found" in answer


def test_report_tells_probabilities_and_undecided_methods(written: Callable[..., Path]) -> None:
    def undecided(event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] == "selection":
            for number, scored in enumerate(event["finalists"] + event["others"]):
                scored |= {"probability": 0.5 / 2**number, "undecided": scored["method"] == "prompt"}
        return event

    page = told(rewritten(written(trials=21), undecided))
    assert "lora 0.50 that a full search would not prefer another; " in page.text
    assert "Undecided, since more trials may bring them ahead (95 % quantile): prompt" in page.text


def test_report_loads_nothing_from_elsewhere(swept: Path) -> None:
    page = told(swept)
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in ("src", "srcset", "style", "xlink:href")]
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    whole = render(swept, read_history(swept))
    assert "url(" not in whole
    assert "@import" not in whole


def test_report_drawings_have_labels(swept: Path) -> None:
    page = told(swept)
    drawings = page.tags.count("svg")
    named = [value for name, value in page.attributes if name == "aria-label"]
    hidden = [value for name, value in page.attributes if name == "aria-hidden"]
    assert len([name for name, value in page.attributes if (name, value) == ("role", "img")]) + len(hidden) >= drawings
    assert any(label.startswith("macro-F1 against trainable parameters") for label in named)
    assert ("lang", "en") in page.attributes
    assert page.tags.count("th") == len([name for name, _ in page.attributes if name == "scope"])


def test_report_escapes_markup_from_the_sweep(written: Write) -> None:
    def poison(event: dict[str, Any]) -> dict[str, Any]:
        text = json.dumps(event).replace("ia3", json.dumps(f"ia3{EVIL}".replace("/", "|"))[1:-1])
        event = json.loads(text)
        match event["event"]:
            case "selection":
                event |= {
                    "reason": EVIL,
                    "alternative": EVIL,
                    "claims": [{"claim": EVIL, "verdict": EVIL, "evidence": EVIL}],
                }
            case "end":
                event["reason"] = EVIL
            case "close":
                event["message"] = EVIL
            case "trial":
                event["params"]["init"] = EVIL
            case "sweep":
                event["config"]["note"] = event["backbone"]["model"] = EVIL
                event["sweep"] = EVIL
        return event

    page = told(rewritten(written(trials=21), poison))
    assert "script" not in page.tags
    assert "onload" not in [name for name, _ in page.attributes]
    assert page.text.count("alert('x')") > 20


def test_report_masks_secrets(written: Write) -> None:
    def leak(event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] == "sweep":
            event["config"]["mlflow"]["tracking_uri"] = "postgresql://me:hunter2@host/db"
        return event | ({"message": "no answer from http://me:hunter2@host/"} if event["event"] == "close" else {})

    whole = write_report(rewritten(written(trials=7), leak)).read_text()
    assert "postgresql://***@host/db" in whole
    assert "hunter2" not in whole


def test_report_of_uncompared_scores_names_no_ties(written: Write) -> None:
    folder = rewritten(written(trials=40), lambda e: None if e["event"] == "selection" else {**e, "seed": None})
    page = told(folder)
    assert "Use lora" in page.text
    assert "so ties are unknown" in page.text
    assert "Tied with it" not in page.text
    assert "nan" not in page.text.lower().replace("finance", "")


@pytest.mark.parametrize(
    ("ending", "words"), [("interrupted", "interrupted"), ("failed", "every lane has ended"), ("", "not ended")]
)
def test_report_of_a_sweep_without_final(written: Write, ending: str, words: str) -> None:
    page = told(written(ending, trials=30))
    assert "No winner yet" in page.text
    assert words in page.text
    assert "macro-F1 on validation against trainable parameters" in " ".join(value for _, value in page.attributes)


def test_report_of_a_sweep_that_failed_before_its_first_trial(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "early-1" / "journal.jsonl")
    assert "nothing was trained" in told(journal.path.parent).text
    journal.append("close", reason="failed", message="no lane can start")
    page = told(journal.path.parent)
    assert "The sweep failed: no lane can start" in page.text
    assert "The sweep ended before its configuration was recorded." in page.text


def test_history_counts_a_resumed_trial_once(written: Write) -> None:
    folder = written("interrupted", trials=8)
    events = Journal.read(folder / "journal.jsonl")
    trial = next(event for event in events if event["event"] == "trial")
    history = History.of("again", [*events, trial])
    assert len(history.trials) == 8
    assert history.reason == "unfinished"
    assert read_history(folder).reason == "interrupted"


def test_early_ends_have_step_reason_and_values(swept: Path) -> None:
    history = read_history(swept)
    rows = method_rows(history, "airline", history.selections["airline"])
    found = early_ends(rows, history.steps)
    own = [r for r in history.trials if r.key.method == "lora" and r.state == "pruned" and r.step == 50]
    first = next(one for one in found if one.method == "lora" and one.when == "step 50 of 100")
    assert first.what == f"{len(own)} trials stopped early"
    assert first.why == "behind the others of its method"
    values = sorted(record.values[50] for record in own)
    went_on = sorted(r.values[50] for r in history.trials if r.key.method == "lora" and r.step == 100)
    ranges = [f"{some[0]:.3f}\N{EN DASH}{some[-1]:.3f}" for some in (values, went_on)]
    assert first.numbers == ", continued trials ".join(ranges)
    assert {one.what for one in found if one.method == "prefix"} >= {"worse than the best"}
    assert next(one for one in found if one.method == "multitask_prompt").why == "needs source_tasks"
    stopped = sum(int(one.what.split()[0]) for one in found if one.what.endswith("stopped early"))
    assert stopped == sum(record.state == "pruned" for record in history.trials)


def test_early_ends_list_dropped_methods_unless_readmitted(swept: Path) -> None:
    events = Journal.read(swept / "journal.jsonl")
    numbers = {"bound": 0.61, "best": 0.6, "leader": "airline/lora", "leader_best": 0.8, "margin": 0.04, "pulls": 5.24}
    drops = [{"event": "drop", "time": 0.0, "study": f"airline/{method}", **numbers} for method in ("ia3", "prefix")]
    history = History.of("race", [*events, *drops, {"event": "readmit", "time": 0.0, "study": "airline/ia3"}])
    (told,) = [one for one in TaskPage(history, "airline", {}).early_ends if one.what == "dropped from the race"]
    assert (told.method, told.when) == ("prefix", "after the cost of 5.2 full trials")
    assert told.why == "not expected to reach lora"
    assert told.numbers == "upper bound 0.610, lora has 0.800, margin 0.040"


def test_method_rows_are_ordered_by_status_and_score(swept: Path) -> None:
    history = read_history(swept)
    rows = method_rows(history, "airline", history.selections["airline"])
    assert [row.status for row in rows] == [
        "recommended", "tied", "tied", "worse", "worse", "eliminated", "eliminated", "left out",
    ]  # fmt: skip
    scores = [row.shown_score for row in rows if row.status in ("tied", "worse", "eliminated")]
    assert scores == sorted(scores, reverse=True)


def test_costs_add_up_and_have_a_price_with_a_rate(swept: Path) -> None:
    history = read_history(swept)
    found = costs(history)
    assert found.search_seconds == pytest.approx(sum(found.by_method.values()))
    assert found.money == "no rate is set"
    retrained = [event["measurements"]["train_seconds"] for event in history.tests if event["seed"] is not None]
    assert found.final_seconds == pytest.approx(sum(retrained))
    history.config["budget"]["cost_per_lane_hour"] = 2.0
    priced = costs(history)
    assert priced.money.startswith(f"{priced.lane_seconds / 1800:,.2f} at 2 per lane hour")


def test_report_tells_how_many_nodes_were_taken_back(swept: Path) -> None:
    assert "taken back" not in told(swept).text
    with (swept / "journal.jsonl").open("a") as journal:
        for event in ({"event": "drain", "node": "a"}, {"event": "drain", "node": "b"}, {"event": "move", "step": 3}):
            journal.write(json.dumps({"time": 1.0} | event) + "\n")
    assert "preemptions 2 nodes taken back, 1 training moved" in told(swept).text


def test_importance_is_shown_for_enough_trials(swept: Path, written: Write) -> None:
    text = told(swept).text
    first = re.findall(r"(\w+) \d+ complete trials (\w+) (\d+) %", text)
    assert len(first) >= 3
    assert sum(name == "learning_rate" and int(share) > 40 for _, name, share in first) >= 2
    assert "too few trials" in told(written(trials=21)).text


def test_importance_is_left_out_without_optunas_file(written: Write) -> None:
    folder = written(trials=14)
    (folder / "optuna.log").unlink()
    assert "Hyperparameter importance" not in told(folder).text


def test_report_changes_no_other_file_of_the_sweep(swept: Path) -> None:
    before = {file.name: file.read_bytes() for file in swept.iterdir() if file.name != "report.html"}
    write_report(swept)
    assert {file.name: file.read_bytes() for file in swept.iterdir() if file.name != "report.html"} == before


def test_report_of_a_sparse_journal(written: Write) -> None:
    def sparse(event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] == "sweep":
            return {"time": event["time"], "event": "sweep", "sweep": event["sweep"], "backbone": {"bytes": 1e9}}
        return event

    assert "Use lora" in told(rewritten(written(trials=14), sparse)).text


def test_report_of_a_journal_of_0_1_has_its_numbers() -> None:
    release_0_1 = Path(__file__).parents[1] / "data" / "sweeps_of_0_1" / "storage" / "finished-20261126-164710"
    page = told(release_0_1)
    assert "Use linear_probe 0.487 accuracy 95 % interval 0.341 to 0.633 39 test rows · 2 seeds" in page.text
    assert "Tied with it (95 % level): lora" in page.text
    assert "least significant difference to the nearest rival: 0.100; a true difference of that size" in page.text
    rows = {row.method: row for row in TaskPage(read_history(release_0_1), "mail", {}).rows}
    assert rows["lora"].result is not None
    assert (rows["lora"].result.mean_score, rows["lora"].result.checkpoint_score) == (
        0.47435897435897434, 0.48717948717948717,
    )  # fmt: skip


def test_report_tells_which_rows_were_cut(written: Write) -> None:
    def with_cut(event: dict[str, Any]) -> dict[str, Any]:
        if event["event"] == "sweep":
            cut = CutRows(12, 6206, True, 300, 40)
            event["tasks"]["airline"]["cut"] = {"train": cut.fields(), "test": CutRows(1, 2069, False).fields()}
        return event

    folder = written(trials=20)
    assert "cut in airline" not in told(folder).text
    shown = told(rewritten(folder, with_cut)).text
    lost = "train about 12 of 6,206 rows (0.2%), which lose about 40 of their 300 trained tokens"
    assert f"cut in airline of more than 64 tokens: {lost}; test 1 of 2,069 rows (0.0%)" in shown


def test_report_says_what_its_intervals_cover(written: Callable[..., Path]) -> None:
    text = told(written(trials=20)).text
    assert (
        "Intervals are at the 95 % level where no other is named. Those of retrained methods cover test rows and"
        in text
    )
    assert "scored once cover test rows alone; none covers how well a method was tuned." in text
    assert "a true difference of that size is found half of the time" in text


def test_report_says_when_no_method_is_better_than_the_baseline(written: Callable[..., Path]) -> None:
    folder = written(trials=60)
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    for event in lines:
        if event["event"] == "selection":
            event["baselines"] = [{"name": "always answering negative", "score": 0.84, "interval": [0.83, 0.85]}]
            for result in event["finalists"]:
                result |= {"baseline_lead": [0.0, -0.02], "collapsed_seeds": 2}
            event["others"][0] |= {"cut": True, "reason": "cut by the cap of 4 finalists"}
        elif event["event"] == "registered":
            event["aliases"] = []
    (folder / "journal.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in lines))
    page = told(folder)
    assert "No method was better than always answering negative 0.840 macro-F1" in page.text
    assert (
        "The closest is lora: +0.000 against always answering negative, lower bound -0.020 (95 % level)." in page.text
    )
    assert "Use lora" not in page.text
    assert "lora: 2 of 3 seeds gave every row the same answer" in page.text
    assert "version 1, without an alias" in page.text
    rows = {row.method: row for row in TaskPage(History.of("x", lines), "airline", {}).rows}
    assert (rows["lora"].status, rows["lora"].may_be_best) == ("no better", False)
    assert "cut" in {row.status for row in rows.values()}
