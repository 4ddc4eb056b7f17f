"""Who is champion in the registry: what the gate says of all versions, set and read again until it holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from orchestrator.common.errors import InputError, Problem
from orchestrator.tracking.connection import is_missing, is_refusal
from orchestrator.tracking.promotion_policy import Promotion, Titles, titles
from orchestrator.tracking.versions import CHALLENGER, CHAMPION, aliases, candidates, promotion_tag

if TYPE_CHECKING:
    from mlflow import MlflowClient

PATIENCE = 20
ALIASES = (CHAMPION, CHALLENGER)


def apply_promotion_policy(client: MlflowClient, name: str) -> Titles | None:
    """Give the aliases to whom they belong.

    There is no compare-and-swap for aliases. So everyone who registers or promotes sets what follows from all versions,
    and reads again until nothing has changed meanwhile: whoever sets last has read everything after it.

    Returns:
        Who holds them; nothing where there are no versions.
    """
    refusals = 0
    while True:
        found, held = titles(candidates(client, name)), aliases(client, name)
        wanted = {CHAMPION: found.champion, CHALLENGER: found.challenger} if found else dict.fromkeys(ALIASES)
        wrong = {alias: version for alias, version in wanted.items() if held.get(alias) != version}
        if not wrong:
            return found
        refusals += not _set(client, name, wrong, last=refusals == PATIENCE)


def promote(client: MlflowClient, name: str, version: int, *, back: bool = False) -> Titles:
    """Make a version the champion, whatever the gate says; later versions must beat it then.

    It is recorded on the version, so that all who fold the gate come to it. Doing it again changes nothing.

    Args:
        client: of the registry.
        name: of the model.
        version: that is promoted.
        back: it is a return to who held the title before.

    Returns:
        Who holds the titles now; another champion if someone was promoted at the same moment.
    """
    known = candidates(client, name)
    now = titles(known)
    if now is None or now.champion != version:
        number = 1 + max((one.number for c in known for one in c.promotions), default=0)
        newest = max((c.version for c in known), default=version)
        client.set_model_version_tag(name, str(version), *promotion_tag(Promotion(number, newest, back)))
    found = apply_promotion_policy(client, name)
    assert found is not None
    return found


def rollback(client: MlflowClient, name: str) -> tuple[int, Titles]:
    """Give the title back to who held it before.

    Returns:
        Who had it until now, and who holds the titles after.

    Raises:
        InputError: if nobody held it before.
    """
    now = titles(candidates(client, name))
    if now is None or now.before is None:
        mend = f"promote another version: peft-sweep models promote {name}/VERSION"
        raise InputError(name, [Problem("", "no other version was champion before this one")], mend)
    return now.champion, promote(client, name, now.before, back=True)


def _set(client: MlflowClient, name: str, wanted: Mapping[str, int | None], *, last: bool) -> bool:
    """Point aliases to versions, or to nothing; whether that was taken.

    Two who set an alias for the first time in the same moment both find none and both insert it: the database refuses
    the second, who has only to read again.
    """
    from mlflow.exceptions import MlflowException

    try:
        for alias, version in wanted.items():
            if version is None:
                client.delete_registered_model_alias(name, alias)
            else:
                client.set_registered_model_alias(name, alias, str(version))
    except MlflowException as error:
        if last or not (is_refusal(error) or is_missing(error)):
            raise
        return False
    return True
