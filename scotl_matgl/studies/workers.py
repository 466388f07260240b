"""Worker processes of studies: they end with the run that started them, and leave interrupts to it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

# Seconds between two looks whether the parent lives.
_PAUSE = 0.5

_WATCH = "scotl_matgl: ends with its parent"


def end_with_parent() -> None:
    """In a worker process of joblib, see to it that it ends when its parent does; elsewhere, do nothing.

    A killed parent would leave its workers at work for minutes. An interrupt from the keyboard reaches workers too,
    whose tracebacks nobody asked for: they leave it to the parent, which ends them.
    """
    parent = multiprocessing.parent_process()
    if parent is None or not multiprocessing.current_process().name.startswith("LokyProcess"):
        return
    if any(thread.name == _WATCH for thread in threading.enumerate()):
        return
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        # The pid of the process that started this one, not the pid of now: the parent may be gone already.
        while os.getppid() == parent.pid:
            time.sleep(_PAUSE)
        os._exit(1)

    threading.Thread(target=watch, name=_WATCH, daemon=True).start()
