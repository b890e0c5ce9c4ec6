"""For tests that send Ctrl-C to a process of their own."""

from __future__ import annotations

import signal


def heed_ctrl_c() -> None:
    """Whoever runs the tests in the background may have told their children to ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
