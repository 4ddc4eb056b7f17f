"""The story of one sweep, from a plan to a registered champion.

It may be told in several lives: a driver that was stopped or died is followed by another, which goes on from what the
journal tells of the earlier ones (:mod:`orchestrator.sweep.saved_state`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.common.background import run_watched
from orchestrator.common.errors import InputError, SweepError
from orchestrator.common.output_capture import output_to
from orchestrator.common.storage import Storage
from orchestrator.lanes.cluster import Cluster
from orchestrator.planning.plan import SweepPlan
from orchestrator.sweep.manifest import changed_versions, departures, describe, driver
from orchestrator.sweep.saved_state import SavedSweep
from orchestrator.sweep.status import Outcome, Snapshot, Watch
from orchestrator.tracking.sweeps import local_folder, lock_folder, make_folder, new_sweep_name
from orchestrator.warm_start import EVENT as WARM_START

if TYPE_CHECKING:
    from orchestrator.final.retrain import TaskOutcome
    from orchestrator.search.core import Search

__all__ = ["Outcome", "Snapshot", "Watch", "local_folder", "new_sweep_name", "resume_sweep", "run_sweep"]

T = TypeVar("T")
log = logging.getLogger(__name__)
EXPORT_TIMEOUT_S = 120.0


class Stopped(Exception):  # not an error: the user asked for it
    """The sweep was asked to stop."""


def run_sweep(plan: SweepPlan, *, sweep: str, cluster: Cluster, watch: Watch, stop: threading.Event) -> Outcome:
    """Run a sweep to its end.

    Args:
        plan: what to do.
        sweep: its name, from :func:`new_sweep_name`.
        cluster: that was entered; it need not be connected yet.
        watch: called twice a second with how it stands.
        stop: set it to end early; what runs is stopped within a step, and can be resumed.

    Raises:
        InputError: if the checkpoint cannot be used as the plan wants, or there is no cluster at the address.
        SweepError: if no trial came to a result, or no lane can start.
    """
    folder = local_folder(Storage.at(plan.config.storage), sweep)
    make_folder(folder)
    with lock_folder(folder):
        return resume_sweep(plan, SavedSweep(sweep, folder), cluster=cluster, watch=watch, stop=stop)


def resume_sweep(
    plan: SweepPlan, saved: SavedSweep, *, cluster: Cluster, watch: Watch, stop: threading.Event
) -> Outcome:
    """Go on with a sweep whose folder is held. Other arguments as for :func:`run_sweep`.

    Args:
        plan: what to do; the same as in the sweep's earlier lives.
        saved: those.
        cluster: as above.
        watch: as above.
        stop: as above.

    Raises:
        InputError: as above, and if the backbone is not the one of the earlier lives.
        SweepError: as above.
    """
    with output_to(saved.folder / "sweep.log"):
        try:
            cluster.connected()
            return _Sweep(plan, saved, watch, stop, in_cluster=bool(cluster.address)).run()
        finally:
            cluster.leave()  # what its processes still print belongs into the log


class _Sweep:
    def __init__(
        self, plan: SweepPlan, saved: SavedSweep, watch: Watch, stop: threading.Event, *, in_cluster: bool
    ) -> None:
        from orchestrator.tracking.journal import Journal
        from orchestrator.tracking.mlflow_exporter import MlflowExporter
        from orchestrator.tracking.sweeps import JOURNAL

        self.plan, self.config, self.saved = plan, plan.config, saved
        self.sweep, self.folder, self.storage = saved.sweep, saved.folder, Storage.at(plan.config.storage)
        self._watch, self._stop, self._in_cluster = watch, stop, in_cluster
        self._clock, self._began = time.monotonic(), time.time()
        self._phase = "starting"
        self.journal = Journal(self.folder / JOURNAL)
        self.exporter = MlflowExporter(
            self.journal.path,
            tracking_uri=self.config.mlflow.tracking_uri,
            experiment=self.config.mlflow.experiment or self.config.name,
        )
        self._exporter_closed = False
        self._told = not saved.description
        self.search: Search | None = None

    def run(self) -> Outcome:
        """Lanes start while tokens and backbone are prepared; then search, final, registration."""
        outcomes: dict[str, TaskOutcome] = {}
        with ExitStack() as stack:
            stack.callback(self._report)
            stack.callback(self._close_exporter)
            self.exporter.start()
            try:
                with self._lanes(), self._open_trials_kept():
                    self._prepare()
                    reason = self._search()
                    outcomes = self._final()
                    self._phase = "registering"
                    self._while_watching(lambda: self._register(outcomes))
            except Stopped:
                reason = "interrupted"
            except BaseException as error:
                self._close("failed", str(error))
                raise
            self._close(reason)
            self._close_exporter()
        return Outcome(
            sweep=self.sweep,
            folder=self.folder,
            reason=reason,
            tasks=outcomes,
            trials=self.search.trials() if self.search else (),
            wall_seconds=self._elapsed,
            lanes=self.pool.lanes,
            unexported=self.exporter.pending + self.exporter.refused,
        )

    @contextmanager
    def _lanes(self) -> Iterator[None]:
        """All lanes, from their start to the end of the last."""
        from orchestrator.engine.pack_sizes import default_pack_size
        from orchestrator.lanes.pool import lane_pool

        config, defaults = self.config, (study.space.default for study in self.plan.studies)
        offered = default_pack_size(defaults, config.training.max_length, config.budget.trials)
        with lane_pool(config.lanes, self._own_folder, growing=self._in_cluster, default_pack=offered) as self.pool:
            try:
                yield
            finally:
                self._phase = "sending the lanes home"
                self._show()

    @contextmanager
    def _open_trials_kept(self) -> Iterator[None]:
        """Whatever stops the sweep: what its trials hear of the lanes that go home is no end of theirs."""
        try:
            yield
        except BaseException:
            self._let_go()
            raise

    def _prepare(self) -> None:
        """Tokens and backbone; then it is told what begins, or what goes on."""
        from orchestrator.sweep.prepare import prepare

        self._phase = "tokenizing and quantizing"
        setup, self.backbones = self._while_watching(
            lambda: prepare(self.plan, self.storage, self.sweep, self.pool.pack, remotely=self._in_cluster)
        )
        description = describe(self.plan, self.sweep, self.backbones)
        if self.saved.description:
            self._require_same(description)
            changed = changed_versions(self.saved.description["versions"])
            self.journal.append("resume", sweep=self.sweep, changed=changed, **driver(self._began))
            self._told = True
        else:
            self.journal.append("sweep", **description, **driver(self._began))
            if self.plan.prior:
                self.journal.append(WARM_START, **self.plan.prior.fields())
        self.pool.open(setup)

    def _require_same(self, description: dict[str, Any]) -> None:
        """Trials on another backbone cannot be compared with those that are there."""
        then, now = self.saved.description["backbone"], description["backbone"]
        if problems := departures({"backbone": then["checksum"]}, {"backbone": now["checksum"]}):
            raise InputError(self.sweep, problems)

    def _search(self) -> str:
        """Trials, until the budget is spent or nothing is left to try; returns which."""
        from orchestrator.sweep.search_phase import make_search, tune_search

        search = self.search = make_search(
            self.plan, self.saved, self.journal, lanes=self.pool.count, elapsed=self._elapsed
        )
        reason = self.saved.search_ended
        if reason is None:
            self._phase = "searching"
            if not search.exhausted:
                self._while_watching(lambda: tune_search(search, self.plan, self.pool, self._own_folder))
            reason = "budget" if search.closed or search.wall_time_over else "finished"
        search.close("budget")
        if self.saved.search_ended is None:
            self.journal.append("searched", reason=reason)
        return reason

    def _final(self) -> dict[str, TaskOutcome]:
        """Who is in contention is trained again, and scored on the test split; what was done before is not repeated."""
        from orchestrator.final.replay import CachedJobRunner, DedupingJournal
        from orchestrator.final.retrain import play_final

        assert self.search is not None
        self._phase = "retraining who is in contention, and scoring on the test split"
        records, own = self.search.trials(), self.storage.sub(self.sweep)
        run = CachedJobRunner(self.pool.each, self.saved.answers, own, self.journal)
        journal = DedupingJournal(self.journal, self.saved.events)
        return self._while_watching(lambda: play_final(self.plan, records, run, own, journal))

    def _register(self, outcomes: dict[str, TaskOutcome]) -> None:
        """Every task's recommendation and what is tied with it; a task that cannot be is no reason to lose others."""
        from orchestrator.final.register import Registrar
        from orchestrator.tracking.connection import masked_first_line
        from orchestrator.tracking.registry import Registered

        for name, outcome in outcomes.items():
            if event := self.saved.registered.get(name):
                outcome.registered = Registered(event["name"], event["version"], event["aliases"][0])
                continue
            try:
                made = Registrar(
                    plan=self.plan,
                    sweep=self.sweep,
                    outcome=outcome,
                    backbone=self.backbones[name],
                    lane=self.pool.first(),
                    storage=self.storage,
                    run_id=self.exporter.parent_run_id(name),
                ).register_all()
            except Exception as error:  # what was found is told all the same
                log.exception("task %s was not registered", name)
                outcome.unregistered = masked_first_line(error)
                continue
            outcome.registered, *_ = made.values()
            versions = {method: {"version": one.version, "alias": one.alias} for method, one in made.items()}
            first = outcome.registered
            self.journal.append(
                "registered", task=name, name=first.name, version=first.version, aliases=[first.alias], methods=versions
            )

    def _while_watching(self, work: Callable[[], T]) -> T:
        """Do the work in a thread, show how it goes, and hear the wish to stop.

        Raises:
            Stopped: if that was asked.
            SweepError: if all lanes are gone for good.
        """
        return run_watched(work, self._look)

    def _look(self) -> None:
        self._show()
        if fault := self.pool.fault():
            self._let_go()
            raise SweepError(f"{fault}; see {self.folder / 'sweep.log'}")
        if self._stop.is_set():
            self._phase = "stopping: the lanes finish their step"
            self._show()
            self._let_go()
            raise Stopped
        if self._phase == "searching" and self.search and self.search.closed:
            self.pool.cancel()

    def _let_go(self) -> None:
        """Nothing starts any more, and what runs stops within a step; open trials stay open, for the next life."""
        if self.search:
            self.search.close("interrupted" if self._stop.is_set() else "failed")
        self.pool.cancel()

    def _close(self, reason: str, message: str = "") -> None:
        """The journal's last event, unless the sweep was resumed in vain: then nothing has happened."""
        if self._told:
            self.journal.append("close", reason=reason, message=message)

    def _close_exporter(self) -> None:
        """Once, however the sweep ends."""
        if not self._exporter_closed:
            self._exporter_closed = True
            self.exporter.close(EXPORT_TIMEOUT_S)

    def _report(self) -> None:
        """However the sweep ended; MLflow gets it where it has taken everything else."""
        from orchestrator.report.ending import report_at_end

        report_at_end(self.folder, tracking_uri=None if self.exporter.pending else self.config.mlflow.tracking_uri)

    def _show(self) -> None:
        self._watch(
            Snapshot(
                phase=self._phase,
                elapsed=self._elapsed,
                trials=self.search.trials() if self.search else (),
                lanes=self.pool.look(),
                expected_lanes=self.pool.count,
                lane_seconds=self.search.lane_seconds if self.search else 0.0,
            )
        )

    @property
    def _elapsed(self) -> float:
        """Seconds of all lives together."""
        return self.saved.wall_seconds + time.monotonic() - self._clock

    @property
    def _own_folder(self) -> str:
        """What Ray Train and Ray Tune keep of this life; nothing in it is needed again."""
        return self.storage.sub(f"{self.sweep}/ray/{self.saved.attempts}").root
