"""Worker processes: a worker whose parent was killed ends, too."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """For a pool's initializer: without this, a worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
