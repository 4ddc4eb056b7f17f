"""How a lane's process gets ready."""

import subprocess
import sys

READY = """
import gc, sys
from orchestrator.lanes import loop
assert "torch" not in sys.modules and "orchestrator.lanes.worker" not in sys.modules, "naming it is not light"
import orchestrator.lanes.pool
assert "orchestrator.lanes.worker" not in sys.modules, "the driver imports the lane"
loop._import_all()
assert gc.isenabled() and gc.get_freeze_count() > 100_000, gc.get_freeze_count()
missing = {"orchestrator.lanes.worker", "peft", "bitsandbytes", "methods.lora", "methods.ia3"} - set(sys.modules)
assert not missing, missing
assert "torch._inductor.compile_fx" not in sys.modules, "torch's compiler, which nothing here uses, takes a second"
"""


def test_lane_loop_imports_everything_first_and_freezes_it() -> None:
    done = subprocess.run([sys.executable, "-c", READY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
