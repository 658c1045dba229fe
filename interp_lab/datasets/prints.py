"""Fingerprints of samples: whether what was measured then is what would be measured now."""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from interp_lab.datasets.base import Dataset, MadeOf, Sample
from interp_lab.errors import InterpLabError, SampleError
from interp_lab.identity.files import Digests, Stamp, hash_of, stamp_of

log = logging.getLogger(__name__)


class SamplePrints:
    """Fingerprints of a data set's samples.

    A fingerprint is a hash of the sample's record and of the bytes of its files, not of their
    names: a sample is known by its id. A data set that does not say what its samples are made of
    has each of them loaded, and its fingerprint is a hash of what came.

    Args:
        dataset: of the samples.
        digests: what is known of their files.
    """

    def __init__(self, dataset: Dataset, digests: Digests) -> None:
        self.digests = digests
        self._dataset = dataset
        self.says = callable(getattr(dataset, "made_of", None))
        self._loaded: dict[int, str] = {}

    def of(self, index: int) -> str:
        """Return the fingerprint of the sample at this place; never raises for a bad sample."""
        if not self.says:
            if not self._loaded:
                log.info(
                    "%s has no made_of: to see what has changed, its samples are loaded again",
                    type(self._dataset).__name__,
                )
            if index not in self._loaded:
                self.take_loaded(index, loaded(self._dataset, index))
            return self._loaded[index]
        made_of = self._dataset.made_of(index)
        files = [self.digests.of(path) for path in made_of.files]
        return hash_of(_text(made_of.record), *files)

    def take_loaded(self, index: int, sample: Sample | Exception) -> str:
        """Take the fingerprint of a sample that was loaded, for a data set that does not say."""
        self._loaded[index] = print_of_loaded(sample)
        return self._loaded[index]

    def stamps(self, index: int) -> list[Stamp | None]:
        """Return what the file system says of the sample's files."""
        return [stamp_of(path) for path in self.files(index)]

    def files(self, index: int) -> tuple[Path, ...]:
        """Return the sample's files; none if the data set does not say."""
        return self._dataset.made_of(index).files if self.says else ()


def loaded(dataset: Dataset, index: int) -> Sample | Exception:
    """Return a sample, or what loading it raised; a decoder's error names the files."""
    try:
        return dataset.load(index)
    except InterpLabError as error:
        return error
    except Exception as error:  # a decoder can raise anything; it is this sample's failure
        return _unreadable(dataset, index, error)


def _unreadable(dataset: Dataset, index: int, error: Exception) -> SampleError:
    """Return what a decoder raised as one line that names the files it was given."""
    made_of = getattr(dataset, "made_of", None)
    made: MadeOf | None = made_of(index) if callable(made_of) else None  # type: ignore[assignment]
    files = () if made is None else made.files
    named = ", ".join(str(path) for path in files[:3]) + (", ..." if len(files) > 3 else "")
    why = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    log.debug("sample at place %d", index, exc_info=error)
    problem = SampleError(
        f"{named or 'its record'}: cannot be read ({why}); save it again in a common format"
    )
    problem.__cause__ = error
    return problem


def loaded_with_print(
    dataset: Dataset, prints: SamplePrints, index: int
) -> tuple[Sample | Exception, str]:
    """Return a sample, or what loading it raised, and the fingerprint of what it is made of.

    Its files are looked at before and after: a sample that changes in between fails.
    """
    if not prints.says:
        sample = loaded(dataset, index)
        return sample, prints.take_loaded(index, sample)
    before, printed = prints.stamps(index), prints.of(index)
    sample = loaded(dataset, index)
    if prints.stamps(index) != before:
        sample = SampleError("a file of it changed while it was read; run the same command again")
    return sample, printed


def print_of_loaded(sample: Sample | Exception) -> str:
    """Return the fingerprint of a sample by what was loaded."""
    if isinstance(sample, Exception):  # what fails in the same way again has not changed
        return hash_of("failed", type(sample).__name__, str(sample))
    return hash_of(_text(sample))


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=_plain, ensure_ascii=True)


def _plain(value: Any) -> Any:
    """Return what stands for a value that JSON cannot hold: arrays and pictures by their bytes."""
    if isinstance(value, Image.Image):
        return [value.mode, list(value.size), hash_of(value.tobytes())]
    if isinstance(value, np.ndarray):
        return [str(value.dtype), list(value.shape), hash_of(np.ascontiguousarray(value).tobytes())]
    if isinstance(value, np.generic):
        return value.item()
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, Mapping):
        return dict(value)
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # an address says nothing of the object
