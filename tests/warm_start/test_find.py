"""Which earlier sweeps are used, and what is said where they are not there. The tracking server is made up."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from orchestrator.common.errors import InputError, SweepError
from orchestrator.search.plans import StudyPlan
from orchestrator.tracking.journal import Journal
from orchestrator.warm_start import EVENT, Prior, TaskMetadata, prior_of
from orchestrator.warm_start.earlier import Earlier
from orchestrator.warm_start.find import MOST_SWEEPS, Wanted
from orchestrator.warm_start.journals import of_events
from orchestrator.warm_start.runs import RecordedSweeps
from search_spaces._base import SearchSpace

from ..earlier_sweeps import sweep_events

SPACE = SearchSpace(
    distributions={"learning_rate": FloatDistribution(1e-5, 1e-1, log=True), "rank": IntDistribution(1, 64)},
    default={"learning_rate": 1e-3, "rank": 8},
    sources={},
)
STUDIES = [StudyPlan(study=f"tweets/{m}", space=SPACE, higher_is_better=True) for m in ("lora", "linear_probe")]
(TWEETS,) = (one.task_metadata for one in of_events(sweep_events("like this", {})))
GOOD = {"learning_rate": 0.0123456789012345, "rank": 32}
TRIALS = {
    "lora": [(GOOD, "complete", 0.8), ({**GOOD, "rank": 2}, "pruned", 0.9), ({**GOOD, "rank": 4}, "failed", None)],
    "ia3": [({"learning_rate": 0.1}, "complete", 0.7)],
}
Events = list[dict[str, Any]]
Find = Callable[..., Prior]


class Server:
    """Stands for a tracking server."""

    def __init__(self) -> None:
        self.sweeps: list[Earlier] = []
        self.away = False

    def record(self, events: Events) -> None:
        self.sweeps += of_events(events)

    def recent(self, recorded: RecordedSweeps) -> list[Earlier]:
        if self.away:
            raise SweepError("MLflow at http://here: is away")
        return self.sweeps

    def named(self, recorded: RecordedSweeps, name: str) -> list[Earlier]:
        return [one for one in self.recent(recorded) if one.sweep == name]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(RecordedSweeps, "recent", lambda recorded: made.recent(recorded))
    monkeypatch.setattr(RecordedSweeps, "named", lambda recorded, name: made.named(recorded, name))
    return made


@pytest.fixture
def find(tmp_path: Path) -> Find:
    def find(wanted: Wanted, task_metadata: TaskMetadata = TWEETS) -> Prior:
        return prior_of(wanted, STUDIES, {"tweets": task_metadata}, tracking_uri="http://here", storage=str(tmp_path))

    return find


def write_journal(folder: Path, events: Events) -> Path:
    place = folder / str(events[0]["sweep"])
    journal = Journal(place / "journal.jsonl")
    for event in events:
        journal.append(**event)
    return place


def test_the_best_configuration_of_a_similar_sweep_is_taken_with_where_it_is_from(server: Server, find: Find) -> None:
    server.record(sweep_events("past", TRIALS))
    prior = find("auto")
    assert prior.of("tweets/lora") == (GOOD,)
    assert prior.of("tweets/linear_probe") == ()
    (origin,) = prior.origins
    assert (origin.task, origin.sweep, origin.earlier_task) == ("tweets", "past", "mail")
    assert origin.similarity == pytest.approx(1.0)
    assert (prior.taken(origin), prior.notes) == ({"lora": 1}, ())
    (transferred,) = prior.configurations["tweets/lora"]
    assert (transferred.sweep, transferred.trial, transferred.rank) == ("past", "mail/lora/0", 3 / 4)


def test_a_sweep_in_the_storage_is_found_by_name_or_folder_and_no_server_is_asked(
    server: Server, find: Find, tmp_path: Path
) -> None:
    server.away = True
    folder = write_journal(tmp_path, sweep_events("past", TRIALS))
    assert find(["past"]).of("tweets/lora") == (GOOD,)
    assert find([str(folder)]).of("tweets/lora") == (GOOD,)


def test_a_sweep_of_another_machine_is_found_by_name(server: Server, find: Find) -> None:
    server.record(sweep_events("past", TRIALS))
    server.record(sweep_events("other", {"lora": [({**GOOD, "rank": 3}, "complete", 0.9)]}))
    assert find(["past"]).of("tweets/lora") == (GOOD,)


def test_a_sweep_that_is_nowhere_is_one_line_that_says_what_there_is(
    server: Server, find: Find, tmp_path: Path
) -> None:
    write_journal(tmp_path, sweep_events("mail-20261101", {}))
    server.record(sweep_events("past", {}))
    with pytest.raises(InputError) as caught:
        find(["mail-20261101", "mial-20261101", "it's"])
    typo, other = caught.value.lines()
    assert typo == (
        f"search.warm_start[1]: mial-20261101: there is no sweep of that name in {tmp_path}; "
        "did you mean mail-20261101?; nor at http://here; there is: past"
    )
    assert other.startswith("search.warm_start[2]: it's: there is no sweep of that name in ")


def test_a_dissimilar_sweep_is_used_if_it_is_named_and_not_of_itself(server: Server, find: Find) -> None:
    decoder = {"type": "causal-lm", "metric": "perplexity", "labels": 0}
    server.record(sweep_events("past", TRIALS, model="large", digest="c", **decoder))
    unasked = find("auto")
    assert (unasked.of("tweets/lora"), unasked.origins) == ((), ())
    assert unasked.notes == ("no earlier sweep is used for tweets: none has this backbone or this type of task",)
    assert find(["past"]).of("tweets/lora") == (GOOD,)
    far = replace(TWEETS, type="causal-lm", metric="exact_match", architecture="", parameters=0, characters=800)
    assert find("auto", far).notes == ("no earlier sweep is used for tweets: past/mail is 0.34 similar, less than 0.5",)


def test_the_most_similar_sweeps_are_used_and_no_more_than_a_few(server: Server, find: Find) -> None:
    for number in reversed(range(MOST_SWEEPS + 2)):
        server.record(sweep_events(f"past-{number}", TRIALS, rows=6000 * (number + 1)))
    assert [origin.sweep for origin in find("auto").origins] == [f"past-{number}" for number in range(MOST_SWEEPS)]


def test_a_server_that_is_away_costs_the_warm_start_and_nothing_else(server: Server, find: Find) -> None:
    assert find("auto").notes == ("no earlier sweep is used for tweets: there is none",)
    server.away = True
    assert find("auto").notes == ("no earlier sweeps were looked for: MLflow at http://here: is away",)
    with pytest.raises(SweepError, match="is away"):  # without it nobody knows whether there is such a sweep
        find(["past"])


def test_a_journal_without_a_beginning_gives_nothing(find: Find, tmp_path: Path) -> None:
    write_journal(tmp_path, [{"event": "close", "sweep": "past", "reason": "failed"}])
    assert find(["past"]).notes == ("no earlier sweep is used for tweets: there is none",)


def test_a_resumed_sweep_reads_from_its_journal_what_it_had_taken(server: Server, find: Find, tmp_path: Path) -> None:
    server.record(sweep_events("past", TRIALS))
    prior = find("auto")
    file = write_journal(tmp_path, sweep_events("now", {})) / "journal.jsonl"
    assert Prior.of_events(Journal.read(file)) is None
    Journal(file).append(EVENT, **prior.fields())
    assert Prior.of_events(Journal.read(file)) == prior
    assert json.loads(json.dumps(prior.fields())) == prior.fields()
