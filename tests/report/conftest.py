"""Sweeps that nobody ran, of every ending."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.simulation.written_sweep import WrittenSweep

from .chromium import Browser, chromium

# A browser's profile is written by its own threads until it ends; MLflow's own noise as in tests/tracking.
NOISE = (
    "ignore:The ``noload`` loader strategy is deprecated",
    "ignore:.*Any type hint is inferred as AnyType",
)


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.filterwarnings(*NOISE))


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a sweep's folder; arguments of :class:`WrittenSweep` and of its ``write``."""

    def write(ending: str = "finished", *, trials: int = 60, tasks: tuple[str, ...] = ("airline",)) -> Path:
        folder = tmp_path_factory.mktemp("sweeps") / "airline-20261121-220300"
        return WrittenSweep(folder, trials=trials, tasks=tasks).write(ending)

    return write


@pytest.fixture(scope="session")
def swept(written: Callable[..., Path]) -> Path:
    """A finished sweep of one task."""
    return written(trials=160)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if chromium() is None:
        pytest.skip("no Chromium is installed; apt-get install chromium")
    with Browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots are kept: PEFT_SWEEP_SCREENSHOTS, if somebody wants to look at them."""
    folder = Path(os.environ.get("PEFT_SWEEP_SCREENSHOTS", tmp_path / "screenshots")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder
