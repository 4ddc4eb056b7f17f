"""Set the aliases of a registered model as the promotion policy decides, while other processes may do the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.common.errors import InputError, Problem
from orchestrator.tracking.champion_line import describe_champion
from orchestrator.tracking.connection import is_missing, is_refusal
from orchestrator.tracking.promotion_policy import AliasHolders, Promotion, alias_holders
from orchestrator.tracking.versions import CHALLENGER, CHAMPION, aliases, promotion_tag, scored_versions

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_REFUSALS = 20
ALIASES = (CHAMPION, CHALLENGER)


def apply_promotion_policy(client: MlflowClient, name: str) -> AliasHolders | None:
    """Set the aliases of a model as the promotion policy decides.

    MLflow has no compare-and-swap for aliases. Therefore every process that registers or promotes sets the aliases that
    follow from all versions, and reads everything again until nothing has changed meanwhile: the process that sets last
    has read all versions after that.

    Returns:
        The holders of the aliases; ``None`` where there are no versions.
    """
    refusals = 0
    while True:
        holders, present = alias_holders(scored_versions(client, name)), aliases(client, name)
        target = {CHAMPION: holders.champion, CHALLENGER: holders.challenger} if holders else dict.fromkeys(ALIASES)
        wrong = {alias: version for alias, version in target.items() if present.get(alias) != version}
        if not wrong:
            # Read once more after the description was written too, as after an alias.
            if not describe_champion(client, name, holders.champion if holders else None):
                return holders
            continue
        refusals += not _set(client, name, wrong, last=refusals == MAX_REFUSALS)


def promote(client: MlflowClient, name: str, version: int, *, back: bool = False) -> AliasHolders:
    """Make a version the champion, whatever its score; later versions must beat it.

    The promotion is recorded on the version, so that every process that applies the policy gets the same champion.
    Promoting the champion changes nothing.

    Args:
        client: client of the registry.
        name: name of the model.
        version: version to promote.
        back: whether it is a rollback to an earlier champion.

    Returns:
        The holders of the aliases; with another champion if another version was promoted at the same moment.
    """
    versions = scored_versions(client, name)
    before = alias_holders(versions)
    if before is None or before.champion != version:
        number = 1 + max((promotion.number for v in versions for promotion in v.promotions), default=0)
        newest = max((v.version for v in versions), default=version)
        client.set_model_version_tag(name, str(version), *promotion_tag(Promotion(number, newest, back)))
    holders = apply_promotion_policy(client, name)
    assert holders is not None
    return holders


def rollback(client: MlflowClient, name: str) -> tuple[int, AliasHolders]:
    """Make the previous champion the champion again.

    Returns:
        The champion until now, and the holders of the aliases after.

    Raises:
        InputError: if there is no previous champion.
    """
    before = alias_holders(scored_versions(client, name))
    if before is None or before.previous is None:
        hint = f"promote another version: peft-sweep models promote {name}/VERSION"
        raise InputError(name, [Problem("", "no other version was champion before this one")], hint)
    return before.champion, promote(client, name, before.previous, back=True)


def _set(client: MlflowClient, name: str, target: Mapping[str, int | None], *, last: bool) -> bool:
    """Point aliases to versions, or delete them; return whether MLflow accepted it.

    Two processes that set an alias for the first time at the same moment both see none and both insert it: the
    database refuses the second, which only has to read again.
    """
    from mlflow.exceptions import MlflowException

    try:
        for alias, version in target.items():
            if version is None:
                client.delete_registered_model_alias(name, alias)
            else:
                client.set_registered_model_alias(name, alias, str(version))
    except MlflowException as error:
        if last or not (is_refusal(error) or is_missing(error)):
            raise
        return False
    return True
