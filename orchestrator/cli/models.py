"""``models``: the registry."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.app import DEFAULT_TRACKING, AsJson, TrackingUri, app, print_json

models = typer.Typer(help="Browse and check the models that sweeps registered in MLflow.", no_args_is_help=True)
app.add_typer(models, name="models")
Reference = Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="A registered model: NAME@champion or NAME/3.")]


@models.command("list")
def models_list(tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False) -> None:
    """List the registered models with their versions and aliases."""
    from orchestrator.tracking.registry import list_models
    from orchestrator.views.models import print_models

    found = list_models(tracking_uri)
    print_json(found) if as_json else print_models(found)


@models.command("show")
def models_show(reference: Reference, tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False) -> None:
    """Show one registered model: its score, its backbone, its hyperparameters, how to load it."""
    from orchestrator.tracking.registry import show_model
    from orchestrator.views.models import print_model

    found = show_model(reference, tracking_uri)
    print_json(found) if as_json else print_model(found)


@models.command("verify")
def models_verify(reference: Reference, tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False) -> None:
    """Load a registered model in a fresh process and compare every recorded test row; exit 0 only if they agree."""
    from orchestrator.tracking.verify import verify
    from orchestrator.views.models import print_verification

    found = verify(reference, tracking_uri)
    print_json(found.to_dict()) if as_json else print_verification(found)
    if not found.ok:
        raise typer.Exit(1)
