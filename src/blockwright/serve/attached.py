"""An attached device as a process: told of when it is ready, looked after, detached on a signal.

Knows: the order of things, and what signals mean. Refuses to know: how a device is attached.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Final

from blockwright.attach.nbd import Attached
from blockwright.errors import BlockwrightError
from blockwright.serve.notify import notify_ready, notify_stopping
from blockwright.serve.process import ENDED, Signals, pid_file
from blockwright.system.linux.log import Logger

INTERRUPTED: Final = 130
"""What ``hold`` returns when a second signal ended it before the device was free."""
_HANGUP: Final = getattr(signal, "SIGHUP", -1)
_AGAIN_S: Final = 0.2
_PATIENCE_S: Final = 2.0


def hold(attach: Callable[[], Attached], *, pid_path: str | None, tell: Callable[[str], None], logger: Logger) -> int:
    """Attach, and hold the device until it is detached, by a signal or by anybody; return the exit code.

    ``tell`` gets its path when it can be read. SIGTERM and SIGINT detach it when nobody uses it any more; a second
    one ends the process without that, and leaves the device as it is. SIGHUP has its size follow the server's.
    Raises what ``attach`` raises, and OSError for the pid file; nothing is left attached then.
    """
    with pid_file(pid_path):
        attached = attach()
        try:
            with Signals() as signals:
                attached.when_ended(signals.end)
                tell(attached.path)
                notify_ready(f"attached as {attached.path}")
                return _obey(attached, signals, logger)
        except BaseException:
            attached.detach()
            raise


def _obey(attached: Attached, signals: Signals, logger: Logger) -> int:
    stopping = False
    while (number := signals.wait()) != ENDED:
        if number == _HANGUP:
            _refresh(attached, logger)
        elif stopping:
            logger.warning("%s: is left attached", attached.path)
            return INTERRUPTED
        else:
            stopping = True
            notify_stopping()
            threading.Thread(target=_detach, args=(attached, logger), name="nbd: detach", daemon=True).start()
    logger.info("%s: is detached", attached.path)
    attached.detach()  # whoever did it, there is nothing on record any more
    return 0


def _refresh(attached: Attached, logger: Logger) -> None:
    try:
        attached.refresh()
    except (BlockwrightError, OSError) as error:
        logger.warning("%s: its size stays: %s", attached.path, error)


def _detach(attached: Attached, logger: Logger) -> None:
    """Try until nobody uses the device; what it waits for is told once."""
    told = ""
    while not attached.wait(0):
        try:
            attached.detach(timeout_s=_PATIENCE_S)
        except (BlockwrightError, OSError) as error:
            if str(error) != told:
                told = str(error)
                logger.warning("%s; it is detached when that is over, and left as it is by another signal", told)
            time.sleep(_AGAIN_S)
