"""Loggers of libraries whose level we set: under another name their messages reach ``sweep.log`` or the terminal."""

from __future__ import annotations

import pytest

from .reliance import relied_on

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries as they are imported


@relied_on("logger:ray", by="orchestrator/lanes/cluster.py")
@relied_on(
    "logger:ray.tune.analysis.experiment_analysis",
    "logger:ray.tune.utils.util",
    by="orchestrator/sweep/search_phase.py",
)
def test_ray_logger_names() -> None:
    from ray.tune.analysis import experiment_analysis
    from ray.tune.utils import util

    assert experiment_analysis.logger.name == "ray.tune.analysis.experiment_analysis"
    assert util.logger.name == "ray.tune.utils.util"


@relied_on("logger:bitsandbytes", by=("orchestrator/backbone/bitsandbytes.py", "orchestrator/cli/app.py"))
def test_bitsandbytes_logger_name() -> None:
    from bitsandbytes.backends.cpu import ops

    assert ops.logger.name.startswith("bitsandbytes.")


@relied_on("logger:alembic", by="orchestrator/cli/output/report.py")
def test_alembic_logger_name() -> None:
    import alembic.runtime.migration

    assert alembic.runtime.migration.log.name.startswith("alembic.")


@relied_on("logger:accelerate.big_modeling", by="orchestrator/backbone/checkpoint_reader.py")
def test_accelerate_logger_name() -> None:
    from accelerate import big_modeling

    assert big_modeling.logger.name == "accelerate.big_modeling"
