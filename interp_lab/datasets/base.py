"""The contract of a data set: named samples, loaded one by one, each able to fail alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from interp_lab.datasets.ondisk import spelling
from interp_lab.errors import ConfigError, MissingInputError, SampleError, did_you_mean


@dataclass(frozen=True)
class Sample:
    """One measurement: what goes into the model, and what is known about it.

    Args:
        id: unique in its data set and stable from run to run.
        parts: the input in order: ("text", str), ("image", index) or ("audio", index).
        images: RGB pictures, upright.
        audio: mono waveforms with their sampling rates in Hz.
        answer: what the data set says is right, if it says so.
        facts: whatever else an analysis of this format needs, by name.
        system: the system turn before it; None = what the checkpoint's chat template puts there.
    """

    id: str
    parts: tuple[tuple[str, Any], ...] = ()
    images: tuple[Image.Image, ...] = ()
    audio: tuple[tuple[np.ndarray, int], ...] = ()
    answer: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    system: str | None = None


@dataclass(frozen=True)
class MadeOf:
    """What a sample is made of, as far as the configuration does not say it.

    Args:
        record: what the annotations say of it; anything that JSON can hold.
        files: what is read beside that: pictures, sounds, features.
    """

    record: Any = None
    files: tuple[Path, ...] = ()


class Dataset(Protocol):
    """What the runner needs of a data set.

    It may state, as attributes, what its samples are (`run.fit` holds the other parts to it):
    `gives`, the kinds of input (text, image, audio, video), and `knows`, the facts of every sample.
    A class whose options change what it gives lists the other sets of kinds as `or_gives`.
    It may also state its `prompts`: name -> full text, its placeholders and the system part that
    goes before it included. They are stored with the result; see `stated_prompts`.

    The constructor reads the index only and raises `MissingInputError` or `ConfigError` for what
    the configuration got wrong, so that nothing of that kind is found after a model is loaded.

    It may say how long its samples are, without loading them: `lengths()`, one number a sample or
    None, which need only grow with the tokens. Samples of like length then share a batch.

    A data set that asks in a format of its own (`datasets.conversations`) names it, as its
    `conversation`.
    """

    def ids(self) -> Sequence[str]:
        """Return every sample's id in the data set's order; all differ."""
        ...

    def counts(self) -> Mapping[str, int]:
        """Return what was left out before the first sample, by reason; stored with the result."""
        ...

    def made_of(self, index: int) -> MadeOf:
        """Return what a sample is made of, without reading its files; never raises.

        It is what tells a sample that was measured before from one that has changed since. A data
        set that lacks this method has every sample loaded again for that.
        """
        ...

    def load(self, index: int) -> Sample:
        """Return one sample.

        Raises:
            SampleError: if this record cannot be used; the run goes on without it.
        """
        ...


def stated_prompts(dataset: Any) -> dict[str, str]:
    """Return the prompts that a data set states; none if it states none.

    Raises:
        ConfigError: if `prompts` is not name -> text.
    """
    stated = getattr(dataset, "prompts", {})
    texts = isinstance(stated, Mapping) and [t for item in stated.items() for t in item]
    if texts is False or not all(isinstance(text, str) for text in texts):
        raise ConfigError(
            f"dataset: prompts of {type(dataset).__name__} should be name -> full text, is "
            f"{stated!r:.60}"
        )
    return dict(stated)


def existing_path(key: str, path: str | Path) -> Path:
    """Return `path` as an absolute path.

    Raises:
        MissingInputError: if it is not there; names the configuration key.
    """
    if not str(path).strip():
        raise MissingInputError(f"{key}=: is empty; give a path")
    absolute = Path(path).expanduser().absolute()
    try:
        absolute = spelling(Path(absolute.anchor), str(absolute.relative_to(absolute.anchor)))
        there = absolute.exists()
    except SampleError as error:
        raise MissingInputError(f"{key}={path}: {error}") from error
    except (OSError, ValueError) as error:  # longer than a name can be; a null character
        reason = getattr(error, "strerror", None) or error
        raise MissingInputError(f"{key}={str(path)!r:.80}: no such path ({reason})") from error
    if not there:
        parent = absolute.parent
        near = (
            did_you_mean(absolute.name, [p.name for p in parent.iterdir()])
            if (parent.is_dir())
            else f" The folder {parent} is not there either."
        )
        raise MissingInputError(f"{key}={path}: no such file or folder ({absolute}).{near}")
    return absolute
