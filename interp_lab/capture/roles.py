"""Interventions from YAML: spans named by what their tokens are, resolved for each input.

capture:
  interventions:
    - {kind: block, queries: {role: option}, keys: {modality: image}, layers: [10, 11]}
    - {kind: scale, factor: 0.5, queries: {role: assistant}, keys: {role: word}}
    - {kind: zero_heads, heads: {22: [10]}}
    - {kind: set_gate, hookpoints: [fusion.layers.*.gate], value: 0.9, nonlinearity: tanh}
"""

from collections.abc import Mapping, Sequence
from typing import Any

from interp_lab.capture.plans import (
    BlockAttention,
    ClampGate,
    Intervention,
    ScaleAttention,
    SetGate,
    ZeroHeads,
)
from interp_lab.errors import ConfigError, did_you_mean
from interp_lab.tokens import MODALITIES, ROLES, TokenMap

KINDS = {
    "block": ("queries", "keys", "layers", "heads", "tower"),
    "scale": ("factor", "queries", "keys", "layers", "heads", "tower"),
    "zero_heads": ("heads", "tower"),
    "set_gate": ("hookpoints", "value", "nonlinearity"),
    "clamp_gate": ("hookpoints", "low", "high", "nonlinearity"),
}
SELECTORS = {"role": ROLES, "modality": MODALITIES, "image": None, "label": None}


def check_interventions(specs: Sequence[Mapping[str, Any]]) -> None:
    """Check what the configuration says of interventions, before any model is loaded.

    Raises:
        ConfigError: names the entry, the key and the nearest valid one.
    """
    for number, spec in enumerate(specs):
        where = f"capture.interventions[{number}]"
        kind = str(spec.get("kind"))
        if kind not in KINDS:
            raise ConfigError(
                f"{where}.kind={kind}: give one of {', '.join(KINDS)}.{did_you_mean(kind, KINDS)}"
            )
        for key in spec:
            if key != "kind" and key not in KINDS[kind]:
                near = did_you_mean(key, KINDS[kind])
                raise ConfigError(f"{where}.{key}: {kind} takes no such option.{near}")
        for side in ("queries", "keys"):
            _check_selector(spec.get(side), f"{where}.{side}")


def interventions_for(
    specs: Sequence[Mapping[str, Any]], tokens: TokenMap
) -> tuple[Intervention, ...]:
    """Return the interventions of one input.

    Raises:
        ConfigError: if a selector finds no token of this input.
    """
    return tuple(_one(spec, tokens, f"capture.interventions[{i}]") for i, spec in enumerate(specs))


def _one(spec: Mapping[str, Any], tokens: TokenMap, where: str) -> Intervention:
    values = {k: v for k, v in spec.items() if k != "kind"}
    if spec["kind"] == "zero_heads":
        return ZeroHeads(**values)
    if spec["kind"] in ("set_gate", "clamp_gate"):
        values["hookpoints"] = tuple(values["hookpoints"])
        return SetGate(**values) if spec["kind"] == "set_gate" else ClampGate(**values)
    for side in ("queries", "keys"):
        selector = values.get(side)
        values[side] = None if selector is None else tokens.where(**selector)
        if selector is not None and not values[side]:
            raise ConfigError(f"{where}.{side}={dict(selector)}: this input has no such token")
    return BlockAttention(**values) if spec["kind"] == "block" else ScaleAttention(**values)


def _check_selector(selector: Any, where: str) -> None:
    if selector is None:
        return
    if not isinstance(selector, Mapping):
        raise ConfigError(f"{where}={selector!r}: give a mapping such as {{role: user}}")
    for key, value in selector.items():
        if key not in SELECTORS:
            near = did_you_mean(key, SELECTORS)
            raise ConfigError(f"{where}.{key}: select by {', '.join(SELECTORS)}.{near}")
        known = SELECTORS[key]
        names = [value] if isinstance(value, str) else value
        if known is not None:
            for name in names:
                if name not in known:
                    near = did_you_mean(str(name), known)
                    raise ConfigError(
                        f"{where}.{key}={name}: give one of {', '.join(known)}.{near}"
                    )
