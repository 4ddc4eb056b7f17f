"""The ``models`` commands: registered models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import DEFAULT_TRACKING, AsJson, StorageOption, TrackingUri, app, print_json
from orchestrator.common.errors import InputError, Problem

models = typer.Typer(
    help="Browse, compare, download, promote and verify the models that sweeps registered in MLflow. "
    "NAME@champion is the best version so far, NAME@challenger the newest other one, NAME/3 is version 3.",
    no_args_is_help=True,
)
app.add_typer(models, name="models")
Reference = Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="A registered model: NAME@champion or NAME/3.")]
Other = Annotated[str, typer.Argument(metavar="OTHER", help="The registered model to compare with.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of a registered model, without a version.")]
Out = Annotated[Path | None, typer.Option(help="New folder to write; NAME-VERSION if left out.")]


@models.command("list")
def models_list(tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False) -> None:
    """List the registered models with versions and aliases."""
    from orchestrator.cli.output.models import print_models
    from orchestrator.tracking.browse import list_models

    rows = list_models(tracking_uri)
    print_json(rows) if as_json else print_models(rows)


@models.command("show")
def models_show(reference: Reference, tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False) -> None:
    """Show a registered model: score, backbone, hyperparameters, and how to load it."""
    from orchestrator.cli.output.models import print_model
    from orchestrator.tracking.browse import show_model

    model = show_model(reference, tracking_uri)
    print_json(model) if as_json else print_model(model)


@models.command("compare")
def models_compare(
    reference: Reference, other: Other, tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False
) -> None:
    """Show two registered models side by side, and whether one is significantly better."""
    from orchestrator.cli.output.models import print_comparison
    from orchestrator.tracking.browse import compare_models

    comparison = compare_models(reference, other, tracking_uri)
    print_json(comparison) if as_json else print_comparison(comparison)


@models.command("pull")
def models_pull(
    reference: Reference, out: Out = None, tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False
) -> None:
    """Download a registered adapter to a folder.

    An adapter of a peft method can be loaded with peft.PeftModel.from_pretrained. The command peft-sweep export does
    the same, also exports trials, and with --merged merges the adapter into the backbone.
    """
    if reference.count("/") > 1:
        message = f"is a trial; write NAME@champion or NAME/3, or: peft-sweep export {reference}"
        raise InputError("models pull", [Problem(reference, message)])
    from orchestrator.common.output_capture import no_library_noise

    with no_library_noise():
        from orchestrator.cli.output.export import print_exported
        from orchestrator.export import export

        exported = export(reference, merged=False, out=out, dtype=None, storage="sweeps", tracking_uri=tracking_uri)
    print_json(exported.to_dict()) if as_json else print_exported(exported)


@models.command("promote")
def models_promote(
    reference: Reference,
    force: Annotated[bool, typer.Option("--force", help="Promote it although its score is worse.")] = False,
    tracking_uri: TrackingUri = DEFAULT_TRACKING,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion regardless of the promotion policy; later versions must beat it.

    Both scores are shown. A version with a worse score than the champion's on the same data needs --force.
    """
    from orchestrator.cli.output.models import print_change
    from orchestrator.tracking.promotion import promote_model

    change = promote_model(reference, tracking_uri, force=force)
    print_json(change) if as_json else print_change(change)


@models.command("rollback")
def models_rollback(name: Name, tracking_uri: TrackingUri = DEFAULT_TRACKING, as_json: AsJson = False) -> None:
    """Make the previous champion the champion again; repeat the command to go further back."""
    from orchestrator.cli.output.models import print_change
    from orchestrator.tracking.promotion import rollback_model

    change = rollback_model(name, tracking_uri)
    print_json(change) if as_json else print_change(change)


@models.command("verify")
def models_verify(
    reference: Reference,
    storage: StorageOption = "sweeps",
    tracking_uri: TrackingUri = DEFAULT_TRACKING,
    as_json: AsJson = False,
) -> None:
    """Load a registered model in a fresh process, and compare all recorded test rows; exit code 1 if they differ.

    The rows are read from the sweep's data: a model carries their digests alone, unless its sweep had
    mlflow.keep_test_rows.
    """
    from orchestrator.cli.output.models import print_verification
    from orchestrator.sweep.recorded_rows import rows_in
    from orchestrator.tracking.verify import verify

    verification = verify(reference, tracking_uri, find_rows=rows_in(storage))
    print_json(verification.to_dict()) if as_json else print_verification(verification)
    if not verification.ok:
        raise typer.Exit(1)
