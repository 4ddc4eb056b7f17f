"""Names that we import from modules deep inside libraries: a release that moves one fails here."""

from __future__ import annotations

from importlib import import_module

import pytest

from .reliance import TABLE
from .scan import Use

pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries as they are imported

NAMES = {
    "mlflow.entities.logged_model_status.LoggedModelStatus": ["orchestrator/tracking/registry.py"],
    "mlflow.entities.model_registry.ModelVersion": [
        "orchestrator/tracking/browse.py",
        "orchestrator/tracking/versions.py",
    ],
    "mlflow.pyfunc.model.PythonModel": ["orchestrator/tracking/pyfunc_model.py"],
    "mlflow.pyfunc.model.PythonModelContext": ["orchestrator/tracking/pyfunc_model.py"],
    "mlflow.utils.mlflow_tags.MLFLOW_PARENT_RUN_ID": ["orchestrator/tracking/runs.py"],
    "mlflow.utils.mlflow_tags.MLFLOW_SOURCE_NAME": ["orchestrator/tracking/run_store.py"],
    "mlflow.utils.mlflow_tags.MLFLOW_SOURCE_TYPE": ["orchestrator/tracking/run_store.py"],
    "optuna.storages.journal.BaseJournalBackend": ["orchestrator/search/optuna_file.py"],
    "optuna.storages.journal.JournalFileBackend": [
        "orchestrator/report/importance.py",
        "orchestrator/search/optuna_file.py",
        "orchestrator/simulation/written_sweep.py",
    ],
    "peft.tuners.adalora.AdaLoraLayer": ["methods/parts/adalora_budget.py"],
    "peft.tuners.adalora.RankAllocator": ["methods/parts/adalora_budget.py"],
    "peft.tuners.ln_tuning.layer.LNTuningLayer": ["methods/families/compose_combine.py", "methods/norm_tuning.py"],
    "peft.tuners.lora.Linear": ["methods/parts/dora_layer.py", "methods/parts/lora_layer.py"],
    "peft.tuners.lora.LoraLayer": ["methods/parts/low_rank.py", "methods/parts/low_rank_init.py"],
    "peft.tuners.lora.variants.DoraLinearVariant": ["methods/parts/dora_layer.py"],
    "peft.tuners.multitask_prompt_tuning.MultitaskPromptEmbedding": [
        "methods/multitask_prompt.py",
        "methods/parts/source_stage.py",
    ],
    "peft.tuners.tuners_utils.BaseTuner": ["methods/families/compose_combine.py", "methods/families/peft_type.py"],
    "peft.tuners.tuners_utils.BaseTunerLayer": ["methods/base/peft_adapter.py", "methods/families/compose.py"],
    "peft.utils.warning.PeftWarning": ["methods/parts/adalora_budget.py"],
    "ray.train.backend.Backend": ["orchestrator/lanes/backend.py", "orchestrator/lanes/ray_train.py"],
    "ray.train.backend.BackendConfig": [
        "orchestrator/lanes/backend.py",
        "orchestrator/lanes/group.py",
        "orchestrator/lanes/ray_train.py",
    ],
    "ray.train.torch.TorchConfig": ["orchestrator/lanes/group.py", "orchestrator/lanes/ray_train.py"],
    "ray.train.torch.TorchTrainer": ["orchestrator/lanes/ray_train.py"],
    "ray.train.v2.api.callback.RayTrainCallback": ["orchestrator/lanes/trainer.py"],
    "ray.train.v2.api.data_parallel_trainer.DataParallelTrainer": ["orchestrator/lanes/trainer.py"],
    "ray.tune.execution.tune_controller.TuneController": ["orchestrator/lanes/tune.py"],
    "ray.tune.experiment.Trial": ["orchestrator/lanes/tune.py"],
    "ray.tune.schedulers.FIFOScheduler": ["orchestrator/lanes/tune.py"],
    "ray.tune.schedulers.TrialScheduler": ["orchestrator/lanes/tune.py"],
    "ray.tune.search.Searcher": ["orchestrator/lanes/tune.py"],
    "ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy": [
        "orchestrator/lanes/broker.py",
        "orchestrator/lanes/gpus.py",
    ],
    "torch.utils.flop_counter.flop_registry": ["orchestrator/planning/estimates/cost_counter.py"],
    "transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES": ["orchestrator/backbone/shared.py"],
    "transformers.models.auto.modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES": ["orchestrator/backbone/shared.py"],
}


@pytest.mark.parametrize("name", NAMES)
def test_deep_import_exists(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    try:
        getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{', '.join(NAMES[name])} imports {name}, which is gone: {error}")


TABLE.update(Use(file, name) for name, files in NAMES.items() for file in files)
