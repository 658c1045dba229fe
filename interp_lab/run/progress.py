"""How far a run is: a bar on a terminal, a line every half minute elsewhere."""

import logging
import sys
import time
from types import TracebackType

from tqdm.auto import tqdm

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Counts finished and failed samples.

    Args:
        total: samples of the whole run.
        done: samples that an earlier run finished.
        position: line of the bar, for several workers on one terminal.
    """

    def __init__(self, total: int, done: int = 0, position: int = 0) -> None:
        self.total = total
        self.done = done
        self.failed = 0
        self._start = self._last = time.monotonic()
        self._done_before = done
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="sample",
            position=position,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def step(self, failed: bool = False) -> None:
        """Count one sample."""
        self.done += 1
        self.failed += failed
        self._bar.set_postfix(failed=self.failed, refresh=False)
        self._bar.update()
        if self._bar.disable and time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            log.info(self.line())

    def expect(self, more: int) -> None:
        """Expect so many samples more, or fewer: jobs take them from each other."""
        self.total += more
        self._bar.total = self.total

    def line(self) -> str:
        """Return count, rate and remaining time as text."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self._done_before) / seconds
        left = (self.total - self.done) / rate if rate else float("inf")
        return (
            f"{self.done} of {self.total} samples, {self.failed} failed, "
            f"{rate:.2f} a second, {left:.0f} s left"
        )
