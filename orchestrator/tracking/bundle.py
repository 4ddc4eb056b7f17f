"""The bundle of a registered adapter: a folder with everything that is needed to use it and to verify it.

- ``bundle.json``: :class:`Bundle`;
- ``adapter/``: files that the method saved; `peft` loads them where the method is one of its own;
- ``tokenizer/``: tokenizer as transformers saves it;
- ``config/config.json``: architecture of the backbone;
- ``evaluation/test.parquet``: the digest of every test row and its prediction in numbers, see
  :mod:`orchestrator.tracking.evaluation`;
- ``evaluation/*.json``: scores per class, confusion matrix and worst rows, where the task's type has them;
- ``README.md``: the model card;
- ``backbone.safetensors``: the quantized backbone, only where it cannot be downloaded by its name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.common.errors import SweepError, key_path, one_line
from orchestrator.common.trial_types import TrialKey
from orchestrator.tasks import TASK_TYPES, TaskType, TaskTypeName
from orchestrator.tasks.generation import Sampling
from orchestrator.tasks.inputs import InputSchema
from orchestrator.tracking.earlier_bundles import in_todays_format

if TYPE_CHECKING:
    import pyarrow as pa

BUNDLE, CARD = "bundle.json", "README.md"
ADAPTER, TOKENIZER, CONFIG = "adapter", "tokenizer", "config/config.json"
EVALUATION, CARRIED = "evaluation/test.parquet", "backbone.safetensors"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BundleBackbone(_Part):
    """The backbone that the adapter belongs to."""

    model: str
    """Hub id, folder, or ``package:NAME/SUBPATH``."""
    revision: str | None = None
    """Commit on the hub."""
    quantization: Literal["nf4", "fp4", "int8", "none"]
    double_quantization: bool
    compute_dtype: Literal["float32", "bfloat16"]
    """Data type of the frozen layers' matrix products; never ``auto``."""
    digest: str
    """Name of the quantized file in caches and storages."""
    checksum: str
    """Checksum of its tensors, mapped for float32."""
    licence: str = ""
    """Licence that its README or package declares; empty where none is known."""


class Environment(_Part):
    """The environment of the recorded predictions, on which floating-point sums depend."""

    threads: int = Field(ge=1)
    torch: str
    cpu: str
    """The widest instruction set that torch uses, for example ``AVX512``."""
    device: str = "cpu"
    gpu: str = ""
    """Name of the GPU; empty for a processor, and in bundles that were written before it was recorded."""
    cuda: str = ""
    """Version of CUDA that torch was built for."""
    cublas: str = ""
    """Version of cuBLAS; empty where it is unknown."""
    trainable_products: Literal["float32", "tf32", "bfloat16"] = "float32"
    """Precision of the adapter's products on a GPU, as in ``gpu.trainable_products``."""

    @classmethod
    def here(cls, threads: int | None = None, device: str = "cpu", **gpu: str) -> Environment:
        """Return the environment of this process, or that of the same process with another number of threads.

        Args:
            threads: processor threads; torch's own number if left out.
            device: device that computes.
            gpu: the fields of a GPU, from :func:`orchestrator.engine.gpu_identity.gpu_identity`.
        """
        import torch

        threads = threads or torch.get_num_threads()
        capability = torch.backends.cpu.get_cpu_capability()
        fields = {"threads": threads, "torch": torch.__version__, "cpu": capability, "device": device}
        return cls.model_validate({**fields, **gpu})


class BundleSelection(_Part):
    """The choice of the sweep that trained the method."""

    recommended: str
    """The recommended method."""
    reason: str
    """Why it was chosen, one clause."""
    tied: tuple[str, ...]
    """Methods that may be the best at the look's level, the recommended one first."""
    probability: dict[str, float] = {}
    """Of each method, that an exhaustive search would find no other better; empty in bundles of earlier releases."""
    runner_up: str = ""
    """The best of the other methods."""
    runner_up_reason: str = ""
    """Why that one was not recommended, one clause."""
    look: int = 1
    """Which look at the test split it rests on; more than 1 for a sweep that was extended."""


class BundleBaseline(_Part):
    """The best trivial predictor on the same test rows, and whether the method is better."""

    name: str
    """What it does, as in "no method was better than NAME"."""
    score: float
    """Its score, in the task's metric."""
    interval: tuple[float, float]
    """Interval of its score, at the look's level."""
    lead: float
    """By how much the method is better."""
    lead_low: float
    """Lower bound of that, at the look's level; the method is better where it is above 0."""

    @property
    def is_beaten(self) -> bool:
        """Whether the method is better."""
        return self.lead_low > 0


class PeftAgreement(_Part):
    """How far the adapter over the unquantized backbone, as peft loads it, predicts what was recorded."""

    rows: int
    """Test rows that were compared, the first ones."""
    differing: int | None = None
    """Rows whose predicted label, labels or number of a choice differ; ``None`` where a type predicts none."""
    largest_difference: float
    """Largest absolute difference of the numbers that a type records."""
    numbers: str
    """What these numbers are, with their unit: ``probability``."""


class Bundle(_Part):
    """The content of ``bundle.json``, format 2."""

    format: Literal[2] = 2
    task: str
    type: TaskTypeName
    labels: tuple[str, ...] = ()
    """Labels in the order of the probabilities; none for a language model."""
    constants: dict[str, float] = {}
    """Numbers of the task that its type needs, such as the mean by which targets were standardized."""
    columns: dict[str, str] = Field(min_length=1)
    """Names of the columns that the model reads, by the columns of a split table that they become."""
    max_length: int = Field(ge=1)
    evaluation_batch: int = Field(ge=1)
    """Rows per batch; rows are sorted by length."""
    max_new_tokens: int = 32
    sampling: Sampling | None = None
    """How generated tokens are drawn; ``None`` where each is the most probable one."""
    backbone: BundleBackbone
    environment: Environment
    metric: str
    """Name of the scores' metric."""
    higher_is_better: bool
    mean_score: float
    """Mean score of the method over its seeds, on the test split."""
    checkpoint_score: float
    """Score of the checkpoint in this bundle, on the test split."""
    seed_scores: tuple[float, ...] = ()
    """Score of each seed."""
    interval: tuple[float, float]
    """Interval of the mean score, at the look's level; 95 % if nothing was compared."""
    selection: BundleSelection | None = None
    """Choice of the sweep; ``None`` for a method that was not compared."""
    metrics: dict[str, float] = {}
    """All metrics of this checkpoint on the test split."""
    other_scores: dict[str, tuple[float, float, float]] = {}
    """Mean score of the method over its seeds and the ends of its interval, by metric, of the other metrics that
    its task lists."""
    majority: float | None = None
    """Accuracy of predicting the most frequent label for every row."""
    baseline: float | None = None
    """The type's baseline on the test rows; missing in bundles of earlier releases."""
    trivial: BundleBaseline | None = None
    """The best trivial predictor; ``None`` where there is none, and in bundles of earlier releases."""
    collapsed_seeds: int = 0
    """Seeds of the method that answer every test row alike."""
    rows: dict[str, int] = {}
    """Rows by split."""
    data_digest: str
    sweep: str
    trial: str
    """``task/method/number`` of the configuration."""
    method: str
    params: dict[str, Any]
    peft_agreement: PeftAgreement | None = None
    """``None`` where peft does not load the adapter, and where it was not measured."""
    measurements: dict[str, float] = {}

    @property
    def task_type(self) -> TaskType:
        """The type of the task, with its labels and constants."""
        return TASK_TYPES[self.type].configured(
            (self.metric,), self.max_new_tokens, None, self.labels, self.sampling, self.constants
        )

    @property
    def input_schema(self) -> InputSchema:
        """The columns that the model reads."""
        return TASK_TYPES[self.type].input_schema(self.columns)

    @property
    def trial_key(self) -> TrialKey:
        """The trial with the configuration."""
        return TrialKey.parse(self.trial)

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """Read a bundle's folder, of this release or an earlier one.

        Raises:
            SweepError: if the folder is not a bundle, or its format is unknown.
        """
        try:
            values = json.loads((folder / BUNDLE).read_text(encoding="utf-8"))
            return cls.model_validate(in_todays_format(values))
        except UnicodeDecodeError as error:
            raise SweepError(f"{folder / BUNDLE} cannot be used: it is not UTF-8") from error
        except OSError as error:
            raise SweepError(f"{folder} is not a bundle: it has no {BUNDLE}") from error
        except ValidationError as error:
            first = error.errors()[0]
            message = one_line(": ".join(filter(None, [key_path(first["loc"]), first["msg"]])))
            raise SweepError(f"{folder / BUNDLE} cannot be used: {message}") from error
        except ValueError as error:
            raise SweepError(f"{folder / BUNDLE} cannot be used: it is not JSON ({error})") from error


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
    tables: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write a bundle.

    Args:
        folder: folder of the bundle; created.
        bundle: content of ``bundle.json``.
        adapter: folder that the method saved.
        tokenizer: folder that the tokenizer saved.
        config: architecture of the backbone.
        evaluation: test rows with their predictions, from :mod:`orchestrator.tracking.evaluation`.
        card: the model card, Markdown.
        backbone: the quantized backbone's file, where the bundle has to contain it.
        tables: files beside the test rows by name, from :class:`orchestrator.tracking.error_tables.ErrorTables`.
    """
    from pyarrow import parquet

    for name in (EVALUATION, CONFIG):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(adapter, folder / ADAPTER, dirs_exist_ok=True)
    shutil.copytree(tokenizer, folder / TOKENIZER, dirs_exist_ok=True)
    parquet.write_table(evaluation, folder / EVALUATION)
    (folder / CONFIG).write_text(json.dumps(dict(config), indent=2) + "\n", encoding="utf-8")
    for name, text in tables.items():
        (folder / EVALUATION).with_name(name).write_text(text, encoding="utf-8")
    (folder / CARD).write_text(card, encoding="utf-8")
    (folder / BUNDLE).write_text(bundle.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if backbone:
        shutil.copyfile(backbone, folder / CARRIED)
