"""From attention to colour in a film: scaling of a row, named colours, a user's own function."""

import importlib
from collections.abc import Callable
from typing import Any, TypeAlias

import matplotlib
import numpy as np

from interp_lab.errors import ConfigError, did_you_mean

# (n,) weights from 0 to 1 in, (n, 3) uint8 red, green, blue out.
ColorFunction: TypeAlias = Callable[[np.ndarray], np.ndarray]

RED_GREEN = "red_green"


def scaled(values: np.ndarray, gamma: float) -> np.ndarray:
    """Return ((values - min) / (max - min)) ** gamma; 0 everywhere where all values are equal.

    Args:
        values: attention, (n,).
        gamma: the power; below 1 it lifts small weights.
    """
    values = np.asarray(values, dtype=np.float64)
    if not values.size:
        return values
    low, high = values.min(), values.max()
    return np.zeros_like(values) if high == low else ((values - low) / (high - low)) ** gamma


def red_green(weights: np.ndarray) -> np.ndarray:
    """Return red 255 (1 - w), green 255 w, blue 0, for weights (n,)."""
    parts = np.stack([1 - weights, weights, np.zeros_like(weights)], axis=-1)
    return np.rint(255 * parts).astype(np.uint8)


def color_function(colors: str | ColorFunction) -> ColorFunction:
    """Return the function of a name: red_green, a colormap of matplotlib, or a dotted path.

    A function itself is taken as it is. What a user's function returns is checked at each call.

    Raises:
        ConfigError: if there is none of that name.
    """
    if not isinstance(colors, str):
        return _checked(colors, getattr(colors, "__qualname__", repr(colors)))
    if colors == RED_GREEN:
        return red_green
    if colors in matplotlib.colormaps:
        return _Colormap(colors)
    if "." in colors:
        return _checked(_imported(colors), colors)
    near = did_you_mean(colors, [RED_GREEN, *matplotlib.colormaps])
    raise ConfigError(
        f"visualization.colors={colors!r}: give {RED_GREEN}, a colormap of matplotlib, or the "
        f"dotted path of a function.{near}"
    )


class _Colormap:
    def __init__(self, name: str) -> None:
        self._map = matplotlib.colormaps[name]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return self._map(weights, bytes=True)[..., :3]


def _imported(path: str) -> ColorFunction:
    module_name, _, name = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"visualization.colors={path}: cannot import {module_name} ({error})"
        ) from error
    functions: dict[str, Any] = {n: f for n, f in vars(module).items() if callable(f)}
    if name not in functions:
        near = did_you_mean(name, functions)
        raise ConfigError(
            f"visualization.colors={path}: {module_name} has no function {name!r}.{near}"
        )
    return functions[name]


def _checked(function: ColorFunction, name: str) -> ColorFunction:
    def colors_of(weights: np.ndarray) -> np.ndarray:
        found = np.asarray(function(weights))
        if found.shape != (len(weights), 3) or found.dtype != np.uint8:
            raise ConfigError(
                f"visualization.colors={name}: for weights of shape ({len(weights)},) it returned "
                f"{found.dtype} of shape {found.shape}; it should return uint8 of shape "
                f"({len(weights)}, 3)"
            )
        return found

    return colors_of


def mixed(color: np.ndarray, ground: np.ndarray | int, strength: float) -> np.ndarray:
    """Return `strength` of a colour over its ground, both 0 to 255, rounded to uint8."""
    return np.rint(strength * np.asarray(color, float) + (1 - strength) * ground).astype(np.uint8)
