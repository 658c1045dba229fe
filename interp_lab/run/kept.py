"""Models that stay loaded from job to job of a sweep, and the accelerators that they lie on.

An accelerator is locked as long as a model lies on it: two jobs never share its memory. A process
that keeps a model between two jobs gives it up as soon as another process waits for the device.
"""

import gc
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from interp_lab.store.locks import SECONDS_BETWEEN_TRIES, DeviceLock

log = logging.getLogger(__name__)
T = TypeVar("T")


def accelerators(
    device: torch.device,
    device_map: str | Mapping[str, Any] | None = None,
    max_memory: Mapping[int | str, Any] | None = None,
) -> list[str]:
    """Return names of the accelerators that a model uses, the same in every process of the host.

    Args:
        device: of the model, without a device_map.
        device_map: accelerate's: devices by module, or a word that means all that are visible.
        max_memory: what such a word may use; a card that it does not name is left alone.
    """
    if device.type == "mps":
        return ["mps"]
    return sorted({_cuda_name(n) for n in _cards(device, device_map, max_memory)})


def _cards(
    device: torch.device,
    device_map: str | Mapping[str, Any] | None,
    max_memory: Mapping[int | str, Any] | None,
) -> set[int]:
    """Return the numbers of the cards that a model lies on, and of no other."""
    if not device_map:
        return {device.index or 0} if device.type == "cuda" else set()
    if isinstance(device_map, str):
        try:
            device_map = {"": torch.device(device_map)}
        except RuntimeError:  # `auto`, `balanced` and the like
            cards = range(torch.cuda.device_count())
            device_map = {str(n): n for n in max_memory or cards}
    named = [n for n in device_map.values() if n != "disk"]
    # A number alone is a card, as accelerate reads it.
    found = [torch.device(f"cuda:{n}" if str(n).isdigit() else str(n)) for n in named]
    return {place.index or 0 for place in found if place.type == "cuda"}


def _cuda_name(number: int) -> str:
    """Name a card by its own identity; `cuda:0` is another one in every Slurm job."""
    uuid = getattr(torch.cuda.get_device_properties(number), "uuid", None)
    return f"cuda {uuid}" if uuid else f"cuda {visible_card(number, os.environ)}"


def visible_card(number: int, environment: Mapping[str, str]) -> str:
    """Return what CUDA_VISIBLE_DEVICES calls a card: its number on the host, or its UUID."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[number].strip() if visible else str(number)


class KeptModels:
    """The models of this process.

    Args:
        lock: makes the lock of an accelerator of this name.
    """

    def __init__(self, lock: Callable[[str], DeviceLock] = DeviceLock) -> None:
        self._make = lock
        self._models: dict[str, tuple[Any, list[str]]] = {}
        self._locks: dict[str, DeviceLock] = {}
        self._busy: set[str] = set()
        self._mutex = threading.Lock()
        self._watcher: threading.Thread | None = None

    def use(
        self,
        identity: Mapping[str, Any],
        names: list[str],
        load: Callable[[], Any],
        work: Callable[[Any], T],
        keep: int,
    ) -> T:
        """Do the work with a model, loaded before or now.

        Args:
            identity: everything that makes the model what it is.
            names: the accelerators that it lies on; all of them are locked while it works.
            load: loads it.
            work: gets it; must leave it as it is. After an exception it is loaded again.
            keep: models that this process keeps for later jobs; the oldest goes first, and before
                another one is loaded.
        """
        key = json.dumps(identity, sort_keys=True, default=str)
        try:
            self._take(names)
            model = self._of(key, keep)
            model = load() if model is None else model
            done = work(model)
            if keep:
                with self._mutex:
                    self._models[key] = (model, names)
            return done
        finally:
            model = None
            self._end(names)

    def _take(self, names: list[str]) -> None:
        with self._mutex:
            held = [name for name in names if name in self._locks and self._locks[name].held]
            if len(held) < len(names):
                # Who holds one card and waits for another could wait for ever: all or none.
                for name in held:
                    self._release(name)
            self._busy.update(names)
        # In one order in all processes, so that none waits for another that waits for it.
        for name in sorted(names):
            lock = self._locks.setdefault(name, self._make(name))
            if not lock.held:
                lock.wait()

    def _of(self, key: str, keep: int) -> Any:
        """Return the model, if it is kept; else make room for it."""
        with self._mutex:
            if key in self._models:
                log.info("using the model of the job before")
                return self._models.pop(key)[0]
            while self._models and len(self._models) >= max(keep, 1):
                self._drop(next(iter(self._models)))
        return None

    def _end(self, names: list[str]) -> None:
        with self._mutex:
            self._busy.difference_update(names)
            self._release_unused()
            watching = self._watcher is not None and self._watcher.is_alive()
            if any(lock.held for lock in self._locks.values()) and not watching:
                self._watcher = threading.Thread(target=self._watch, daemon=True, name="devices")
                self._watcher.start()

    def _watch(self) -> None:
        """Give up devices that others wait for, as long as there are any between two jobs."""
        while True:
            time.sleep(SECONDS_BETWEEN_TRIES)
            with self._mutex:
                self._release_unused()
                if not any(lock.held for lock in self._locks.values()):
                    self._watcher = None
                    return

    def _release_unused(self) -> None:
        for name, lock in self._locks.items():
            used = any(name in names for _, names in self._models.values())
            if lock.held and name not in self._busy and (lock.wanted() or not used):
                self._release(name)

    def _release(self, name: str) -> None:
        for key in [key for key, (_, names) in self._models.items() if name in names]:
            self._drop(key)
        self._locks[name].release()

    def _drop(self, key: str) -> None:
        del self._models[key]
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


KEPT = KeptModels()
