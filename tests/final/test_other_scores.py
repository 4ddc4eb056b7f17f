"""Metrics beside the optimized one, and samples of generated text: from the final to the report and MLflow."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Answer, Job, checkpoint_path
from orchestrator.final.results import TEST_FILE
from orchestrator.final.run import run_final
from orchestrator.final.samples import MOST_CHARACTERS, samples
from orchestrator.journal.events import Journal
from orchestrator.report.history import History
from orchestrator.report.page import page
from orchestrator.selection.ask import ask
from orchestrator.selection.limits import Limits
from orchestrator.selection.selection import selections
from orchestrator.tasks.causal_lm import CausalLM
from orchestrator.tracking.selection_note import mean_scores

from ..small_plan import CAUSAL, small_plan, trial

METRICS = ["perplexity", "bleu", "exact_match"]
REFERENCES = ["the cat sat on the mat", "a dog ran far away"]


class Lanes:
    """Answers jobs with predictions of two rows, of which one is written wrong by the first seed of ``lora``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, jobs: list[Job]) -> list[Answer]:
        return [self._answer(job) for job in jobs]

    def _answer(self, job: Job) -> Answer:
        checkpoint = f"{checkpoint_path(job.trial, job.stop, job.retraining)}-test"
        (self.folder / checkpoint).mkdir(parents=True)
        wrong = job.trial.method == "lora" and job.retraining == 0
        columns = {"row": [0, 1], "nll": [9.0, 4.0 + wrong], "tokens": [3, 3], "bytes": [20, 20]}
        texts = {"generated": [REFERENCES[0], "no" if wrong else REFERENCES[1]], "reference": REFERENCES}
        table = pa.table({**columns, **texts})
        parquet.write_table(table, self.folder / checkpoint / TEST_FILE)
        metrics = {name: CausalLM().score(name, table) for name in METRICS}
        validation = {} if job.retraining is None else {"perplexity": 9.0 + (job.retraining or 0)}
        fields: dict[str, Any] = {"metrics": metrics, "validation": validation, "checkpoint": checkpoint}
        measurements = {"trainable_parameters": 100.0}
        return Answer(status="done", step=job.stop, measurements=measurements, **fields)


@pytest.fixture
def events(tmp_path: Path) -> list[dict[str, Any]]:
    plan = small_plan(["lora", "ia3"], {"talk": {**CAUSAL, "metric": METRICS}})
    splits: dict[str, pa.Table] = plan.tasks["talk"].data.splits
    splits["test"] = splits["test"].append_column("prompt", [["a", "b"]])
    splits["train"] = splits["train"].append_column("completion", [REFERENCES])
    records = (trial("talk/lora/0", values={40: 9.0}), trial("talk/ia3/0", values={40: 9.0}))
    run_final(plan, records, Lanes(tmp_path), Storage(str(tmp_path)), Journal(tmp_path / "journal.jsonl"))
    return Journal.read(tmp_path / "journal.jsonl")


def test_selection_has_intervals_of_every_listed_metric(events: list[dict[str, Any]]) -> None:
    selection = selections(events)["talk"]
    lora, ia3 = selection.result("lora"), selection.result("ia3")
    assert list(lora.other_scores) == ["bleu", "exact_match"]
    mean, low, high = lora.other_scores["exact_match"]
    assert mean == pytest.approx(np.mean([0.5, 1.0, 1.0]))
    assert 0 <= low < mean < high <= 1
    assert ia3.other_scores["bleu"] == pytest.approx([100, ia3.other_scores["bleu"][1], 100])
    assert selection.metric.name == "perplexity"


def test_other_scores_are_in_select_and_in_mlflow(events: list[dict[str, Any]]) -> None:
    selection = selections(events)["talk"]
    reply = ask(selection, Limits(), None, backbone=1e9, events=events).to_dict()
    assert reply["other_scores"] == {name: list(s) for name, s in selection.winner.other_scores.items()}
    logged = mean_scores(selection.winner.to_dict())
    assert [logged[f"bleu_{end}"] for end in ("mean", "low", "high")] == list(selection.winner.other_scores["bleu"])


def test_samples_of_the_finalists_are_in_the_journal_and_the_report(events: list[dict[str, Any]]) -> None:
    (event,) = [event for event in events if event["event"] == "samples"]
    assert [line["row"] for line in event["samples"]] == [0, 1]
    first = event["samples"][0]
    assert (first["prompt"], first["reference"], set(first["texts"])) == ("a", REFERENCES[0], {"lora", "ia3"})
    assert set(event["samples"][1]["texts"].values()) <= {REFERENCES[1], "no"}
    event["samples"] = [{**first, "texts": {"lora": "<b>bold</b>"}}]
    trials = [{"time": 0.0, "event": "trial", "trial": f"talk/{method}/0", "params": {}} for method in ("lora", "ia3")]
    html = page(History.of("sweep", [*trials, *events]), {})
    assert "Other metrics" in html
    assert "&lt;b&gt;bold&lt;/b&gt;" in html


def test_samples_are_spread_and_cut() -> None:
    rows = pa.table({"row": range(100, 200), "prompt": [f"ask {n}" for n in range(100)]})
    texts = ["x" * 3000] * 100
    table = pa.table({"row": rows["row"], "generated": texts, "references": [["a", "b"]] * 100})
    without_text = pa.table({"row": rows["row"], "generated": pa.nulls(100, pa.string())})
    lines = samples(rows, "prompt", {"lora": table, "other": without_text})
    assert [line["row"] for line in lines] == [100 + 11 * n for n in range(10)]
    assert lines[0]["reference"] == "a\nb"
    assert lines[0]["texts"] == {"lora": "x" * MOST_CHARACTERS + "…"}
    assert samples(rows, "prompt", {"other": without_text}) == []
    assert json.loads(json.dumps(lines)) == lines
