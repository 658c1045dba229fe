"""What every model has in common: device, dtype, where weights come from, what an input is."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from transformers.utils import logging

from interp_lab.datasets.base import Sample
from interp_lab.errors import (
    ConfigError,
    DeviceError,
    MissingInputError,
    UnsupportedModelError,
    did_you_mean,
)
from interp_lab.tokens import TokenMap

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
ZOO = "zoo:"


@dataclass(frozen=True)
class Seen:
    """One sample as the model gets it.

    Args:
        tokens: what every token is, without padding.
        pictures: the images after resizing and cropping, uint8 (height, width, 3).
        spectrogram: the sound after feature extraction, (mel, frame), without padding.
    """

    tokens: TokenMap
    pictures: tuple[np.ndarray, ...] = ()
    spectrogram: np.ndarray | None = None


@dataclass(frozen=True)
class Prepared:
    """A batch, ready for the model.

    Args:
        inputs: the forward's arguments, on the model's device.
        seen: what each sample of the batch looks like to the model.
    """

    inputs: dict[str, Any]
    seen: tuple[Seen, ...]


class LoadedModel(Protocol):
    """A model on its device, as the runner and the capture see it.

    Attributes:
        module: the unmodified network.
        device: where its inputs go.
        hookpoints: name -> module path of every named place that can be watched.
        notes: what a reader of the numbers must know, such as random weights.
    """

    module: torch.nn.Module
    device: torch.device
    hookpoints: Mapping[str, str]
    notes: list[str]

    def prepare(self, samples: Sequence[Sample]) -> Prepared:
        """Return the samples as one batch.

        Raises:
            SampleError: if a sample does not fit the model.
        """
        ...

    def run(self, prepared: Prepared) -> Sequence[Any]:
        """Run the model on a batch and return one output a sample."""
        ...

    def forward(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Run one forward and return what depends on all of the input: logits, or hidden states."""
        ...


@runtime_checkable
class AnsweringModel(LoadedModel, Protocol):
    """A model that answers in words.

    Attributes:
        n_layers: decoder layers of the language part.
        n_heads: query heads a layer.
    """

    n_layers: int
    n_heads: int

    def token_of(self, word: str) -> int:
        """Return the id of the token that the word is when it begins an answer."""
        ...


@dataclass(frozen=True)
class Weights:
    """Where a model's weights come from, as its YAML says.

    Args:
        checkpoint: hub id, local folder, or `zoo:<name>` for a model that is shipped.
        revision: branch, tag or commit on the hub.
        dtype: float32, float16 or bfloat16.
        init: `pretrained`, or `random` for the real architecture without any download.
        trust_remote_code: run code that the checkpoint brings.
        architecture: the configuration that `init: random` builds from.
    """

    checkpoint: str
    revision: str | None = None
    dtype: str = "float32"
    init: str = "pretrained"
    trust_remote_code: bool = False
    architecture: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            near = did_you_mean(self.dtype, DTYPES)
            raise ConfigError(f"model.dtype={self.dtype!r}: give one of {', '.join(DTYPES)}.{near}")
        if self.init not in ("pretrained", "random"):
            raise ConfigError(f"model.init={self.init!r}: give pretrained or random")

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch names it."""
        return DTYPES[self.dtype]

    def needed_architecture(self) -> dict[str, Any]:
        """Return the architecture.

        Raises:
            ConfigError: if the YAML has none.
        """
        if not self.architecture:
            raise ConfigError(
                "model.init=random needs model.architecture; this model's YAML has none"
            )
        return self.architecture

    def location(self) -> str:
        """Return what `from_pretrained` takes: a folder here, or a hub id.

        Raises:
            MissingInputError: if the checkpoint is written as a path and is not there.
        """
        if self.checkpoint.startswith(ZOO):
            from interp_lab.zoo import weights_path

            try:
                return str(weights_path(self.checkpoint.removeprefix(ZOO)))
            except ValueError as error:
                raise ConfigError(f"model.checkpoint={self.checkpoint}: {error}") from error
        path = Path(self.checkpoint).expanduser()
        looks_local = self.checkpoint.startswith((".", "/", "~")) or self.checkpoint.count("/") > 1
        if looks_local and not path.exists():
            raise MissingInputError(f"model.checkpoint={self.checkpoint}: no such folder")
        return str(path) if path.exists() else self.checkpoint

    def load(self, loader: Callable[..., Any], what: str, **options: Any) -> Any:
        """Call a `from_pretrained` on this checkpoint; a failure becomes one line.

        Args:
            loader: the class's `from_pretrained`.
            what: what is loaded, for the message ("model", "processor").
        """
        place = self.location()
        # What transformers would report of missing weights is checked by `refuse_partial` instead.
        logging.set_verbosity_error()
        if not sys.stderr.isatty():
            logging.disable_progress_bar()
        try:
            return loader(
                place,
                revision=self.revision or "main",
                trust_remote_code=self.trust_remote_code,
                **options,
            )
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
            offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
            raise MissingInputError(
                f"model.checkpoint={self.checkpoint}: cannot load the {what}; it is no folder here "
                f"and the hub{offline} does not give it, or it is damaged. Check the id and the "
                f"network, give a folder, or use model.init=random. Cause: {first}"
            ) from error


def without_memory(network: Any, config: Any, weights: Weights) -> torch.nn.Module:
    """Return a network whose weights have shapes and dtypes but no memory, for plans.

    Args:
        network: a transformers class.
        config: its configuration.
        weights: say the dtype.
    """
    with torch.device("meta"):
        return network._from_config(config, dtype=weights.torch_dtype)


def resolve_device(device: int | str | None) -> torch.device:
    """Return the torch device for `null | cpu | cuda | cuda:1 | 1`; null = best available.

    Raises:
        DeviceError: if it is not there; lists the devices there are.
    """
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is None:
        if cards:
            return torch.device("cuda:0")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    text = str(device).strip().lower()
    try:
        wanted = torch.device(f"cuda:{text}" if text.isdigit() else text)
    except RuntimeError:
        wanted = None
    there = ["cpu", *(f"cuda:{i}" for i in range(cards))]
    there += ["mps"] if torch.backends.mps.is_available() else []
    if wanted is not None and wanted.type == "cuda" and wanted.index is None and cards:
        wanted = torch.device("cuda:0")
    if wanted is None or str(wanted) not in there:
        named = f" ({wanted})" if wanted is not None and str(wanted) != text else ""
        raise DeviceError(
            f"device={device}{named}: not on this machine, which has {', '.join(there)}"
        )
    return wanted


def refuse_partial(info: Mapping[str, Any], checkpoint: str, ignored: Sequence[str] = ()) -> None:
    """Refuse a checkpoint that does not fill the model: a partial load gives wrong numbers.

    Args:
        info: transformers' loading info.
        ignored: prefixes of weights that the checkpoint may hold for parts that are not used.

    Raises:
        UnsupportedModelError: if weights are missing, left over or of the wrong shape.
    """
    missing = sorted(info.get("missing_keys", ()))
    extra = sorted(k for k in info.get("unexpected_keys", ()) if not k.startswith(tuple(ignored)))
    wrong = sorted(str(k) for k in info.get("mismatched_keys", ()))
    for problem, keys in (("lacks", missing), ("has unknown", extra), ("has misshapen", wrong)):
        if keys:
            more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
            raise UnsupportedModelError(
                f"model.checkpoint={checkpoint}: {problem} weights {', '.join(keys[:5])}{more}; "
                "this checkpoint is not of the family that its YAML names"
            )
