"""The sections of a sweep.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationInfo,
    field_validator,
    model_validator,
)

from methods import names
from orchestrator.common.errors import InputError
from orchestrator.common.field_types import AutoCount, Bytes, Count, Fraction, Seconds
from orchestrator.common.section import NAME_PATTERN, Section, refusal
from orchestrator.common.uris import PACKAGE, local_path, mask_secrets
from orchestrator.config.constraints import Constraints
from orchestrator.config.gpu import GpuSettings
from orchestrator.config.method_names import has_plugin, method_problem, plugin_problems
from orchestrator.config.overrides import Override, search_space_problems
from orchestrator.config.tasks import Task, source_problems
from orchestrator.config.warm_start import EarlierSweeps
from orchestrator.search.allocation import ALLOCATIONS
from orchestrator.search.samplers import SAMPLERS
from orchestrator.tasks.user_metric import is_reference

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
if TYPE_CHECKING:  # a type checker cannot evaluate a registry
    SamplerName = str
    AllocationName = str
else:
    SamplerName = Literal[tuple(SAMPLERS)]
    AllocationName = Literal[tuple(ALLOCATIONS)]
Preference = Literal["score", "size", "memory", "latency", "training_time"]


class BackboneConfig(Section):
    """The frozen model that every trial shares."""

    model: str
    """Hub id, local checkpoint folder or GGUF file, or ``package:NAME/SUBFOLDER`` of an installed Python package."""
    revision: str | None = None
    """Branch, tag or commit on the hub; its main branch if left out."""
    quantization: Literal["nf4", "fp4", "int8", "none"] = "nf4"
    """How the frozen linear layers are stored."""
    double_quantization: bool = True
    """Whether the 4-bit formats' own scales are quantized too, which saves about 0.4 bit per weight."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """The dtype of the frozen layers' matrix products; auto takes bfloat16 where the hardware is fast at it."""
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """The implementation of attention, by its name in transformers; auto takes sdpa where the architecture has it.
    flash_attention_2 needs a GPU and the package flash-attn on every node."""
    chat_template: str | None = None
    """File of a chat template (Jinja), for tokenizers without one, or in place of theirs."""
    trust_remote_code: bool = False
    """Whether Python code from the checkpoint may run. Only for checkpoints that you trust as you trust a program."""

    @model_validator(mode="after")
    def _has_a_model(self, info: ValidationInfo) -> BackboneConfig:
        if info.context is None:
            return self
        if problem := self._model_problem(info.context["base"]):
            raise refusal([(("model",), problem)])
        if self.chat_template and not (info.context["base"] / self.chat_template).is_file():
            raise refusal([(("chat_template",), f"there is no file {info.context['base'] / self.chat_template}")])
        return self

    def _model_problem(self, base: Path) -> str:
        if not self.model.strip():
            return "is empty; write a hub id, a folder, or package:NAME/SUBFOLDER"
        try:
            path = local_path(self.model, base)
        except InputError as error:
            return f"{self.model}: {error.problems[0].message}"
        if path is None:
            return "cannot be a URI; write a hub id, a folder, or package:NAME/SUBFOLDER"
        if path.is_file() and path.suffix != ".gguf":
            return f"{path} is neither a checkpoint folder nor a .gguf file"
        hub_id = self.model.count("/") <= 1 and self.model[:1] not in "./~" and not self.model.endswith((".gguf", "/"))
        return "" if path.exists() or hub_id or self.model.startswith(PACKAGE) else f"there is no {path}"


class Budget(Section):
    """When to stop: at the first limit that is reached."""

    trials: Count | None = None
    """How many trials to start, over all methods and tasks."""
    wall_time: Seconds | None = None
    """How long the sweep may take: 45s, 90m, 2h or 1h30m."""
    lane_hours: Annotated[float, Field(gt=0)] | None = None
    """How many hours all lanes together may work."""
    money: Annotated[float, Field(gt=0)] | None = None
    """What all lanes together may cost, at cost_per_lane_hour, in the same currency."""
    cost_per_lane_hour: Annotated[float, Field(ge=0)] | None = None
    """What an hour of one lane costs, in any currency. It is no limit; with it, the report has the sweep's cost."""

    @model_validator(mode="after")
    def _has_a_limit(self) -> Budget:
        if self.money is not None and not self.cost_per_lane_hour:
            raise refusal([(("money",), "needs the cost of a lane; write cost_per_lane_hour beside it")])
        if all(limit is None for limit in (self.trials, self.wall_time, self.lane_hours, self.money)):
            raise ValueError("has no limit; give trials, wall_time, lane_hours or money")
        return self

    @property
    def lane_seconds(self) -> float | None:
        """The lower of the limits lane_hours and money, in seconds of all lanes together."""
        hours = [self.lane_hours] if self.lane_hours else []
        if self.money and self.cost_per_lane_hour:
            hours.append(self.money / self.cost_per_lane_hour)
        return min(hours) * 3600 if hours else None


class Training(Section):
    """Limits of one trial."""

    max_steps: Count = 200
    """Optimizer steps of a full trial."""
    max_length: Annotated[int, Field(ge=4)] = 128
    """Tokens of a row, at most; longer ones are cut."""
    evaluation_batch: Count = 64
    """Rows of a batch that is scored, at most; of long rows it holds fewer, 16,384 tokens with padding."""
    validation_rows: Count = 2048
    """The most validation rows that are scored at a rung; the same rows for all trials."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of a step's gradient; a larger gradient is scaled down to it."""


class SearchConfig(Section):
    """How configurations are proposed, which methods get trials, and which trials continue at a rung."""

    sampler: SamplerName = "tpe"
    """What proposes configurations: tree-structured Parzen estimators, a Gaussian process, CMA-ES, random draws, or
    all points of spaces without ranges. gp and cmaes learn from finished trials only and need early_stopping: false."""
    constraints: Constraints = Field(default_factory=list)
    """Upper bounds for every trial, as in [adapter <= 10 MB, trainable <= 1M, memory <= 2 GB]; memory is the least that
    training takes. Configurations beyond them are not trained."""
    early_stopping: bool = True
    """Whether only the better trials continue at a rung, while the others wait there (successive halving)."""
    allocation: AllocationName = "race"
    """Which method gets the next trial: race drops methods that can no longer win, round_robin takes each in turn, and
    equal takes the one that has used the least lane time."""
    reduction_factor: Annotated[int, Field(ge=2)] = 2
    """The best ``1 / reduction_factor`` of a method's trials at a rung continue: with 2, the better half."""
    first_rung: Fraction = 0.25
    """Steps of the first rung, as a fraction of ``max_steps``."""
    min_results: Count = 2
    """Number of results at a rung before its best trials continue; until then, trials wait there."""
    warm_start: EarlierSweeps = Field(default_factory=list)
    """Earlier sweeps whose best configurations are tried early: their names, or auto for the most similar ones on the
    tracking server. At most a third of a method's trials come from them."""

    @model_validator(mode="after")
    def _sampler_fits(self) -> SearchConfig:
        if self.early_stopping and SAMPLERS[self.sampler].needs_complete_trials:
            problem = (
                f"is {self.sampler}, which learns only from finished trials; "
                "write search.early_stopping: false, or sampler: tpe"
            )
            raise refusal([(("sampler",), problem)])
        return self


class SelectionConfig(Section):
    """How the winner is chosen after the search."""

    seeds: Annotated[int, Field(ge=1, le=50)] = 3
    """Seeds that each method in the final is retrained with; with 1, its best trial is scored without retraining."""
    contenders: Count = 4
    """The most methods that are retrained; the best trials of the others are scored without retraining."""
    prefer: Preference = "score"
    """What decides between methods whose scores do not differ significantly: the score all the same, or the smallest
    adapter, the least memory in training, the least added latency, or the shortest training."""


class Lanes(Section):
    """The workers that train trials: one per GPU, or per CPU core where there is no GPU."""

    min: Count = 1
    """The number of lanes at which the search starts."""
    max: AutoCount = "auto"
    """The most lanes; auto takes what the cluster has."""
    workers: Count = 1
    """Processes of one lane, which share the rows of each batch. Scores are those of one worker, except for the random
    masks of dropout."""
    pack: AutoCount = "auto"
    """Trials that a lane trains in one forward and backward pass."""
    cpus: Annotated[float, Field(gt=0)] | None = None
    """CPU cores per worker."""
    gpus: Annotated[float, Field(ge=0)] | None = None
    """GPUs per worker; 0 trains on the CPU."""
    gpu_memory: Bytes | None = None
    """Memory of the GPU that each worker gets, as in 80GB, by which methods that cannot run are left out. Without it,
    the GPUs that can be seen are asked: those of the cluster, or of this machine."""

    @model_validator(mode="after")
    def _has_valid_limits(self) -> Lanes:
        if isinstance(self.max, int) and self.max < self.min:
            raise refusal([(("max",), f"is {self.max}; it must be at least min, which is {self.min}")])
        if self.workers > 1 and self.gpus and self.gpus % 1:
            message = f"is {self.gpus:g}; each of {self.workers} workers needs a GPU of its own, write 1 or 0"
            raise refusal([(("gpus",), message)])
        if self.gpu_memory and self.gpus == 0:
            message = "is the memory of a GPU, but gpus is 0, which trains on the CPU; leave one of them out"
            raise refusal([(("gpu_memory",), message)])
        return self


class MLflowConfig(Section):
    """Where runs and models are recorded."""

    tracking_uri: str = "sqlite:///mlflow.db"
    """Where runs go: a database or a server, in any form that MLflow takes."""
    registry_uri: str | None = None
    """Where models go; the tracking URI if left out."""
    experiment: str | None = None
    """The experiment's name; the sweep's name if left out."""
    keep_test_rows: bool = False
    """Whether registered models carry the test rows, with their texts and labels. Without them, they carry digests and
    predictions, and are verified where the sweep's data is."""


def _require_method(name: str, info: ValidationInfo) -> str:
    if problem := method_problem(name, _plugin_names(info)):
        raise ValueError(problem)
    return name


def _plugin_names(info: ValidationInfo) -> list[str]:
    """Return the names of all listed plugins, unusable ones too, so that a mistake in one is reported once."""
    plugins = (info.context or {}).get("plugins", ()) or info.data.get("plugins", ())
    return [Path(plugin).stem for plugin in plugins if isinstance(plugin, str)]


Method = Annotated[str, AfterValidator(_require_method)]


def _require_distinct(methods: list[str]) -> list[str]:
    if repeated := sorted({name for name in methods if methods.count(name) > 1}):
        raise ValueError(f"{', '.join(repeated)} given more than once")
    return methods


class SweepConfig(Section):
    """One sweep: which tasks, which methods, on which backbone, within which budget."""

    name: Name = "sweep"
    """Letters, digits and - _ . only; the file's name if left out."""
    backbone: BackboneConfig
    """The frozen model that every trial shares."""
    tasks: Annotated[dict[Name, Task], Field(min_length=1)]
    """The tasks to train for, by name."""
    plugins: list[str] = Field(default_factory=list)
    """Python files, each with a method of the file's name and its search space."""
    methods: Annotated[list[Method], Field(min_length=1), AfterValidator(_require_distinct)] = Field(
        default_factory=lambda: list(names())
    )
    """Fine-tuning methods to compare: names of files in methods/ (all of them if left out), of plugins, ``peft:TYPE``
    for any other type of `peft`, and ``compose:PART+PART`` for several methods on one backbone."""
    search_space: dict[Method, dict[str, Override]] = Field(default_factory=dict)
    """Overrides of the methods' search spaces: by method, then by hyperparameter, either ``{choices: [...]}``,
    ``{low: ..., high: ..., log: ..., step: ...}`` or ``{value: ...}``."""
    budget: Budget
    """When to stop; at least one limit."""
    training: Training = Training()
    """Limits of one trial."""
    search: SearchConfig = SearchConfig()
    """How configurations are proposed, which methods get trials, and which trials continue at a rung."""
    selection: SelectionConfig = SelectionConfig()
    """How the winner is chosen."""
    lanes: Lanes = Lanes()
    """The workers that train trials."""
    gpu: GpuSettings = GpuSettings()
    """How lanes compute on a GPU; the defaults are the slowest and need the least memory."""
    mlflow: MLflowConfig = MLflowConfig()
    """Where runs and models are recorded."""
    storage: str = "sweeps"
    """Folder (relative to the working directory) or URI that all nodes can access; every sweep has a folder there."""
    seed: Seed = 0
    """Seed of every random choice."""

    _base: Path = PrivateAttr(default_factory=Path.cwd)
    _file: Path | None = PrivateAttr(default=None)

    @field_validator("tasks")
    @classmethod
    def _require_source_tasks(cls, tasks: dict[str, Task]) -> dict[str, Task]:
        if problems := source_problems(tasks):
            raise refusal(problems)
        return tasks

    @field_validator("plugins")
    @classmethod
    def _require_plugins(cls, plugins: list[str], info: ValidationInfo) -> list[str]:
        if problems := plugin_problems(plugins, (info.context or {}).get("base", Path())):
            raise refusal(problems)
        return plugins

    @field_validator("search_space")
    @classmethod
    def _require_valid_overrides(
        cls, search_space: dict[str, dict[str, Override]], info: ValidationInfo
    ) -> dict[str, dict[str, Override]]:
        plugins = _plugin_names(info)  # their search spaces are known only after their code has run
        read = {name: space for name, space in search_space.items() if not has_plugin(name, plugins)}
        if problems := search_space_problems(read):
            raise refusal(problems)
        return search_space

    def model_post_init(self, context: Any, /) -> None:
        """Keep the folder that relative paths start from, and the file."""
        if context is not None:
            self._base, self._file = context["base"], context.get("file")

    @property
    def base(self) -> Path:
        """The folder that relative paths of data and backbone start from: the configuration's own."""
        return self._base

    @property
    def file(self) -> Path | None:
        """The file that it was read from, as the user named it; ``None`` for a configuration from a journal."""
        return self._file

    @property
    def plugin_names(self) -> tuple[str, ...]:
        """The names of the plugins' methods."""
        return tuple(Path(plugin).stem for plugin in self.plugins)

    def resolved(self) -> dict[str, Any]:
        """Return all values with their defaults as JSON, local paths absolute, without the secrets in URIs."""
        values = self.model_dump(mode="json")
        for name, task in self.tasks.items():
            for path, file in task.files().items():
                place = values["tasks"][name]
                for part in path[:-1]:
                    place = place[part]
                place[path[-1]] = self._absolute(file)
            references = [self._absolute_metric(reference) for reference in task.metric_references]
            values["tasks"][name]["metric"] = references[0] if isinstance(task.metric, str) else references
        values["plugins"] = [self._absolute(plugin) for plugin in self.plugins]
        if (self.base / self.backbone.model).exists():
            values["backbone"]["model"] = self._absolute(self.backbone.model)
        if self.backbone.chat_template:
            values["backbone"]["chat_template"] = self._absolute(self.backbone.chat_template)
        cleaned: dict[str, Any] = _masked(values)
        return cleaned

    def _absolute_metric(self, reference: str) -> str:
        if not is_reference(reference):
            return reference
        file, _, function = reference.rpartition(":")
        return f"{self._absolute(file)}:{function}"

    def _absolute(self, reference: str) -> str:
        path = None if reference.startswith(PACKAGE) else local_path(reference, self.base)
        return reference if path is None else str(path.resolve())


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return mask_secrets(value) if isinstance(value, str) else value
