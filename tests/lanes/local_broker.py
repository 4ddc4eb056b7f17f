"""A broker without Ray: its calls run on an event loop, as those of its actor do, and return as plain calls."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

from orchestrator.lanes.broker import Broker


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return a running event loop, which all brokers share."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True, name="brokers").start()
    return loop


class LocalBroker:
    """A broker that any thread may call.

    Args:
        arguments: arguments of the broker.
    """

    def __init__(self, *arguments: Any) -> None:
        self._broker: Any = self.on_loop(lambda: Broker(*arguments))  # typed by Ray as an actor

    def on_loop(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a function or a coroutine function on the event loop, and return its result."""

        async def call() -> Any:
            result = function(*arguments, **named)
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(call(), _loop()).result()

    def expire(self, now: float) -> None:
        """Declare lanes dead that were silent at that time."""
        self.on_loop(lambda: self._broker._fail(self._broker._table.expire(now)))

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._broker, name)
        if not callable(value):
            return value
        return lambda *arguments, **named: self.on_loop(value, *arguments, **named)


class Direct:
    """A local broker with the interface of an actor handle, whose calls have returned when they are made."""

    def __init__(self, broker: LocalBroker) -> None:
        self._broker = broker

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self._broker, name))
