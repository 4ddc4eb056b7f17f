"""Bytes of the frozen backbone that a second lane on a node does not share with the first.

    python -m benchmarks.zero_copy

Two processes map the same NF4 file, attach LoRA and train a step. A line per backbone has ``bytes``, the size of the
file, and for the second process ``private_bytes``: pages of the mapping that it does not share (from /proc/self/smaps,
Linux only), plus frozen tensors outside the mapping; ``shared_bytes``: the other resident pages of the mapping; and
``private_percent``: private bytes as a percentage of the file.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks._common import MINILM, SMOLLM2, argument_parser, emit, publish_backbone, scratch_folder

BACKBONES: dict[str, tuple[str, str]] = {
    "MiniLM": (MINILM, "classification"),
    "SmolLM2": (SMOLLM2, "causal-lm"),
}


def main() -> None:
    """Measure both backbones; with the arguments ``lane FILE TASK_TYPE``, run as one of the two processes."""
    if len(sys.argv) == 4 and sys.argv[1] == "lane":
        run_lane(Path(sys.argv[2]), "classification" if sys.argv[3] == "classification" else "causal-lm")
        return
    argument_parser(__doc__).parse_args()
    for name, (model, task) in BACKBONES.items():
        with scratch_folder() as folder:
            file = publish_backbone(model, task, folder)
            first = _start_lane(file, task)
            try:
                second = _start_lane(file, task)
                private, shared = _stop_lane(second)
                second.wait()
            finally:
                first.kill()
                first.wait()
            size = file.stat().st_size
        emit(
            benchmark="zero_copy",
            backbone=name,
            bytes=size,
            shared_bytes=shared,
            private_bytes=private,
            private_percent=100 * private / size,
        )


def run_lane(file: Path, task: str) -> None:
    """Train a step, print the mapping's private and shared bytes, and wait until stdin is closed."""
    import torch

    import search_spaces
    from methods import get
    from orchestrator.backbone.shared import load

    backbone = load(file, task, name="backbone", dtype=torch.bfloat16, labels=3 if task == "classification" else 0)
    checksum = backbone.checksum()
    spec = get("lora")
    attached = spec.attach(
        backbone.view(0), spec.params_type.from_dict(search_spaces.get("lora").default), backbone.context
    )
    ids = torch.arange(64).reshape(2, 32) + 1000
    attached.train(True)
    labels = torch.tensor([0, 1]) if task == "classification" else ids
    attached.module(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
    assert backbone.checksum() == checksum
    ranges, private, shared = read_mapping(file)
    outside = sum(
        tensor.nbytes
        for tensor in backbone.shared_tensors()
        if not any(low <= tensor.data_ptr() < high for low, high in ranges)
    )
    print(private + outside, shared, flush=True)
    sys.stdin.read()


def read_mapping(file: Path) -> tuple[list[tuple[int, int]], int, int]:
    """Return the address ranges, private bytes and shared bytes of this process's mapping of a file."""
    private = shared = 0
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
            shared += int(rest.split()[0]) * 1024
    return ranges, private, shared


def _start_lane(file: Path, task: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.zero_copy", "lane", str(file), task]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if process.stdout is None or not (line := process.stdout.readline()):
        raise RuntimeError("a lane ended before it had trained a step")
    process.sizes = tuple(map(int, line.split()))  # type: ignore[attr-defined]
    return process


def _stop_lane(process: subprocess.Popen[str]) -> tuple[int, int]:
    """Let a lane's process exit, and return its private and shared bytes."""
    private, shared = process.sizes  # type: ignore[attr-defined]
    if process.stdin:
        process.stdin.close()
    return private, shared


if __name__ == "__main__":
    main()
