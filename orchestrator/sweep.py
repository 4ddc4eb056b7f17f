"""The story of one sweep, from a plan to a registered champion."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cluster import connected, lane_layout, node_resources
from orchestrator.errors import InputError, Problem, SweepError
from orchestrator.plan import SweepPlan
from orchestrator.quiet import output_to
from orchestrator.storage import Storage
from orchestrator.trials import Answer, Job, TrialRecord
from orchestrator.versions import versions
from orchestrator.warm_start import EVENT, typical_characters

if TYPE_CHECKING:
    from orchestrator.final import TaskOutcome
    from orchestrator.lanes.broker import LaneStatus
    from orchestrator.lanes.group import LaneGroups
    from orchestrator.lanes.setup import LaneSetup
    from orchestrator.search.core import Search

log = logging.getLogger(__name__)
WATCH_INTERVAL = 0.5
PACK_AUTO = 1
MIRROR_PATIENCE = 120.0
LANE_PATIENCE = 3


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """How a sweep stands, for a display.

    Args:
        phase: what it is doing, a few words.
        elapsed: seconds since it began.
        trials: every trial so far.
        lanes: what each lane said last.
        expected_lanes: how many there will be.
        lane_seconds: spent so far.
    """

    phase: str
    elapsed: float
    trials: tuple[TrialRecord, ...] = ()
    lanes: dict[int, LaneStatus] = field(default_factory=dict)
    expected_lanes: int = 0
    lane_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a sweep ended.

    Args:
        sweep: its name.
        folder: where its journal, checkpoints and log are.
        reason: ``finished``, ``budget`` or ``interrupted``.
        tasks: what was found, by task; empty after an interruption.
        trials: every trial.
        wall_seconds: from the command to the end.
        unmirrored: events of the journal that MLflow has not taken.
        lanes: what each lane said last.
    """

    sweep: str
    folder: Path
    reason: str
    tasks: dict[str, TaskOutcome]
    trials: tuple[TrialRecord, ...]
    wall_seconds: float
    lanes: dict[int, LaneStatus] = field(default_factory=dict)
    unmirrored: int = 0


Watch = Callable[[Snapshot], None]


class Stopped(Exception):  # not an error: the user asked for it
    """The sweep was asked to stop."""


def new_sweep_name(name: str) -> str:
    """A sweep's name: the configuration's, and when it began."""
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"


def run_sweep(plan: SweepPlan, *, sweep: str, address: str | None, watch: Watch, stop: threading.Event) -> Outcome:
    """Run a sweep to its end.

    Args:
        plan: what to do.
        sweep: its name, from :func:`new_sweep_name`.
        address: of a Ray cluster; ``None`` starts one on this machine.
        watch: called twice a second with how it stands.
        stop: set it to end early; what runs is stopped within a step, and nothing stays open.

    Raises:
        InputError: if the checkpoint cannot be used as the plan wants, or there is no cluster at the address.
        SweepError: if no trial came to a result, or no lane can start.
    """
    storage = Storage.at(plan.config.storage)
    folder = local_folder(storage, sweep)
    _claim(folder)
    with output_to(folder / "sweep.log"), connected(address):
        return _Sweep(plan, sweep, storage, folder, watch, stop, in_cluster=bool(address)).run()


def _claim(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        problem = Problem("", "a sweep of that name began in this very second; run the command again")
        raise InputError(str(folder), [problem]) from error
    except OSError as error:
        raise InputError("storage", [Problem(str(folder), f"cannot be written ({error.strerror})")]) from error


def local_folder(storage: Storage, sweep: str) -> Path:
    """Where the driver keeps a sweep's journal: in the storage, or beside it where that is an object store."""
    return storage.local(sweep) if storage.is_local else Path("sweeps").resolve() / sweep


class _Sweep:
    def __init__(
        self,
        plan: SweepPlan,
        sweep: str,
        storage: Storage,
        folder: Path,
        watch: Watch,
        stop: threading.Event,
        in_cluster: bool,
    ) -> None:
        from orchestrator.tracking.journal import Journal
        from orchestrator.tracking.mirror import MlflowMirror

        self.plan, self.config, self.sweep = plan, plan.config, sweep
        self.storage, self.folder = storage, folder
        self._watch, self._stop, self.in_cluster = watch, stop, in_cluster
        self._begin = time.monotonic()
        self._phase = "starting"
        self.journal = Journal(folder / "journal.jsonl")
        self.mirror = MlflowMirror(
            self.journal.path,
            tracking_uri=self.config.mlflow.tracking_uri,
            experiment=self.config.mlflow.experiment or self.config.name,
        )
        self._mirror_closed = False
        self.search: Search | None = None
        self.lanes: dict[int, LaneStatus] = {}
        self.pack = PACK_AUTO if self.config.lanes.pack == "auto" else self.config.lanes.pack

    def run(self) -> Outcome:
        """Lanes start while tokens and backbone are prepared; then search, final, registration."""
        reason, outcomes = "failed", {}
        with ExitStack() as stack:
            stack.callback(self._report)
            stack.callback(self._let_mirror_finish)
            self.mirror.start()
            try:
                with self._lanes():
                    self._prepare()
                    reason = self._search()
                    outcomes = self._final() if reason != "interrupted" else {}
                    if outcomes:
                        self._while_watching(lambda: self._register(outcomes))
            except Stopped:
                reason = "interrupted"
            except BaseException as error:
                self.journal.append("close", reason="failed", message=str(error))
                raise
            finally:
                self._close_search(reason)
            self.journal.append("close", reason=reason, message="")
            self._let_mirror_finish()
        return Outcome(
            sweep=self.sweep,
            folder=self.folder,
            reason=reason,
            tasks=outcomes,
            trials=self.search.trials() if self.search else (),
            wall_seconds=time.monotonic() - self._begin,
            lanes=self.lanes,
            unmirrored=self.mirror.behind + self.mirror.refused,
        )

    @contextmanager
    def _lanes(self) -> Iterator[None]:
        """All lanes, from their start to the end of the last."""
        import ray

        from orchestrator.lanes.broker import start_broker
        from orchestrator.lanes.group import LaneGroups, LaneShape

        sizes, cpus, gpus = lane_layout(self.config.lanes, node_resources(), growing=self.in_cluster)
        self.count = sum(sizes)
        jobs = self.count * self.pack + 1
        self.broker = start_broker(min(self.config.lanes.min, self.count), 2 * jobs + 64, self.count)
        self.groups: LaneGroups = LaneGroups(
            self.broker, sizes, LaneShape(cpus, gpus), self.storage.sub(f"{self.sweep}/ray").root
        )
        try:
            yield
        finally:
            self._phase = "sending the lanes home"
            self._show()
            ray.get(self.broker.cancel.remote())
            ray.get(self.broker.close.remote())
            self.groups.join(30.0)

    def _prepare(self) -> None:
        from orchestrator.prepare import prepare

        self._phase = "tokenizing and quantizing"
        self.setup, backbones = self._while_watching(lambda: prepare(self.plan, self.storage, self.sweep, self.pack))
        self.backbones = backbones
        self.journal.append("sweep", **self._description())
        if self.plan.prior:
            self.journal.append(EVENT, **self.plan.prior.fields())
        self._open(self.setup)

    def _open(self, setup: LaneSetup) -> None:
        import ray

        ray.get(self.broker.open.remote(setup))

    def _search(self) -> str:
        from orchestrator.search.budget import Limits
        from orchestrator.search.core import Search
        from orchestrator.search.rungs import Halving

        budget, settings, selection = self.config.budget, self.config.search, self.config.selection
        hours = budget.lane_hours
        self.search = Search(
            self.plan.studies,
            self.plan.rungs,
            storage_path=self.folder / "optuna.log",
            journal=self.journal,
            halving=Halving(reduction_factor=settings.reduction_factor, min_results=settings.min_results),
            budget=Limits(
                trials=budget.trials,
                wall_seconds=self._wall_left(),
                lane_seconds=hours * 3600 if hours else None,
                final_steps=self.plan.finalists * selection.seeds * self.plan.rungs[-1],
                lanes=self.count,
            ),
            seed=self.config.seed,
        )
        self._phase = "searching"
        try:
            self._while_watching(self._tune)
        except Stopped:
            return "interrupted"
        spent = self.search.closed or self.search.wall_time_over
        return "budget" if spent else "finished"

    def _wall_left(self) -> float | None:
        """What the start has left of the wall time."""
        limit = self.config.budget.wall_time
        return None if limit is None else max(1.0, limit - (time.monotonic() - self._begin))

    def _tune(self) -> None:
        """Ray Tune drives the search; see :mod:`orchestrator.search.tune`."""
        from ray import tune

        from orchestrator.lanes.proxy import TrialProxy, Work
        from orchestrator.search.tune import CoreScheduler, CoreSearcher, CoreStopper

        assert self.search is not None
        metrics = {name: task.data.config.metric for name, task in self.plan.tasks.items()}
        work = Work(self.broker, self.plan.rungs, metrics)
        tune.Tuner(
            tune.with_resources(tune.with_parameters(TrialProxy, work=work), _beside_the_driver()),
            tune_config=tune.TuneConfig(
                search_alg=CoreSearcher(self.search),
                scheduler=CoreScheduler(self.search),
                num_samples=-1,
                max_concurrent_trials=self.count * self.pack + 1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=self.storage.sub(f"{self.sweep}/ray").root,
                name="tune",
                verbose=0,
                stop=CoreStopper(self.search),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()

    def _final(self) -> dict[str, TaskOutcome]:
        from orchestrator.final import play_final

        assert self.search is not None
        self.search.close("budget")
        self._phase = "retraining who is in contention, and scoring on the test split"
        records = self.search.trials()
        outcomes: dict[str, TaskOutcome] = self._while_watching(
            lambda: play_final(self.plan, records, self._do, self.storage.sub(self.sweep), self.journal)
        )
        return outcomes

    def _do(self, jobs: list[Job]) -> list[Answer]:
        import ray

        answers: list[Answer] = ray.get([self.broker.run.remote(job) for job in jobs])
        return answers

    def _register(self, outcomes: dict[str, TaskOutcome]) -> None:
        from orchestrator.register import Registrar
        from orchestrator.tracking.connection import one_line

        self._phase = "registering"
        lane = next(iter(self.lanes.values()))
        for name, outcome in outcomes.items():
            try:
                run_id = self.mirror.parent_run_id(name)
                made = Registrar(
                    plan=self.plan,
                    sweep=self.sweep,
                    outcome=outcome,
                    backbone=self.backbones[name],
                    lane=lane,
                    storage=self.storage,
                    run_id=run_id,
                ).register_all()
            except Exception as error:  # what was found is told all the same
                log.exception("task %s was not registered", name)
                outcome.unregistered = one_line(error)
                continue
            outcome.registered, *_ = made.values()
            versions = {method: {"version": one.version, "alias": one.alias} for method, one in made.items()}
            first = outcome.registered
            self.journal.append(
                "registered", task=name, name=first.name, version=first.version, aliases=[first.alias], methods=versions
            )

    def _while_watching(self, work: Callable[[], Any]) -> Any:
        """Do the work in a thread, show how it goes, and hear the wish to stop.

        Raises:
            Stopped: if that was asked.
            SweepError: if all lanes are gone for good.
        """
        done: list[Any] = []
        errors: list[BaseException] = []

        def body() -> None:
            try:
                done.append(work())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(WATCH_INTERVAL)
            self._show()
            self._check(thread)
        if errors:
            raise errors[0]
        return done[0]

    def _check(self, thread: threading.Thread) -> None:
        import ray

        searching = self.search is not None and self._phase == "searching"
        if self.groups.errors and not self.groups.alive():
            raise SweepError(f"every lane has ended: {self.groups.errors[0]}")
        faults: list[str] = ray.get(self.broker.faults.remote())
        if len(faults) >= LANE_PATIENCE and not self.lanes:
            raise SweepError(f"{faults[-1]}; see {self.folder / 'sweep.log'}")
        if self._stop.is_set():
            self._phase = "stopping: the lanes finish their step"
            if self.search:
                self.search.close("interrupted")
            ray.get(self.broker.cancel.remote())
            thread.join(30.0)
            raise Stopped
        if searching and self.search is not None and self.search.closed:
            ray.get(self.broker.cancel.remote())

    def _let_mirror_finish(self) -> None:
        """Once, however the sweep ends."""
        if not self._mirror_closed:
            self._mirror_closed = True
            self.mirror.close(MIRROR_PATIENCE)

    def _report(self) -> None:
        """However the sweep ended; MLflow gets it where it has taken everything else."""
        from orchestrator.report.ending import report_at_end

        report_at_end(self.folder, tracking_uri=None if self.mirror.behind else self.config.mlflow.tracking_uri)

    def _close_search(self, reason: str) -> None:
        if self.search:
            self.search.close(reason)

    def _show(self) -> None:
        import ray

        lanes, _ = ray.get(self.broker.status.remote())
        self.lanes = lanes
        self._watch(
            Snapshot(
                phase=self._phase,
                elapsed=time.monotonic() - self._begin,
                trials=self.search.trials() if self.search else (),
                lanes=lanes,
                expected_lanes=self.count,
                lane_seconds=self.search.lane_seconds if self.search else 0.0,
            )
        )

    def _description(self) -> dict[str, Any]:
        """The journal's first event: everything that is needed to tell what was run."""
        return {
            "sweep": self.sweep,
            "config": self.config.resolved(),
            "tasks": {
                name: {
                    "digest": task.data.digest,
                    "rows": {split: rows.num_rows for split, rows in task.data.splits.items()},
                    "labels": list(task.data.labels),
                    "majority": task.data.majority,
                    "characters": typical_characters(task.data),
                    "metric": task.data.config.metric,
                    "higher_is_better": task.type.higher_is_better(task.data.config.metric),
                }
                for name, task in self.plan.tasks.items()
            },
            "backbone": {
                **self.config.resolved()["backbone"],
                "digest": {name: one.quantized.digest for name, one in self.backbones.items()},
                "checksum": {name: one.checksum for name, one in self.backbones.items()},
                "architecture": self.plan.architecture,
                "parameters": self.plan.parameters,
                "bytes": max(one.quantized.size for one in self.backbones.values()),
            },
            "left_out": {
                f"{name}/{method.method}": method.reason
                for name, task in self.plan.tasks.items()
                for method in task.methods
                if not method.available
            },
            "versions": versions(),
            "pid": os.getpid(),
        }


def _beside_the_driver() -> Any:
    """Proxies take next to nothing, on the driver's own node."""
    import ray
    from ray import tune

    address = ray.util.get_node_ip_address()
    return tune.PlacementGroupFactory([{f"node:{address}": 0.0001}])
