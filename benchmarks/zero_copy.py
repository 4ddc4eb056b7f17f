"""How much of a node's backbone a second lane needs for itself.

A fresh process maps the backbone that this one has mapped, attaches LoRA and trains a step; then the kernel is asked
how many bytes of the file's mapping belong to that process alone. Frozen tensors outside the mapping count as well.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks._common import MINILM, SMOLLM2, emit, published, scratch

BACKBONES: dict[str, tuple[str, str]] = {
    "MiniLM": (MINILM, "classification"),
    "SmolLM2": (SMOLLM2, "causal-lm"),
}


def main() -> None:
    """Measure both real backbones."""
    if len(sys.argv) == 4 and sys.argv[1] == "lane":
        lane(Path(sys.argv[2]), "classification" if sys.argv[3] == "classification" else "causal-lm")
        return
    for name, (model, task) in BACKBONES.items():
        with scratch() as folder:
            file = published(model, task, folder)
            first = _start(file, task)
            try:
                second = _start(file, task)
                private, common = _answer(second)
                second.wait()
            finally:
                first.kill()
                first.wait()
            size = file.stat().st_size
        emit(
            benchmark="zero_copy",
            backbone=name,
            bytes=size,
            shared_bytes=common,
            private_bytes=private,
            percent=100 * private / size,
        )


def lane(file: Path, task: str) -> None:
    """What a lane does; then print the mapping's private and shared bytes, and wait to be asked to leave."""
    import torch

    import search_spaces
    from methods import get
    from orchestrator.backbone.shared import load

    shared = load(file, task, name="backbone", dtype=torch.bfloat16, labels=3 if task == "classification" else 0)
    checksum = shared.checksum()
    spec = get("lora")
    attached = spec.attach(
        shared.view(0), spec.params_type.from_dict(search_spaces.get("lora").default), shared.context
    )
    ids = torch.arange(64).reshape(2, 32) + 1000
    attached.train(True)
    labels = torch.tensor([0, 1]) if task == "classification" else ids
    attached.module(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
    assert shared.checksum() == checksum
    ranges, private, common = mapping(file)
    inside = [any(low <= t.data_ptr() < high for low, high in ranges) for t in shared.shared_tensors()]
    outside = sum(t.nbytes for t, here in zip(shared.shared_tensors(), inside, strict=True) if not here)
    print(private + outside, common, flush=True)
    sys.stdin.read()


def mapping(file: Path) -> tuple[list[tuple[int, int]], int, int]:
    """This process's mapping of a file: its address ranges, private bytes and shared bytes."""
    private = common = 0
    ranges, inside = [], False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            if inside := line.endswith(str(file.resolve())):
                low, _, high = name.partition("-")
                ranges.append((int(low, 16), int(high, 16)))
        elif inside and name in ("Private_Clean:", "Private_Dirty:"):
            private += int(rest.split()[0]) * 1024
        elif inside and name in ("Shared_Clean:", "Shared_Dirty:"):
            common += int(rest.split()[0]) * 1024
    return ranges, private, common


def _start(file: Path, task: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.zero_copy", "lane", str(file), task]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if process.stdout is None or not (line := process.stdout.readline()):
        raise RuntimeError("a lane ended before it had trained a step")
    process.answer = tuple(map(int, line.split()))  # type: ignore[attr-defined]
    return process


def _answer(process: subprocess.Popen[str]) -> tuple[int, int]:
    private, common = process.answer  # type: ignore[attr-defined]
    if process.stdin:
        process.stdin.close()
    return private, common


if __name__ == "__main__":
    main()
