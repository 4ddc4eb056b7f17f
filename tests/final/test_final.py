"""The final: which jobs are run, and which results follow from their answers."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from orchestrator.common.errors import SweepError
from orchestrator.common.storage import Storage
from orchestrator.common.trial_types import Answer, Job, TrialRecord, checkpoint_path, trial_seed
from orchestrator.final.results import TEST_FILE, TaskOutcome
from orchestrator.final.run import run_final
from orchestrator.journal.events import Journal
from orchestrator.planning.plan import SweepPlan
from orchestrator.selection.screening import ERROR
from orchestrator.selection.selection import Selection
from orchestrator.tasks.causal_lm import CausalLM
from orchestrator.tasks.classification import Classification

from ..small_plan import CAUSAL, CLASSIFICATION, small_plan, trial

SURE: dict[str, Any] = {"measurements": {ERROR: 0.01}}  # what the small plan's two validation rows could never be
LORA = (
    trial("mail/lora/0", "pruned", {20: 0.5}),
    trial("mail/lora/1", "complete", {20: 0.6, 40: 0.8}, params={"rank": 4}, **SURE),
    trial("mail/lora/2", "complete", {20: 0.6, 40: 0.7}, **SURE),
)
IA3 = (trial("mail/ia3/0", "complete", {20: 0.4, 40: 0.6}, **SURE), trial("mail/ia3/1", "pruned", {20: 0.9}))
PREFIX = (trial("mail/prefix/0", "pruned", {20: 0.3}), trial("mail/prefix/1", "pruned", {20: 0.2}))
METHODS = ["lora", "ia3", "prefix"]
KINDS = ((Classification(), "macro_f1"), (Classification(), "accuracy"), (CausalLM(), "perplexity"))
AS_THEY_ARE = {"seeds": 1}


class Lanes:
    """Answers jobs as lanes do: a checkpoint with predictions, and metrics.

    Args:
        folder: the sweep's.
        failing: names of jobs that fail: a trial's, or ``trial/seed-0`` of a retraining.
        right: for each method, how many of the eight rows it gets right; another for each seed.
    """

    def __init__(self, folder: Path, failing: tuple[str, ...] = (), right: dict[str, tuple[int, ...]] | None = None):
        self.folder, self.failing, self.jobs = folder, failing, list[Job]()
        self.right = right or {"lora": (8,), "ia3": (0,), "prefix": (0,)}

    def __call__(self, jobs: list[Job]) -> list[Answer]:
        self.jobs += jobs
        return [self._answer(job) for job in jobs]

    def _answer(self, job: Job) -> Answer:
        if job.name in self.failing:
            return Answer(status="failed", reason=f"{job.name} is out of memory")
        checkpoint = f"{checkpoint_path(job.trial, job.stop, job.retraining)}-test"
        (self.folder / checkpoint).mkdir(parents=True)
        seed = job.retraining or 0
        counts = self.right[job.trial.method]
        count = counts[seed % len(counts)]
        columns = {"row": range(8), "label": [0] * 8, "nll": [9.0] * 8, "tokens": [3] * 8}
        answers = [[0.9, 0.1]] * count + [[0.1, 0.9]] * (8 - count)
        table = pa.table({**columns, "probabilities": pa.array(answers, pa.list_(pa.float64(), 2))})
        parquet.write_table(table, self.folder / checkpoint / TEST_FILE)
        metrics = {name: kind.score(name, table) for kind, name in KINDS}
        validation = {} if job.retraining is None else {name: 0.5 + 0.01 * abs(seed - 1) for name in metrics}
        measurements = {"seconds": 10.0 * job.trial.number + seed, "adapter_bytes": 1e6, "trainable_parameters": 100.0}
        return Answer(
            status="done",
            step=job.stop,
            metrics=metrics,
            validation=validation,
            checkpoint=checkpoint,
            measurements=measurements,
        )


Play = Callable[..., dict[str, TaskOutcome]]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    def run(records: tuple[TrialRecord, ...], lanes: Lanes | None = None, plan: SweepPlan | None = None) -> Any:
        journal = Journal(tmp_path / "journal.jsonl")
        return run_final(
            plan or small_plan(METHODS), records, lanes or Lanes(tmp_path), Storage(str(tmp_path)), journal
        )

    return run


def roles(outcome: TaskOutcome) -> list[tuple[str, str]]:
    return [(result.trial, role) for role, result in outcome.results()]


def test_final_scores_champion_other_methods_and_champion_untuned(play: Play) -> None:
    outcome = play((*IA3, *PREFIX, *LORA))["mail"]
    assert roles(outcome) == [
        ("mail/lora/1", "champion"),
        ("mail/ia3/0", "best"),
        ("mail/prefix/0", "best"),
        ("mail/lora/0", "default"),
    ]
    assert outcome.champion is outcome.results()[0][1]
    assert [outcome.trials_of(method) for method in METHODS] == [3, 2, 2]


@pytest.mark.parametrize(
    "default",
    [
        None,
        trial("mail/lora/0", "failed", {}),
        trial("mail/lora/0", "failed", {20: math.nan}),  # it diverged
        trial("mail/lora/0", "complete", {20: 0.5, 40: 0.9}),  # it is the champion itself
    ],
)
def test_final_leaves_out_a_default_without_new_information(play: Play, default: TrialRecord | None) -> None:
    outcome = play((*LORA[1:], *((default,) if default else ()), *IA3))["mail"]
    assert [role for _, role in roles(outcome)] == ["champion", "best"]


def test_final_retrains_finalists_and_completes_the_eliminated(play: Play, tmp_path: Path) -> None:
    lanes = Lanes(tmp_path)
    play((*LORA, *PREFIX), lanes)
    jobs = {job.name: (job.start, job.stop, job.total, job.checkpoint) for job in lanes.jobs}
    assert jobs == {
        **{f"mail/lora/1/seed-{number}": (0, 40, 40, None) for number in range(3)},
        "mail/prefix/0": (20, 40, 40, "checkpoints/mail/prefix/0/step-20"),
        "mail/lora/0": (20, 40, 40, "checkpoints/mail/lora/0/step-20"),
    }
    again = [job for job in lanes.jobs if job.retraining is not None]
    assert [job.params for job in again] == [{"rank": 4}] * 3
    seeds = [job.seed for job in lanes.jobs]
    assert len({*seeds, trial_seed(3, LORA[1].key)}) == len(seeds) + 1, "each its own, and none the trial's"
    assert [job.seed for job in again] == [trial_seed(3, LORA[1].key, number) for number in range(3)]
    assert {job.split for job in lanes.jobs} == {"test"}
    assert {job.partial_state_every for job in lanes.jobs} == {10}, "a quarter is lost at most"
    assert len({job.id for job in lanes.jobs}) == len(lanes.jobs), "nobody looks at the test split twice"


def test_final_with_one_seed_scores_trials_without_retraining(play: Play, tmp_path: Path) -> None:
    lanes = Lanes(tmp_path)
    outcome = play((*LORA, *IA3), lanes, small_plan(METHODS, selection=AS_THEY_ARE))["mail"]
    assert {job.name for job in lanes.jobs} == {"mail/lora/1", "mail/ia3/0", "mail/lora/0"}
    assert len(outcome.champion.seed_scores) == 1
    assert outcome.champion.interval == outcome.champion.seeds[0].interval, "over rows alone"


def test_mean_score_is_over_seeds_with_an_interval(play: Play, tmp_path: Path) -> None:
    lanes = Lanes(tmp_path, right={"lora": (8, 6, 7), "ia3": (2,), "prefix": (0,)})
    plan = small_plan(METHODS, {"mail": CLASSIFICATION | {"metric": "accuracy"}})
    champion = play((*LORA, *IA3), lanes, plan)["mail"].champion
    assert champion.seed_scores == (1.0, 0.75, 0.875)
    assert champion.mean_score == 0.875
    assert champion.interval[0] < 0.75
    assert champion.interval[1] == 1.0, "no accuracy is above"
    assert champion.measurements["seconds"] == 11.0, "the median"
    assert champion.measurements["seed_spread"] == pytest.approx(0.125)


def test_checkpoint_score_is_of_the_best_seed_on_validation(play: Play, tmp_path: Path) -> None:
    lanes = Lanes(tmp_path, right={"lora": (6, 8, 7), "ia3": (2,), "prefix": (0,)})
    champion = play((*LORA, *IA3), lanes)["mail"].champion
    assert [seed.validation for seed in champion.seeds] == [0.51, 0.5, 0.51]
    first = champion.seeds[0]
    assert first.checkpoint_score < champion.mean_score, "the second is better on test, which must not decide"
    assert (champion.checkpoint, champion.checkpoint_score) == (first, first.checkpoint_score)
    assert first.checkpoint == "checkpoints/mail/lora/1/seed-0/step-40-test"


def test_final_journal_has_every_test_then_the_selection(play: Play, tmp_path: Path) -> None:
    outcome = play((*LORA, *IA3))["mail"]
    events = Journal.read(tmp_path / "journal.jsonl")
    assert [(e["event"], e.get("trial"), e.get("role"), e.get("seed")) for e in events[:-1]] == [
        ("test", "mail/lora/1", "seed", 1),
        ("test", "mail/lora/1", "seed", 2),
        ("test", "mail/lora/1", "champion", 0),
        ("test", "mail/ia3/0", "best", None),
        ("test", "mail/lora/0", "default", None),
    ]
    assert events[-1]["event"] == "selection"
    assert Selection.from_dict(events[-1]) == outcome.selection
    assert outcome.selection.recommended == "lora"
    assert [result.method for result in outcome.selection.others] == ["ia3"]


def test_final_ties_methods_without_a_significant_difference(play: Play, tmp_path: Path) -> None:
    lanes = Lanes(tmp_path, right={"lora": (8, 6, 7), "ia3": (7, 6, 7), "prefix": (0,)})
    close = (trial("mail/ia3/0", values={40: 0.79}, **SURE), trial("mail/prefix/0", values={40: 0.79}, **SURE))
    plan = small_plan(METHODS, {"mail": CLASSIFICATION | {"metric": "accuracy"}})
    outcome = play((*LORA, *close), lanes, plan)["mail"]
    assert outcome.selection.tied == ("lora", "ia3")
    assert [result.method for result in outcome.tied] == ["lora", "ia3"]
    assert outcome.selection.result("prefix").gap


def test_final_applies_the_preference_to_tied_methods(play: Play, tmp_path: Path) -> None:
    class Sizes(Lanes):
        def _answer(self, job: Job) -> Answer:
            answer = super()._answer(job)
            answer.measurements["adapter_bytes"] = {"lora": 2.4e6, "ia3": 0.3e6}[job.trial.method]
            return answer

    lanes = Sizes(tmp_path, right={"lora": (8, 6, 7), "ia3": (7, 6, 7)})
    plan = small_plan(["lora", "ia3"], selection={"prefer": "size"})
    outcome = play((*LORA, trial("mail/ia3/1", values={40: 0.79}, **SURE)), lanes, plan)["mail"]
    assert roles(outcome)[:2] == [("mail/ia3/1", "champion"), ("mail/lora/1", "best")]
    assert "300 kB, lora 2.4 MB" in outcome.selection.reason


def test_final_scores_the_default_of_a_late_winner_afterwards(play: Play, tmp_path: Path) -> None:
    lanes = Lanes(tmp_path, right={"lora": (6,), "ia3": (8,)})
    leading = (*LORA, trial("mail/ia3/0", values={40: 0.2}), trial("mail/ia3/1", values={40: 0.79}, **SURE))
    outcome = play(leading, lanes, small_plan(["lora", "ia3"]))["mail"]
    assert roles(outcome) == [("mail/ia3/1", "champion"), ("mail/lora/1", "best"), ("mail/ia3/0", "default")]
    assert lanes.jobs[-1].name == "mail/ia3/0"


def test_final_tolerates_a_failed_seed(play: Play, tmp_path: Path) -> None:
    outcome = play((*LORA, *IA3), Lanes(tmp_path, failing=("mail/lora/1/seed-1",)))["mail"]
    assert [seed.seed for seed in outcome.champion.seeds] == [0, 2]
    assert "1 of 3 retrainings failed: mail/lora/1/seed-1 is out of memory" in outcome.selection.winner.note


def test_final_with_one_seed_left_scores_the_trial_itself(play: Play, tmp_path: Path) -> None:
    failing = ("mail/lora/1/seed-1", "mail/lora/1/seed-0")
    outcome = play((*LORA, *IA3), Lanes(tmp_path, failing=failing))["mail"]
    assert [seed.seed for seed in outcome.champion.seeds] == [None]
    assert outcome.champion.seeds[0].checkpoint == "checkpoints/mail/lora/1/step-40-test"
    assert "2 of 3 retrainings failed" in outcome.selection.winner.note


def test_final_records_an_eliminated_method_that_fails(play: Play, tmp_path: Path) -> None:
    outcome = play((*LORA, *IA3), Lanes(tmp_path, failing=("mail/ia3/0", "mail/lora/0")))["mail"]
    assert roles(outcome) == [("mail/lora/1", "champion")]
    assert outcome.selection.failed == {"ia3": "mail/ia3/0 is out of memory"}


def test_final_fails_when_every_finalist_fails(play: Play, tmp_path: Path) -> None:
    failing = ("mail/lora/1", *(f"mail/lora/1/seed-{number}" for number in range(3)))
    with pytest.raises(SweepError, match="the champion of task mail failed in the final: mail/lora/1 is out of memory"):
        play((*LORA, *IA3), Lanes(tmp_path, failing=failing))
    assert not Journal.read(tmp_path / "journal.jsonl")


def test_final_scores_a_method_without_training_once(play: Play, tmp_path: Path) -> None:
    lanes = Lanes(tmp_path, right={"lora": (8, 7, 8), "hard_prompt": (6,)})
    records = (*LORA, trial("mail/hard_prompt/0", values={40: 0.79}, **SURE))
    outcome = play(records, lanes, small_plan(["lora", "hard_prompt"]))["mail"]
    names = [job.name for job in lanes.jobs if job.trial.method == "hard_prompt"]
    assert names == ["mail/hard_prompt/0"]
    assert outcome.selection.evidence["seeds"] == [3, 0]


def test_final_of_a_task_without_a_result_names_the_reason(play: Play, tmp_path: Path) -> None:
    failed = (
        trial("talk/lora/0", "failed", {}, reason=""),
        trial("talk/lora/1", "failed", {}, reason="the loss is not finite"),
        trial("talk/lora/2", "failed", {}, reason="another"),
    )
    lanes = Lanes(tmp_path)
    plan = small_plan(["lora"], {"mail": CLASSIFICATION, "talk": CAUSAL})
    with pytest.raises(SweepError) as raised:
        play((*LORA, *failed), lanes, plan)
    assert str(raised.value) == "no trial of task talk came to a result; talk/lora/1: the loss is not finite"
    assert not lanes.jobs


def test_final_without_trials_is_an_error(play: Play) -> None:
    with pytest.raises(SweepError, match=r"came to a result$"):
        play(())


def test_final_of_two_tasks_minimizes_perplexity_and_chooses_overall(play: Play, tmp_path: Path) -> None:
    plan = small_plan(["lora", "ia3"], {"mail": CLASSIFICATION, "talk": CAUSAL})
    talk = (trial("talk/lora/0", values={40: 9.0}), trial("talk/ia3/0", values={40: 5.0}))
    outcomes = play((*LORA, *IA3, *talk), plan=plan)
    assert {name: outcome.champion.trial for name, outcome in outcomes.items()} == {
        "mail": "mail/lora/1",
        "talk": "talk/ia3/0",
    }
    best = outcomes["talk"].champion
    assert best.mean_score == pytest.approx(math.exp(3))
    assert best.interval == pytest.approx((math.exp(3), math.exp(3)))
    assert outcomes["talk"].records == talk
    last = Journal.read(tmp_path / "journal.jsonl")[-1]
    assert (last["event"], last["recommended"], last["per_task"]) == (
        "selection_overall",
        "lora",
        {"mail": "lora", "talk": "ia3"},
    )


class Labels(Lanes):
    """Lanes whose rows have both labels, in turn; a method gets so many of them right, the first ones."""

    def _answer(self, job: Job) -> Answer:
        answer = super()._answer(job)
        assert answer.checkpoint
        file = self.folder / answer.checkpoint / TEST_FILE
        table = parquet.read_table(file)
        labels = np.arange(8) % 2
        values = np.abs(table["probabilities"].combine_chunks().flatten().to_numpy().reshape(8, 2) - labels[:, None])
        columns = {"label": pa.array(labels), "probabilities": pa.array(values.tolist(), pa.list_(pa.float64(), 2))}
        for name, column in columns.items():
            table = table.set_column(table.column_names.index(name), name, column)
        parquet.write_table(table, file)
        answer.metrics.update({name: kind.score(name, table) for name, kind in ((n, k) for k, n in KINDS[:2])})
        return answer


def test_final_holds_every_method_against_trivial_predictors(play: Play, tmp_path: Path) -> None:
    plan = small_plan(METHODS, {"mail": CLASSIFICATION | {"metric": "accuracy"}})
    selection = play((*LORA, *IA3), Labels(tmp_path, right={"lora": (8,), "ia3": (5,)}), plan)["mail"].selection
    assert [baseline.score for baseline in selection.baselines] == [0.5]
    assert selection.baseline
    assert selection.baseline.name == "always answering a"
    assert (selection.state, selection.no_better) == ("recommended", "")
    assert selection.winner.baseline_lead
    assert selection.winner.baseline_lead[0] == 0.5
    assert selection.winner.baseline_lead[1] == pytest.approx(0.5 - 1.96 * 0.5 / math.sqrt(8), abs=0.05), "paired"
    assert not selection.result("ia3").beats_baseline


def test_final_says_when_no_method_is_better_than_one_answer(play: Play) -> None:
    outcome = play((*LORA, *IA3))["mail"]
    winner = outcome.selection.winner
    assert (winner.collapsed_seeds, winner.collapse) == (3, "3 of 3 seeds gave every row the same answer")
    assert outcome.selection.state == "no_better_than_baseline"
    assert outcome.selection.no_better.startswith("no method was better than always answering a (macro-F1 0.500")


def test_final_gives_equal_constants_equal_intervals(play: Play, tmp_path: Path) -> None:
    counts = {"lora": (8, 6, 7), "ia3": (8,), "prefix": (8,)}
    close = trial("mail/ia3/0", values={40: 0.79}, **SURE)
    plan = small_plan(METHODS, {"mail": CLASSIFICATION | {"metric": "accuracy"}})
    selection = play((*LORA, close, *PREFIX), Lanes(tmp_path, right=counts), plan)["mail"].selection
    assert (selection.result("ia3").reason, len(selection.result("ia3").seed_scores)) == ("", 3)
    assert selection.result("prefix").reason
    assert selection.result("prefix").interval == selection.result("ia3").interval
    assert selection.evidence["seeds"] == [0, 3, 0], "constants say nothing of seeds"
    assert selection.evidence["freedom"] == 2


def test_final_tells_methods_cut_by_the_cap_from_eliminated_ones(play: Play, tmp_path: Path) -> None:
    equal = (trial("mail/ia3/0", values={40: 0.8}, **SURE), *PREFIX)
    lanes = Lanes(tmp_path, right={"lora": (6,), "ia3": (8,), "prefix": (1,)})
    plan = small_plan(METHODS, selection={"contenders": 1})
    selection = play((*LORA, *equal), lanes, plan)["mail"].selection
    assert selection.result("ia3").cut
    assert not selection.result("prefix").cut
    assert "lora had exactly the same score on validation" in selection.result("ia3").reason
    assert [selection.result(method).trials for method in METHODS] == [2, 1, 0]
    assert selection.reason == "lora is best on validation and alone was retrained: the cap on finalists cut ia3"


BITS = {"lora": 40.0, "ia3": 70.0, "prefix": 10.0, "full": 20.0}


class Talks(Lanes):
    """Rows whose bits are as many as a method's name says, or the backbone's before a trial's first step."""

    def _answer(self, job: Job) -> Answer:
        answer = super()._answer(job)
        if answer.status == "done":
            bits = (BITS[job.trial.method] if job.stop else 60.0) + np.arange(8)
            table = pa.table({"row": range(8), "nll": bits * math.log(2), "tokens": [3] * 8, "bytes": [10] * 8})
            parquet.write_table(table, self.folder / str(answer.checkpoint) / TEST_FILE)
            answer.metrics["bits_per_byte"] = CausalLM().score("bits_per_byte", table)
        return answer


def talks(method: str) -> tuple[TrialRecord, ...]:
    return tuple(trial(f"talk/{method}/{number}", values={40: 5.0 + number}, **SURE) for number in (0, 1))


def test_final_holds_language_models_against_the_untuned_backbone(play: Play, tmp_path: Path) -> None:
    plan = small_plan(METHODS, {"talk": {**CAUSAL, "metric": "bits_per_byte"}})
    lanes = Talks(tmp_path)
    selection = play((*talks("prefix"), *talks("ia3"), *talks("lora")), lanes, plan)["talk"].selection
    (job,) = [job for job in lanes.jobs if not job.stop]
    assert (job.id, job.checkpoint) == ("talk/ia3/0:0-0:test", None), (
        "a prefix changes the output before its first step"
    )
    assert selection.baseline
    assert selection.baseline.name == "the untuned backbone"
    assert selection.baseline.score == pytest.approx(6.35)
    assert (selection.result("lora").beats_baseline, selection.result("ia3").beats_baseline) == (True, False)


@pytest.mark.parametrize("methods", [("prefix",), ("full",), ("lora",)])
def test_final_without_the_untuned_backbone_has_no_such_baseline(
    play: Play, tmp_path: Path, methods: tuple[str, ...]
) -> None:
    """No method is the backbone at first, or scoring it fails."""
    plan = small_plan([*methods], {"talk": {**CAUSAL, "metric": "bits_per_byte"}})
    lanes = Talks(tmp_path, failing=("talk/lora/0",))
    lanes.right["full"] = (8,)
    records = tuple(record for method in methods for record in talks(method))
    selection = play(records, lanes, plan)["talk"].selection
    assert selection.baselines == ()
    assert bool([job for job in lanes.jobs if not job.stop]) == (methods == ("lora",))
