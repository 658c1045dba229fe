"""What is assumed of joblib's inside (loky): what it does when a worker process dies.

It kills the other workers at once, because its queues may be broken. Ours write what became of them
into files and take over what the dead one has left, so they are given the time to end.
"""

import time
from collections.abc import Callable, Collection
from typing import Any

SECONDS_BETWEEN_LOOKS = 0.25


def let_workers_end(at_work: Callable[[Collection[int]], bool]) -> None:
    """After a worker's death, let joblib end the others only when they have nothing to do.

    Args:
        at_work: returns whether one of these processes still works; asked a few times a second.
    """
    from joblib.externals.loky import process_executor as module

    # `terminate_broken` is called once, in the executor's own thread, when a worker has died.
    manager: Any = module._ExecutorManagerThread
    at_once = getattr(manager.terminate_broken, "at_once", manager.terminate_broken)

    def patiently(self: Any, cause: BaseException) -> None:
        # A second Ctrl-C asks for the end of all (`kill_workers`).
        while not self.executor_flags.kill_workers:
            living = [pid for pid, process in list(self.processes.items()) if process.is_alive()]
            if not living or not at_work(living):
                break
            time.sleep(SECONDS_BETWEEN_LOOKS)
        at_once(self, cause)

    patiently.at_once = at_once  # type: ignore[attr-defined]
    manager.terminate_broken = patiently
