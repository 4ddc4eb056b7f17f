"""The table of what our source relies on beyond the public interface of libraries: each test enters its lines."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

from .scan import Use

P = ParamSpec("P")
TABLE: set[Use] = set()


def relied_on(*names: str, by: str | tuple[str, ...]) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Enter what a test is for into the table, and let its failure say which files of ours rely on that.

    Args:
        names: names as :mod:`tests.compat.scan` reports them.
        by: files of ours in which all of these names are used.
    """
    files = (by,) if isinstance(by, str) else by

    def enter(test: Callable[P, None]) -> Callable[P, None]:
        TABLE.update(Use(file, name) for file in files for name in names)

        @functools.wraps(test)
        def explained(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                test(*args, **kwargs)
            except Exception as error:
                message = f"{', '.join(files)} relies on {', '.join(names)}, which changed: {error}"
                raise AssertionError(message) from error

        return explained

    return enter


def parameters(function: Callable[..., Any]) -> str:
    """Return the names of a function's parameters, ``self, trial_id, *args``: what an override has to take."""
    marks: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    signature = inspect.signature(function)
    return ", ".join(marks.get(parameter.kind, "") + name for name, parameter in signature.parameters.items())
