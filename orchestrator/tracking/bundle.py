"""What is registered of a trained adapter: a folder that says everything needed to use it and to check it.

- ``bundle.json``: :class:`Bundle`;
- ``adapter/``: what the method saved; `peft` loads it where the method is one of its own;
- ``tokenizer/``: as transformers saves it;
- ``config/config.json``: the backbone's architecture;
- ``evaluation/test.parquet``: every test row with what was predicted for it;
- ``README.md``: the model card;
- ``backbone.safetensors``: the quantized backbone, only where nobody else could get it by its name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.common.errors import SweepError
from orchestrator.common.trial_types import TrialKey

if TYPE_CHECKING:
    import pyarrow as pa

BUNDLE, CARD = "bundle.json", "README.md"
ADAPTER, TOKENIZER, CONFIG = "adapter", "tokenizer", "config/config.json"
EVALUATION, CARRIED = "evaluation/test.parquet", "backbone.safetensors"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BundleBackbone(_Part):
    """Which backbone the adapter belongs to."""

    model: str
    """Hub id, folder, or ``package:NAME/SUBPATH``."""
    revision: str | None = None
    """Commit on the hub."""
    quantization: Literal["nf4", "fp4", "int8", "none"]
    double_quantization: bool
    compute_dtype: Literal["float32", "bfloat16"]
    """What the frozen products were computed in; never ``auto``."""
    digest: str
    """Name of the quantized file in any cache or storage."""
    checksum: str
    """Of its tensors, mapped for float32."""


class Environment(_Part):
    """Where the recorded predictions were made; floating-point sums depend on it."""

    threads: int
    torch: str
    cpu: str
    """The widest instructions that torch uses, ``AVX512`` for one."""
    device: str = "cpu"

    @classmethod
    def here(cls, threads: int | None = None, device: str = "cpu") -> Environment:
        """This process's, or what it is with another number of threads."""
        import torch

        threads = threads or torch.get_num_threads()
        capability = torch.backends.cpu.get_cpu_capability()
        return cls(threads=threads, torch=torch.__version__, cpu=capability, device=device)


class Comparison(_Part):
    """What its sweep says of it beside the other methods."""

    score: float
    """The method's: the mean over its seeds. The bundle holds one of them."""
    scores: tuple[float, ...]
    """Of each seed."""
    recommended: str
    """Method."""
    reason: str
    """Why that one; a sentence."""
    tied: tuple[str, ...]
    """Methods that may be the best, the recommended first."""
    runner_up: str = ""
    """The best of the others."""
    runner_up_lost: str = ""
    """Why that one was not recommended."""


class Bundle(_Part):
    """Everything that ``bundle.json`` says."""

    format: Literal[1] = 1
    task: str
    type: Literal["classification", "causal-lm"]
    labels: tuple[str, ...] = ()
    """In the order of the probabilities; none for a language model."""
    column: str = "text"
    """The input's name: of the texts, or of the prompts."""
    max_length: int
    evaluation_batch: int
    """Rows per batch; rows are sorted by length."""
    max_new_tokens: int = 32
    backbone: BundleBackbone
    environment: Environment
    metric: str
    higher_is_better: bool
    score: float
    """The metric of this checkpoint on the test split."""
    interval: tuple[float, float]
    """Where :attr:`estimate` lies at 95 %."""
    comparison: Comparison | None = None
    """With the sweep's other methods."""
    metrics: dict[str, float] = {}
    """All metrics on the test split."""
    majority: float | None = None
    """Accuracy of always naming the most frequent label."""
    rows: dict[str, int] = {}
    """Rows by split."""
    data_digest: str
    sweep: str
    trial: str
    method: str
    params: dict[str, Any]
    measurements: dict[str, float] = {}

    @property
    def trial_key(self) -> TrialKey:
        """The trial that trained it."""
        return TrialKey.parse(self.trial)

    @property
    def estimate(self) -> float:
        """The score to judge it by: its method's over all seeds where there are several."""
        return self.comparison.score if self.comparison else self.score

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """From a bundle's folder.

        Raises:
            SweepError: if the folder is not a bundle, or is one of another format.
        """
        try:
            return cls.model_validate_json((folder / BUNDLE).read_text(encoding="utf-8"))
        except OSError as error:
            raise SweepError(f"{folder} is not a bundle: it has no {BUNDLE}") from error
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise SweepError(f"{folder / BUNDLE} cannot be used: {place}: {first['msg']}") from error


def write_bundle(
    folder: Path,
    bundle: Bundle,
    *,
    adapter: Path,
    tokenizer: Path,
    config: Mapping[str, Any],
    evaluation: pa.Table,
    card: str,
    backbone: Path | None = None,
) -> None:
    """Put a bundle together.

    Args:
        folder: where; created.
        bundle: what it is.
        adapter: folder that the method saved.
        tokenizer: folder that the tokenizer saved.
        config: the backbone's architecture.
        evaluation: the test rows and what was predicted, from :func:`evaluation_table`.
        card: the model card, Markdown.
        backbone: the quantized file, to be carried along.
    """
    from pyarrow import parquet

    for name in (EVALUATION, CONFIG):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(adapter, folder / ADAPTER, dirs_exist_ok=True)
    shutil.copytree(tokenizer, folder / TOKENIZER, dirs_exist_ok=True)
    parquet.write_table(evaluation, folder / EVALUATION)
    (folder / CONFIG).write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")
    (folder / CARD).write_text(card, encoding="utf-8")
    (folder / BUNDLE).write_text(bundle.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if backbone:
        shutil.copyfile(backbone, folder / CARRIED)


def evaluation_table(rows: pa.Table, predictions: pa.Table) -> pa.Table:
    """A split's own columns, and beside them what was predicted.

    Args:
        rows: the split, with ``row`` and its texts.
        predictions: of the same rows in the same order.

    Raises:
        ValueError: if they are of different rows.
    """
    if not rows["row"].equals(predictions["row"]):
        raise ValueError("the predictions are not of these rows, in this order")
    for name in predictions.column_names:
        if name not in rows.column_names:
            rows = rows.append_column(name, predictions[name])
    return rows
