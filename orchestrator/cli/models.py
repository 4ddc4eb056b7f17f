"""``models``: the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import DEFAULT_TRACKING, AsJson, TrackingUri, app, print_json
from orchestrator.common.errors import InputError, Problem

models = typer.Typer(
    help="Browse, compare, fetch, promote and check the models that sweeps registered in MLflow. "
    "NAME@champion is the best so far, NAME@challenger the newest beside it, NAME/3 a version.",
    no_args_is_help=True,
)
app.add_typer(models, name="models")
Reference = Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="A registered model: NAME@champion or NAME/3.")]
Other = Annotated[str, typer.Argument(metavar="OTHER", help="The one to compare with.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A registered model's name, without a version.")]
Out = Annotated[Path | None, typer.Option(help="New folder to write; NAME-VERSION if left out.")]


@models.command("list")
def models_list(tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False) -> None:
    """List the registered models with their versions and aliases."""
    from orchestrator.cli.output.models import print_models
    from orchestrator.tracking.browse import list_models

    found = list_models(tracking_uri)
    print_json(found) if as_json else print_models(found)


@models.command("show")
def models_show(reference: Reference, tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False) -> None:
    """Show one registered model: its score, its backbone, its hyperparameters, how to load it."""
    from orchestrator.cli.output.models import print_model
    from orchestrator.tracking.browse import show_model

    found = show_model(reference, tracking_uri)
    print_json(found) if as_json else print_model(found)


@models.command("compare")
def models_compare(
    reference: Reference, other: Other, tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False
) -> None:
    """Show two registered models side by side, and whether one is better beyond doubt."""
    from orchestrator.cli.output.models import print_comparison
    from orchestrator.tracking.browse import compare_models

    found = compare_models(reference, other, tracking_uri)
    print_json(found) if as_json else print_comparison(found)


@models.command("pull")
def models_pull(
    reference: Reference, out: Out = None, tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False
) -> None:
    """Write a registered adapter into a folder; peft.PeftModel.from_pretrained loads it where the method is peft's.

    The same as peft-sweep export, which also exports trials, and with --merged folds the adapter into the backbone.
    """
    if reference.count("/") > 1:
        mend = f"is a trial; write NAME@champion or NAME/3, or: peft-sweep export {reference}"
        raise InputError("models pull", [Problem(reference, mend)])
    from orchestrator.common.output_capture import no_library_noise

    with no_library_noise():
        from orchestrator.cli.output.export import print_exported
        from orchestrator.export import export

        made = export(reference, merged=False, out=out, dtype=None, storage="sweeps", tracking_uri=tracking_uri)
    print_json(made.to_dict()) if as_json else print_exported(made)


@models.command("promote")
def models_promote(reference: Reference, tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False) -> None:
    """Make a version the champion, whatever the gate said; versions that come later must beat it."""
    from orchestrator.cli.output.models import print_change
    from orchestrator.tracking.promotion import promote_model

    found = promote_model(reference, tracking_uri)
    print_json(found) if as_json else print_change(found)


@models.command("rollback")
def models_rollback(name: Name, tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False) -> None:
    """Give the title back to the version that was champion before; again to go further back."""
    from orchestrator.cli.output.models import print_change
    from orchestrator.tracking.promotion import rollback_model

    found = rollback_model(name, tracking_uri)
    print_json(found) if as_json else print_change(found)


@models.command("verify")
def models_verify(reference: Reference, tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False) -> None:
    """Load a registered model in a fresh process and compare every recorded test row; exit 0 only if they agree."""
    from orchestrator.cli.output.models import print_verification
    from orchestrator.tracking.verify import verify

    found = verify(reference, tracking_uri)
    print_json(found.to_dict()) if as_json else print_verification(found)
    if not found.ok:
        raise typer.Exit(1)
