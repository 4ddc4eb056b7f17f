"""What a trial's process holds, without Ray."""

import weakref

from orchestrator.lanes.proxy import TrialProxy, Work


class Handle:
    """In place of the broker's handle."""


def test_cleanup_releases_the_handle_of_the_broker() -> None:
    handle = Handle()
    alive = weakref.ref(handle)
    proxy = TrialProxy.__new__(TrialProxy)
    proxy.setup(
        {"study": "mail/lora", "number": 0, "params": {}, "seed": 1, "start": 0}, Work(handle, (1, 2), {"mail": "loss"})
    )
    del handle
    assert alive()
    proxy.cleanup()
    assert not alive()
