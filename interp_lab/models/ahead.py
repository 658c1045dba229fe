"""A batch that is encoded in one thread, for the model that works in another.

The processor (tokenizer, pictures, sound) is host work, which the device need not wait for.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from interp_lab.datasets.base import Sample
from interp_lab.models.tokenmaps import Span

# Prompts with their roles, and what the processor gave for the batch.
Encoded = tuple[list[tuple[str, list[Span]]], Mapping[str, Any]]


class Ahead:
    """What one thread has made ready for another: at most two batches, known by their samples."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._kept: list[tuple[list[Sample], Encoded]] = []

    def keep(self, samples: Sequence[Sample], made: Encoded) -> None:
        """Keep what was made of these very samples; the oldest goes."""
        with self.lock:
            self._kept = [*self._kept[-1:], (list(samples), made)]

    def take(self, samples: Sequence[Sample]) -> Encoded | None:
        """Return what was made of these very samples, once; None if nothing was."""
        with self.lock:
            for place, (known, made) in enumerate(self._kept):
                same = len(known) == len(samples)
                if same and all(a is b for a, b in zip(known, samples, strict=True)):
                    del self._kept[place]
                    return made
        return None
