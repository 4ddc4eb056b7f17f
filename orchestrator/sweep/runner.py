"""Run one sweep from a plan to registered models: prepare, search, final, registration.

A sweep may take several attempts: when a driver was stopped or died, the next one continues from what the journal
records (:mod:`orchestrator.sweep.saved_state`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.common.background import run_watched
from orchestrator.common.errors import InputError, MachineryError, SweepError
from orchestrator.common.output_capture import output_to
from orchestrator.common.retry import Retry
from orchestrator.common.storage import Storage
from orchestrator.journal.folders import STOP, local_folder, lock_folder, make_folder, new_sweep_name
from orchestrator.lanes.cluster import Cluster
from orchestrator.planning.plan import SweepPlan
from orchestrator.sweep.followers import STORAGE_LIMIT_S, JournalFollowers
from orchestrator.sweep.manifest import changed_inputs, changed_versions, describe, driver
from orchestrator.sweep.registration import register_outcomes
from orchestrator.sweep.saved_state import SavedSweep
from orchestrator.sweep.status import Outcome, Phase, Snapshot, Watch
from orchestrator.warm_start import EVENT as WARM_START

if TYPE_CHECKING:
    from orchestrator.final.progress import FinalProgress
    from orchestrator.final.results import TaskOutcome
    from orchestrator.lanes.broker import LaneStatus
    from orchestrator.search.core import Search

__all__ = ["Outcome", "Snapshot", "Watch", "local_folder", "new_sweep_name", "resume_sweep", "run_sweep"]

T = TypeVar("T")
log = logging.getLogger(__name__)
NEXT_TRIALS = 20
"""Number of further trials of which the journal says which methods they would go to."""


class StopRequested(Exception):  # raised and caught in this module
    """Ends the current phase because the user stopped the sweep."""


def run_sweep(plan: SweepPlan, *, sweep: str, cluster: Cluster, watch: Watch, stop: threading.Event) -> Outcome:
    """Run a sweep to its end.

    Args:
        plan: plan of the sweep.
        sweep: the sweep's name, from :func:`new_sweep_name`.
        cluster: a cluster whose context is entered; it need not be connected yet.
        watch: function that receives the status twice a second.
        stop: event that stops the sweep when set: running trials stop after their current step, and can be resumed.

    Raises:
        InputError: if the checkpoint cannot be used as planned, or there is no cluster at the address.
        SweepError: if no trial has a result, or no lane can start.
    """
    folder = local_folder(Storage.at(plan.config.storage), sweep)
    make_folder(folder)
    with lock_folder(folder):
        return resume_sweep(plan, SavedSweep(sweep, folder), cluster=cluster, watch=watch, stop=stop)


def resume_sweep(
    plan: SweepPlan, saved: SavedSweep, *, cluster: Cluster, watch: Watch, stop: threading.Event
) -> Outcome:
    """Continue a sweep whose folder is locked.

    Args:
        plan: plan of the sweep, the same as in earlier attempts.
        saved: state that earlier attempts recorded; empty for a new sweep.
        cluster: as in :func:`run_sweep`.
        watch: as in :func:`run_sweep`.
        stop: as in :func:`run_sweep`.

    Raises:
        InputError: as in :func:`run_sweep`, and if the backbone is not that of earlier attempts.
        SweepError: as in :func:`run_sweep`.
    """
    with output_to(saved.folder / "sweep.log"):
        try:
            cluster.wait_until_connected()
            return _Sweep(plan, saved, watch, stop, cluster).run()
        finally:
            cluster.disconnect()  # inside output_to: its processes print until they end


class _Sweep:
    """One attempt at a sweep."""

    def __init__(
        self, plan: SweepPlan, saved: SavedSweep, watch: Watch, stop: threading.Event, cluster: Cluster
    ) -> None:
        from orchestrator.journal.events import Journal
        from orchestrator.journal.folders import JOURNAL

        self.plan, self.config, self.saved = plan, plan.config, saved
        self.sweep, self.folder = saved.sweep, saved.folder
        self.storage = Storage.at(plan.config.storage, Retry(STORAGE_LIMIT_S))
        self._watch, self._stop = watch, stop
        self._cluster, self._in_cluster = cluster, bool(cluster.address)
        self._clock, self._began = time.monotonic(), time.time()
        self._phase = Phase.PREPARING
        self.journal = Journal(self.folder / JOURNAL, on_durable=lambda: self.followers.wake())
        self.followers = JournalFollowers(self.journal, self.config, Storage.at(plan.config.storage).sub(self.sweep))
        # A resumed sweep that is refused before its "resume" event leaves the journal as it was.
        self._close_is_due = not saved.description
        self.search: Search | None = None
        self._drained_nodes, self._moved_jobs = 0, 0
        self._final: FinalProgress | None = None
        self._lane_pids: dict[int, int] = {}
        self._waiting = ""

    def run(self) -> Outcome:
        """Run all phases. Lanes start while the driver tokenizes and quantizes."""
        outcomes: dict[str, TaskOutcome] = {}
        with self.followers.running():
            try:
                with self._lanes(), self._trials_left_open_on_error():
                    self._prepare()
                    reason = self._search()
                    outcomes = self._run_final()
                    self._phase = Phase.REGISTERING
                    self._run_watched(lambda: self._register_while_told(outcomes))
            except StopRequested:
                reason = "interrupted"
                for outcome in outcomes.values():
                    if outcome.registered is None:
                        outcome.unregistered = "the sweep was stopped before that"
            except BaseException as error:
                if self.journal.error and error is not self.journal.error:
                    raise self.journal.error from error  # Tune has wrapped it, or something failed by it
                self._write_close("failed", str(error))
                raise
            self._write_close(reason)
            self.followers.close_exporter()
        exporter = self.followers.exporter
        return Outcome(
            sweep=self.sweep,
            folder=self.folder,
            reason=reason,
            tasks=outcomes,
            trials=self.search.trials() if self.search else (),
            wall_seconds=self._elapsed,
            lanes=self.pool.all_lanes,
            unexported=exporter.pending + exporter.refused,
            experiment=exporter.experiment_id,
            next_trials=self.search.next_trials(NEXT_TRIALS) if self.search and outcomes else {},
        )

    @contextmanager
    def _lanes(self) -> Iterator[None]:
        """Start the lanes; at the end, shut them down."""
        from orchestrator.engine.pack_sizes import default_pack_size
        from orchestrator.lanes.pool import lane_pool

        config, defaults = self.config, [study.space.default for study in self.plan.studies]
        slots = partial(default_pack_size, defaults, config.training.max_length, config.budget.trials)
        require_alive, growing = self._cluster.require_alive, self._in_cluster
        with lane_pool(
            config.lanes, self._ray_folder, growing=growing, default_pack=slots, require_alive=require_alive
        ) as self.pool:
            try:
                yield
            finally:
                self._phase = Phase.SHUTTING_DOWN
                self._show_status()

    @contextmanager
    def _trials_left_open_on_error(self) -> Iterator[None]:
        """Close the search before the lanes shut down, so that trials without a lane are not recorded as failed."""
        try:
            yield
        except BaseException:
            self._cancel_work()
            raise

    def _prepare(self) -> None:
        """Tokenize and quantize, write the ``sweep`` or ``resume`` event, and give lanes their setup."""
        from orchestrator.sweep.inputs import upload_inputs
        from orchestrator.sweep.prepare import prepare

        if self.followers.uploader:
            self._run_watched(lambda: upload_inputs(self.plan, self.storage.sub(self.sweep)))
        setup, self.backbones = self._run_watched(
            lambda: prepare(self.plan, self.storage, self.sweep, self.pool.pack, remotely=self._in_cluster)
        )
        description = describe(self.plan, self.sweep, self.backbones)
        if self.saved.description:
            self._require_same_backbone(description)
            changed = changed_versions(self.saved.description["versions"])
            self.journal.append("resume", sweep=self.sweep, changed=changed, **driver(self._began))
            self._close_is_due = True
            if self.saved.is_extended_now and (extension := self.saved.extension):
                self.journal.append("extend", trials=extension["trials"], limit=extension["limit"])
        else:
            self.journal.append("sweep", **description, **driver(self._began))
            if self.plan.prior:
                self.journal.append(WARM_START, **self.plan.prior.fields())
        self.pool.open(setup)

    def _require_same_backbone(self, description: dict[str, Any]) -> None:
        """Refuse a quantized backbone that differs from the recorded one: its trials could not be compared.

        The plan's identity covers the checkpoint and the settings; the checksum covers the quantized tensors.

        Raises:
            InputError: if a checksum differs.
        """
        recorded, current = self.saved.description["backbone"], description["backbone"]
        if problems := changed_inputs({"backbone": recorded["checksum"]}, {"backbone": current["checksum"]}):
            raise InputError(self.sweep, problems)

    def _search(self) -> str:
        """Run trials until the budget is spent or no configuration is left. Returns ``budget`` or ``finished``."""
        from orchestrator.sweep.search_phase import make_search, tune_search

        search = self.search = make_search(
            self.plan, self.saved, self.journal, lanes=self.pool.count, elapsed=self._elapsed
        )
        reason = self.saved.search_ended
        if reason is None:
            self._phase = Phase.SEARCHING
            if not search.exhausted:
                self._run_watched(lambda: tune_search(search, self.plan, self.pool, self._tune_folder))
            reason = "budget" if search.closed or search.wall_time_over else "finished"
        search.close("budget")
        if self.saved.search_ended is None:
            self.journal.append("searched", reason=reason, next=search.next_trials(NEXT_TRIALS))
        return reason

    def _run_final(self) -> dict[str, TaskOutcome]:
        """Retrain the finalists and score them on the test split, without jobs that earlier attempts have done."""
        from orchestrator.final.progress import FinalProgress
        from orchestrator.final.retrain import Look
        from orchestrator.final.run import run_final
        from orchestrator.final.skip_done import CachedJobRunner, DedupingJournal

        assert self.search is not None
        records, storage = self.search.trials(), self.storage.sub(self.sweep)
        self._final = FinalProgress(records)
        self._phase = Phase.FINAL
        run = CachedJobRunner(self.pool.run_jobs, self.saved.answers, storage, self.journal, self._final)
        journal = DedupingJournal(self.journal, self.saved.recorded_final)
        look = Look(self.saved.look, self.saved.earlier_finalists)
        return self._run_watched(lambda: run_final(self.plan, records, run, storage, journal, look))

    def _register_while_told(self, outcomes: dict[str, TaskOutcome]) -> None:
        from orchestrator.tracking.connection import waits_are_told

        self.followers.flush()  # so that no driver elsewhere can come to another result once a version is there
        with waits_are_told(self._tell_waiting):
            register_outcomes(
                outcomes,
                plan=self.plan,
                saved=self.saved,
                backbones=self.backbones,
                pool=self.pool,
                storage=self.storage,
                exporter=self.followers.exporter,
                journal=self.journal,
            )
        self._waiting = ""

    def _tell_waiting(self, reason: str, seconds: float) -> None:
        """Show why MLflow is waited for, and until when; wait no longer once the sweep is to stop."""
        if self._stop.is_set():
            raise StopRequested
        until = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
        self._waiting = f"MLflow cannot be reached, trying until {until}; Ctrl-C keeps the result ({reason})"

    def _run_watched(self, work: Callable[[], T]) -> T:
        """Run work in a thread; meanwhile find dead lanes, show the status, and check whether to stop.

        Raises:
            StopRequested: if the user stopped the sweep.
            SweepError: if no lane can start any more.
        """
        return run_watched(work, self._check)

    def _check(self) -> None:
        try:
            self._cluster.require_alive()
            self._check_sweep()
        except MachineryError:
            # Before anything waits: Tune would go on to start processes that cannot work.
            if self.search:
                self.search.close("failed")
            self.pool.lost = True
            raise

    def _check_sweep(self) -> None:
        self.pool.expire_silent_lanes()
        self._follow_draining_nodes()
        self._show_status()
        if self.journal.error:  # Tune may have recorded it as the error of a trial
            self._cancel_work()
            raise self.journal.error
        if fault := self.pool.fault() or self.followers.fault():
            self._cancel_work()
            raise SweepError(f"{fault}; see {self.folder / 'sweep.log'}")
        if self._stop.is_set() or (self.folder / STOP).exists():
            self._phase = Phase.STOPPING
            self._show_status()
            self._cancel_work()
            raise StopRequested
        if self.search:
            self._record_lanes(self.pool.lanes)
        if self._phase is Phase.SEARCHING and self.search:
            if self.search.closed:
                self.pool.cancel()
            elif (trials := self.search.most_at_once) is not None:
                self.pool.retire(max(trials, self._most_final_jobs))

    @property
    def _most_final_jobs(self) -> int:
        """Most jobs that the final may have at once."""
        selection = self.config.selection
        return len(self.plan.tasks) * (selection.contenders * selection.seeds + 1) + len(self.plan.studies)

    def _follow_draining_nodes(self) -> None:
        """Record which nodes are taken back, and which jobs their lanes have handed back."""
        notices, moved = self.pool.follow_draining_nodes()
        for notice in notices:
            self.journal.append("drain", **asdict(notice))
        for job in moved:
            self.journal.append("move", **asdict(job))
        self._drained_nodes += len(notices)
        self._moved_jobs += len(moved)

    def _cancel_work(self) -> None:
        """Start no more work, and stop jobs after their current step. Open trials stay open for the next attempt."""
        if self.search:
            self.search.close("interrupted" if self._stop.is_set() else "failed")
        self.pool.cancel()

    def _write_close(self, reason: str, message: str = "") -> None:
        """Write the ``close`` event, unless this attempt has written no event that it would close."""
        if self._close_is_due and not self.journal.error:
            self.journal.append("close", reason=reason, message=message)

    def _record_lanes(self, lanes: Mapping[int, LaneStatus]) -> None:
        """Write which process each lane is, when it has started or started again."""
        for lane, status in lanes.items():
            if self._lane_pids.get(lane) != status.pid:
                self._lane_pids[lane] = status.pid
                self.journal.append(
                    "lane", lane=lane, pid=status.pid, nodes=status.nodes, device=status.device, gpu=status.gpu
                )

    def _show_status(self) -> None:
        lanes = self.pool.poll()
        waiting = self._phase is Phase.SEARCHING and not lanes
        steps = {name: step for lane in lanes.values() for name, (step, _) in lane.working.items()}
        self._watch(
            Snapshot(
                phase=Phase.WAITING_FOR_LANES if waiting else self._phase,
                elapsed=self._elapsed,
                trials=self.search.trials() if self.search else (),
                lanes=lanes,
                expected_lanes=self.pool.expected,
                lane_seconds=self.search.lane_seconds if self.search else 0.0,
                drained_nodes=self._drained_nodes,
                moved_jobs=self._moved_jobs,
                final=self._final.status(steps) if self._final and self._phase is Phase.FINAL else None,
                waiting=self._waiting if self._phase is Phase.REGISTERING else "",
            )
        )

    @property
    def _elapsed(self) -> float:
        """Wall time of all attempts, in seconds."""
        return self.saved.wall_seconds + time.monotonic() - self._clock

    @property
    def _ray_folder(self) -> str:
        """Folder for the state of Ray Train in this attempt, which is not read again."""
        return self.storage.sub(f"{self.sweep}/ray/{self.saved.attempts}").root

    @property
    def _tune_folder(self) -> str:
        """Folder for the state of Ray Tune in this attempt, which is not read again.

        It is on the driver's machine, as the trials' processes are: Tune writes into its state how it reaches an object
        store, with the keys.
        """
        return str(self.folder.resolve() / "ray" / str(self.saved.attempts))
