"""What every model has in common: device, dtype, where weights come from, what an input is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from interp_lab.datasets.base import Sample
from interp_lab.errors import (
    ConfigError,
    DeviceError,
    did_you_mean,
)
from interp_lab.tokens import TokenMap

# Behind a module's path among `hookpoints`: what the module gets, and not what it puts out.
INPUT_OF = ":input"


@dataclass(frozen=True)
class Seen:
    """One sample as the model gets it.

    Args:
        tokens: what every token is, without padding.
        pictures: the images after resizing and cropping, uint8 (height, width, 3).
        spectrogram: the sound after feature extraction, (mel, frame), without padding.
        sizes: (width, height) in pixels that each picture has for the model; what it writes in
            pixels refers to them.
        shares: of each picture's area, the share that the model sees: 1 where nothing is cropped.
            Empty where it is not known.
    """

    tokens: TokenMap
    pictures: tuple[np.ndarray, ...] = ()
    spectrogram: np.ndarray | None = None
    sizes: tuple[tuple[int, int], ...] = ()
    shares: tuple[float, ...] = ()


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

    Its class may state, before it is loaded, the kinds of input that it `reads` and those that it
    `needs` (text, image, audio, video), what it `lacks` (see `models.lacks`), and the
    `conversations` that it can be asked in. A static `examine(values)` tells `mode=doctor` what
    a checkpoint is, without a run: name, state (ok, note, warning, failure) and a line, each.

    Attributes:
        module: the unmodified network.
        device: where its inputs go.
        hookpoints: name -> module path of every named place that can be watched; with `INPUT_OF`
            behind it, what the module gets.
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
        reading_tower: the tower whose tokens are the prompt's: "language", or "encoder" where a
            decoder answers by cross attention.

    A model that writes places in pictures says in which unit, as `coordinates`: thousandths of a
    picture, pixels of `Seen.sizes`, or shares. Without it no point is read from its answers.
    """

    n_layers: int
    n_heads: int
    reading_tower: str

    def token_of(self, word: str) -> int:
        """Return the id of the token that the word is when it begins an answer."""
        ...


@dataclass(frozen=True)
class GateHooks:
    """Where the gates of one kind are.

    Args:
        hookpoints: patterns of the modules that put them out, as in `capture.gates.matching`;
            layers are counted in the network's order.
        nonlinearity: "tanh" or "sigmoid" if the modules put out the logit, None if the gate.
    """

    hookpoints: tuple[str, ...]
    nonlinearity: str | None = None


@runtime_checkable
class GatedModel(LoadedModel, Protocol):
    """A model whose gates can be watched and changed.

    Attributes:
        gates: kind ("attention", "ffn") -> where its gates are.
        audio_gates: the kinds through which audio enters; at 0 its content is gone.
    """

    gates: Mapping[str, GateHooks]
    audio_gates: tuple[str, ...]


def gate_hooks(gates: Mapping[str, Any], audio_gates: Sequence[str]) -> dict[str, GateHooks]:
    """Return the gates that a model's YAML names.

    Args:
        gates: kind -> {"hookpoints": patterns, "nonlinearity": name or null}.
        audio_gates: kinds.

    Raises:
        ConfigError: if a kind has other keys or no hookpoints, or an audio gate is no kind.
    """
    found: dict[str, GateHooks] = {}
    for kind, values in gates.items():
        hookpoints = values.get("hookpoints") if isinstance(values, Mapping) else None
        if not hookpoints or set(values) - {"hookpoints", "nonlinearity"}:
            raise ConfigError(
                f"model.gates.{kind}: give hookpoints (patterns of module paths) and nonlinearity "
                "(tanh, sigmoid or null)"
            )
        patterns = [hookpoints] if isinstance(hookpoints, str) else hookpoints
        found[kind] = GateHooks(tuple(patterns), values.get("nonlinearity"))
    unknown = [kind for kind in audio_gates if kind not in found]
    if unknown:
        near = did_you_mean(unknown[0], found)
        raise ConfigError(f"model.audio_gates: no gates {unknown[0]!r} in model.gates.{near}")
    return found


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


def sent(value: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor of the host on a device, numbers that are not whole in `dtype`.

    To a card it goes from pinned memory, so that the host does not wait for the card's work.
    """
    value = value.to(dtype) if value.is_floating_point() else value
    if device.type != "cuda" or value.device.type != "cpu":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


def as_picture(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Undo an image processor's normalisation of (3, h, w): uint8 (h, w, 3), as a person sees it.

    Args:
        pixels: normalised pixel values.
        mean, std: what the processor took off and divided by, one a channel.
    """
    scale, shift = (torch.tensor(values).view(3, 1, 1) for values in (std, mean))
    image = (pixels.float().cpu() * scale + shift) * 255
    return image.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
