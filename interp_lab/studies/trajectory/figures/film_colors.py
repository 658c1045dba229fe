"""From attention to colour in a film: scaling of a row, named colours, a user's own function."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import matplotlib
import numpy as np

from interp_lab.errors import ConfigError, did_you_mean

# (n,) weights from 0 to 1 in, (n, 3) uint8 red, green, blue out.
ColorFunction: TypeAlias = Callable[[np.ndarray], np.ndarray]

BLUE, RED_GREEN = "blue", "red_green"
NAMES = (BLUE, RED_GREEN)
# Hardly any picture has it, and people who cannot tell red from green see it as others do.
DEEP_BLUE = (0, 58, 214)


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


def on_scale(values: np.ndarray, top: float, gamma: float) -> np.ndarray:
    """Return (values / top) ** gamma, 1 above `top`.

    Args:
        values: attention, (n,).
        top: the attention that has the last colour; at 0 all weights are 0.
        gamma: the power; below 1 it lifts small weights.
    """
    values = np.asarray(values, dtype=np.float64)
    return np.minimum(values / top, 1.0) ** gamma if top > 0 else np.zeros_like(values)


def blue(weights: np.ndarray) -> np.ndarray:
    """Return one blue for every weight (n,): with it opacity alone says how much."""
    return np.tile(np.array(DEEP_BLUE, dtype=np.uint8), (len(weights), 1))


def red_green(weights: np.ndarray) -> np.ndarray:
    """Return red 255 (1 - w), green 255 w, blue 0, for weights (n,)."""
    parts = np.stack([1 - weights, weights, np.zeros_like(weights)], axis=-1)
    return np.rint(255 * parts).astype(np.uint8)


def color_function(colors: str | ColorFunction) -> ColorFunction:
    """Return the function of a name: blue, red_green, a colormap of matplotlib, or a dotted path.

    A function itself is taken as it is. What a user's function returns is checked at each call.

    Raises:
        ConfigError: if there is none of that name.
    """
    if not isinstance(colors, str):
        return _checked(colors, getattr(colors, "__qualname__", repr(colors)))
    if colors in NAMES:
        return blue if colors == BLUE else red_green
    if colors in matplotlib.colormaps:
        return _Colormap(colors)
    if "." in colors:
        return _checked(_imported(colors), colors)
    near = did_you_mean(colors, [*NAMES, *matplotlib.colormaps])
    raise ConfigError(
        f"visualization.colors={colors!r}: give {' or '.join(NAMES)}, a colormap of matplotlib, or "
        f"the dotted path of a function.{near}"
    )


@dataclass(frozen=True)
class Scale:
    """How attention becomes colour, and how much of what lies below the colour covers.

    Args:
        color_of: from weights to colours.
        gamma: the power of weights.
        top: the attention that has weight 1 in every frame; None = each row is min-max scaled.
        grows: whether what is covered grows with the weight, from nothing on.
    """

    color_of: ColorFunction
    gamma: float
    top: float | None = None
    grows: bool = True

    def weights(self, values: np.ndarray) -> np.ndarray:
        """Return the weight, 0 to 1, of each attention (n,)."""
        if self.top is None:
            return scaled(values, self.gamma)
        return on_scale(values, self.top, self.gamma)

    def ink(self, weights: np.ndarray, most: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the colour (n, 3) uint8 of each weight, and what it covers, at most `most`."""
        covers = most * weights if self.grows else np.full(len(weights), most)
        return self.color_of(weights), covers

    def stands_out(self, values: np.ndarray) -> np.ndarray | None:
        """Return which attention (n,) is at least half of the scale; None without one."""
        return values >= self.top / 2 if self.top else None


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


def mixed(color: np.ndarray, ground: np.ndarray | int, strength: float | np.ndarray) -> np.ndarray:
    """Return `strength` of a colour over its ground, both 0 to 255, rounded to uint8."""
    return np.rint(strength * np.asarray(color, float) + (1 - strength) * ground).astype(np.uint8)
