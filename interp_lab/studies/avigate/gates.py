"""Gates in canonical shapes: (layer, clip, channel), whatever a network's modules put out.

A gate for the whole video has one clip, one for all channels one channel. How large a gate is
says how much of its branch is let through; its sign alone says little, since the branch behind it
can change sign with it (`gates.magnitude`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from interp_lab.capture.gates import matching
from interp_lab.capture.plans import SetGate
from interp_lab.datasets.base import Sample
from interp_lab.errors import ConfigError, SampleError, did_you_mean
from interp_lab.fields import Category, Field, GateValues, LayerCurve
from interp_lab.models.base import GateHooks, Seen

VERSION = "avigate.gate/1"
# A sigmoid never gives 0; this is as closed as it is set.
CLOSED_SIGMOID = 1e-6


def layer_paths(
    module: torch.nn.Module, gates: Mapping[str, GateHooks]
) -> dict[str, tuple[str, ...]]:
    """Return the module paths of each gate kind, layer by layer in the network's order.

    Raises:
        UnsupportedModelError: if a hookpoint matches nothing.
    """
    return {kind: tuple(matching(module, hooks.hookpoints)) for kind, hooks in gates.items()}


def canonical(
    gates: Mapping[str, torch.Tensor], paths: Sequence[str], n_clips: int | None, sample_id: str
) -> np.ndarray:
    """Return one sample's gates of a kind as (layer, clip, channel) float32.

    Args:
        gates: module path -> gate of this sample without batch axis: (), (channel,) or
            (clip, channel).
        paths: the kind's layers in order.
        n_clips: the sample's own clips; what a batch padded behind them is cut. None: keep all.
        sample_id: for messages.

    Raises:
        SampleError: if a layer put out nothing, another shape than the others, or no finite number.
    """
    layers = []
    for path in paths:
        if path not in gates:
            raise SampleError(f"gate {path}: it did not run on sample {sample_id!r}")
        value = gates[path].detach().float().cpu().numpy()
        if value.ndim > 2:
            raise SampleError(
                f"gate {path}: puts out shape {value.shape} for a sample; gates are one number, "
                "(channel,) or (clip, channel)"
            )
        value = value.reshape((1,) * (2 - value.ndim) + value.shape)
        if n_clips is not None and 1 < len(value) < n_clips:
            raise SampleError(
                f"gate {path}: {len(value)} values over time for the {n_clips} clips of sample "
                f"{sample_id!r}; such gates are traced with batch_size=1"
            )
        layers.append(value if n_clips is None or len(value) == 1 else value[:n_clips])
    shapes = sorted({layer.shape for layer in layers})
    if len(shapes) > 1:
        raise SampleError(
            f"gates of sample {sample_id!r} have shapes {', '.join(map(str, shapes))}; give gates "
            "of different shapes different kinds in model.gates"
        )
    stacked = np.stack(layers)
    if not np.isfinite(stacked).all():
        bad = int(np.flatnonzero(~np.isfinite(stacked).all(axis=(1, 2)))[0])
        raise SampleError(f"gate {paths[bad]}: NaN or infinity on sample {sample_id!r}")
    return stacked


def clips_of(sample: Sample, seen: Seen) -> int | None:
    """Return how many clips of this sample the model saw, or None if nothing says so."""
    found = len(seen.tokens.where(modality="video"))
    if found:
        return found
    lengths = [len(sample.facts[name]) for name in ("video", "audio") if name in sample.facts]
    return min(lengths) if lengths else None


def gate_fields(kinds: Sequence[str]) -> list[Field]:
    """Return the fields that hold a sample's gates, and its name."""
    fields: list[Field] = [Category("id", "sample id")]
    for kind in kinds:
        fields += [
            GateValues(f"gate_{kind}", f"{kind} gate", definition=VERSION),
            LayerCurve(
                f"mean_{kind}", f"mean {kind} gate", definition=f"{VERSION} (mean over all)"
            ),
            LayerCurve(
                f"magnitude_{kind}",
                f"magnitude of the {kind} gate, mean |g|",
                definition="avigate.magnitude/1",
            ),
        ]
    return fields


def gate_values(kind: str, gates: np.ndarray) -> dict[str, np.ndarray]:
    """Return one kind's fields of a sample from its gates (layer, clip, channel)."""
    return {
        f"gate_{kind}": gates,
        f"mean_{kind}": gates.mean(axis=(1, 2), dtype=np.float64),
        f"magnitude_{kind}": np.abs(gates).mean(axis=(1, 2), dtype=np.float64),
    }


def gate_changes(
    gates: Mapping[str, GateHooks], value: float | Mapping[str, float], default: Sequence[str]
) -> tuple[SetGate, ...]:
    """Return the changes that give gates a value.

    Args:
        gates: the model's.
        value: one number for the `default` kinds, or kind -> number.
        default: the kinds through which audio enters.

    Raises:
        ConfigError: for a kind that the model does not have.
    """
    wanted = value if isinstance(value, Mapping) else dict.fromkeys(default, value)
    for kind in wanted:
        if kind not in gates:
            raise ConfigError(
                f"analysis.variants: the model has no {kind!r} gates, but {', '.join(gates)}."
                f"{did_you_mean(kind, gates)}"
            )
    return tuple(
        SetGate(gates[kind].hookpoints, _reachable(number, gates[kind]), gates[kind].nonlinearity)
        for kind, number in wanted.items()
    )


def _reachable(number: float, hooks: GateHooks) -> float:
    closed = number == 0 and hooks.nonlinearity == "sigmoid"
    return CLOSED_SIGMOID if closed else float(number)
