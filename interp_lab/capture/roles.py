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
from interp_lab.config.signature import parameters_of, typed
from interp_lab.errors import ConfigError, did_you_mean
from interp_lab.tokens import MODALITIES, ROLES, TokenMap

KINDS = {
    "block": ("queries", "keys", "layers", "heads", "tower"),
    "scale": ("factor", "queries", "keys", "layers", "heads", "tower"),
    "zero_heads": ("heads", "tower"),
    "set_gate": ("hookpoints", "value", "nonlinearity"),
    "clamp_gate": ("hookpoints", "low", "high", "nonlinearity"),
}
CLASSES: Mapping[str, type[Any]] = {
    "block": BlockAttention,
    "scale": ScaleAttention,
    "zero_heads": ZeroHeads,
    "set_gate": SetGate,
    "clamp_gate": ClampGate,
}
SIDES = ("queries", "keys")
ANY_TOKEN = (0,)
SELECTORS = {"role": ROLES, "modality": MODALITIES, "image": None, "label": None}


def check_interventions(specs: Sequence[Any]) -> None:
    """Check what the configuration says of interventions, before any model is loaded.

    Raises:
        ConfigError: names the entry, the key and the nearest valid one.
    """
    for number, spec in enumerate(specs):
        where = f"capture.interventions[{number}]"
        if not isinstance(spec, Mapping):
            raise ConfigError(f"{where}={spec!r}: give a mapping such as {{kind: block, ...}}")
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
        _check_values(spec, where)


def _check_values(spec: Mapping[str, Any], where: str) -> None:
    """Make the intervention, with a token in the place of those that it will select.

    Raises:
        ConfigError: for a value that is missing, of a wrong kind or out of its bounds.
    """
    kind = spec["kind"]
    sides = dict.fromkeys(SIDES if "queries" in KINDS[kind] else ())
    values = {**sides, **{k: v for k, v in spec.items() if k != "kind"}}
    values |= {k: ANY_TOKEN for k in sides if values[k] is not None}
    for name, parameter in parameters_of(CLASSES[kind]).items():
        if name not in values and parameter.default is parameter.empty:
            raise ConfigError(f"{where}.{name} is not given: {kind} needs it")
    made = typed(CLASSES[kind], values, where)
    try:
        CLASSES[kind](**made)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    if made.get("hookpoints") == ():
        raise ConfigError(f"{where}.hookpoints is empty; give module paths or patterns")
    if kind == "clamp_gate" and made["low"] > made["high"]:
        raise ConfigError(f"{where}.low={made['low']}: is above high={made['high']}")


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
    for side in SIDES if "queries" in KINDS[spec["kind"]] else ():
        selector = values.get(side)
        values[side] = None if selector is None else tokens.where(**selector)
        if selector is not None and not values[side]:
            raise ConfigError(f"{where}.{side}={dict(selector)}: this input has no such token")
    return _made(values, spec["kind"])


def _made(values: Mapping[str, Any], kind: str) -> Intervention:
    """Return an intervention of a kind; its class checks the values."""
    if "hookpoints" in values:
        values = {**values, "hookpoints": tuple(values["hookpoints"])}
    return CLASSES[kind](**values)


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
        names = value if isinstance(value, list | tuple) else [value]
        kind = int if key == "image" else str
        if not names or any(not isinstance(n, kind) or isinstance(n, bool) for n in names):
            what = "a number from 0 on" if kind is int else "a word or a list of words"
            raise ConfigError(f"{where}.{key}={value!r}: give {what}")
        if known is not None:
            for name in names:
                if name not in known:
                    near = did_you_mean(str(name), known)
                    raise ConfigError(
                        f"{where}.{key}={name}: give one of {', '.join(known)}.{near}"
                    )
