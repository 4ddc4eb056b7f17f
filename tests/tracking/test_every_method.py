"""What every method leaves in the registry does the same in a fresh process, row by row."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import methods
from methods.plugins import loader
from orchestrator.tracking.packaging import save_pyfunc

from .small import make

pytestmark = [
    pytest.mark.slow,
    # peft 0.21 still asks transformers 5 by its old name
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    # and it asks the norms that it copies for the width of a linear layer
    pytest.mark.filterwarnings("ignore:Unsupported layer type .*Norm:UserWarning"),
]
PLUGIN = Path(__file__).parents[2] / "examples" / "my_method.py"
METHODS = (*methods.names(), "peft:vera", "compose:prefix+adapter", "my_method", "compose:my_method+bitfit")
DECODERS = ("hard_prompt",)  # which needs a head that knows words
COMPARE = """
import json, os, sys
answer = os.dup(1)
os.dup2(2, 1)
import mlflow
from orchestrator.tracking.verify import compare
found = {folder: compare(mlflow.pyfunc.load_model(folder)) for folder in sys.argv[1:]}
with os.fdopen(answer, "w") as stream:
    json.dump(found, stream)
"""


@pytest.fixture(scope="module")
def plugin() -> Iterator[None]:
    """Plugins are the process's; other tests begin without this one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loader, "_SOURCES", {})
        methods.register(PLUGIN)
        yield
    for name in [name for name in sys.modules if name.startswith(f"{loader.PACKAGE}.")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, plugin: None) -> dict[str, dict[str, Any]]:
    """What one fresh process says of every method's model; all of them, since starting it takes longest."""
    folders = {}
    for number, method in enumerate(METHODS):
        place = tmp_path_factory.mktemp(f"method-{number}")
        made = make(place, "decoder" if method in DECODERS else "encoder", method=method)
        folders[method] = str(place / "model")
        save_pyfunc(made.folder, place / "model", run_id="0" * 32, model_id="m-0")
        for name in ("checkpoint", "storage", "bundle", "adapter"):
            shutil.rmtree(place / name)  # the model alone has to do
    environment = {"PATH": "", "HOME": str(place), "OMP_NUM_THREADS": "1", "PEFT_SWEEP_CACHE": str(place / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", COMPARE, *folders.values()],
        env=environment,
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = json.loads(done.stdout)
    return {method: answers[folder] for method, folder in folders.items()}


@pytest.mark.parametrize("method", METHODS)
def test_bundle_of_every_method_reproduces_its_predictions(found: dict[str, dict[str, Any]], method: str) -> None:
    told = found[method]
    assert told["rows"] == 30
    assert told["largest_difference"] <= 1e-6
    assert told["score_now"] == pytest.approx(told["score_recorded"], abs=1e-6)
