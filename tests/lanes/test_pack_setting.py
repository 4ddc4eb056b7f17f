"""The way of ``lanes.pack`` from the configuration to the size of the packs in a lane."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.common.storage import Storage
from orchestrator.lanes import pool as pool_module
from orchestrator.lanes import worker as worker_module
from orchestrator.lanes import worker_memory as memory_module
from orchestrator.lanes.broker import Signal
from orchestrator.lanes.setup import LaneSetup
from orchestrator.lanes.worker import Worker
from orchestrator.sweep import prepare as prepare_module
from orchestrator.sweep.runner import _Sweep

from ..small_plan import small_plan

SHORT_ROWS = {"max_length": 8, "max_steps": 40}  # small batches, with which packs gain


class PreparedError(Exception):
    """Ends the preparation once the setup is known."""


def returning(value: Any) -> Callable[..., Any]:
    return lambda *_, **__: value


def setup_of_sweep(pack: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> LaneSetup:
    """Return what a sweep's lanes are set up with, from its configuration through the pool."""
    setups: list[LaneSetup] = []

    def prepare(plan: Any, storage: Storage, sweep: str, pack: int, *, remotely: bool) -> None:
        setups.append(prepare_module._lane_setup(plan.config, storage, sweep, {}, pack))
        raise PreparedError

    broker = SimpleNamespace(
        cancel=SimpleNamespace(remote=returning(None)), close=SimpleNamespace(remote=returning(None))
    )
    monkeypatch.setattr(pool_module, "ray", SimpleNamespace(get=returning(None), wait=returning(([None], []))))
    monkeypatch.setattr(pool_module, "start_broker", returning(broker))
    monkeypatch.setattr(
        pool_module, "LaneGroups", returning(SimpleNamespace(join=returning(True), let_retire=returning(None)))
    )
    monkeypatch.setattr(pool_module, "node_resources", returning({"node": {"CPU": 2.0}}))
    monkeypatch.setattr(prepare_module, "prepare", prepare)
    plan = small_plan(["lora"], lanes={"pack": pack}, training=SHORT_ROWS, budget={"trials": 1000})
    sweep: Any = SimpleNamespace(
        plan=plan,
        config=plan.config,
        storage=Storage(str(folder)),
        sweep="tiny-1",
        _ray_folder=str(folder),
        _in_cluster=False,
        _cluster=SimpleNamespace(require_alive=returning(None)),
        followers=SimpleNamespace(uploader=None),
        _show_status=returning(None),
        _run_watched=lambda call: call(),
    )
    with pytest.raises(PreparedError), _Sweep._lanes(sweep):
        _Sweep._prepare(sweep)
    return setups[0]


@pytest.mark.parametrize(("pack", "slots", "measured"), [("auto", 8, True), (3, 3, False), (1, 1, False)])
def test_pack_setting_reaches_the_pack_sizes_of_a_lane(
    pack: Any, slots: int, measured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = setup_of_sweep(pack, tmp_path, monkeypatch)
    assert (setup.pack, setup.measure_pack) == (slots, measured)

    context = SimpleNamespace(get_node_id=returning("node"))
    for module in (worker_module, memory_module):
        plain = SimpleNamespace(get=lambda value: value, get_runtime_context=returning(context))
        monkeypatch.setattr(module, "ray", plain)
    answers: dict[str, Any] = {"setup": setup, "join": None, "take": Signal.RETIRE, "heartbeat": frozenset()}
    worker = Worker(0, SimpleNamespace(**{n: SimpleNamespace(remote=returning(v)) for n, v in answers.items()}))
    worker.run()
    assert (worker.packs._most, worker.packs._measured) == (slots, measured)
    runs = [SimpleNamespace(tokens=64, alone_bytes=0.0) for _ in range(slots)]
    if measured:
        sizes = set()
        for _ in range(9):
            sizes.add(len(worker.packs.groups(runs)[0]))
            worker.packs.record_round(1.0)
        assert sizes == {1, slots // 2, slots}, "it times several sizes"
    else:
        assert [len(group) for group in worker.packs.groups(runs)] == [slots], "it takes the configured size"
