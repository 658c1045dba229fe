"""Phones by dimensions as squares: their colour is a share, their size the attention behind it.

A share says nothing where nobody looks, so a cell is filled as far as it is attended to.
"""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import TwoSlopeNorm
from matplotlib.ticker import MaxNLocator

CORNERS = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.5
# Of a cell that is filled: neighbours must not become one.
FULL = 0.94
# Parts of the largest attention that the key of sizes shows.
KEYS = (1.0, 0.25, 0.05)


def share_squares(
    axes: Axes,
    shares: np.ma.MaskedArray,
    mass: np.ndarray | None,
    norm: TwoSlopeNorm,
    cmap: str,
    top: float,
) -> PolyCollection:
    """Draw one map (row, column); a masked cell shows the hatched ground.

    Args:
        axes: where; its limits are set, row 0 at the top.
        shares: colours.
        mass: the same shape; a cell's filled area is its part of `top`. None = all are full.
        norm, cmap: of the shares.
        top: the mass of a full cell.

    Returns:
        The squares in the order of rows, then columns.
    """
    axes.set_facecolor("0.97")
    axes.patch.set(hatch="/////", edgecolor="0.78", linewidth=0)
    n_rows, n_columns = shares.shape
    rows, columns = np.nonzero(~np.ma.getmaskarray(shares))
    centres = np.stack([columns, rows], axis=-1)[:, None, :].astype(float)
    width = matplotlib.rcParams["axes.linewidth"] * 0.5
    ground = PolyCollection(
        list(centres + CORNERS), facecolors="white", edgecolors="0.92", linewidths=width
    )
    part = np.ones(len(rows)) if mass is None else np.clip(mass[rows, columns] / top, 0, 1)
    squares = PolyCollection(
        list(centres + CORNERS * FULL * np.sqrt(part)[:, None, None]),
        cmap=cmap,
        norm=norm,
        # A share of 0.5 is white on white.
        edgecolors="0.45" if mass is not None else "none",
        linewidths=width,
    )
    squares.set_array(shares[rows, columns].filled(0.5))
    for one in (ground, squares):
        axes.add_collection(one, autolim=False)
    axes.set(xlim=(-0.5, n_columns - 0.5), ylim=(n_rows - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return squares


def draw_keys(axes: Axes, norm: TwoSlopeNorm, cmap: str, top: float | None, label: str) -> None:
    """Draw beside the axes what the colours are, and the sizes if `top` says what a full cell is.

    Args:
        axes: the last panel.
        norm, cmap: of the colours.
        top: attention of a full cell; None = sizes mean nothing.
        label: of the colours.
    """
    assert axes.figure is not None
    low = 0.0 if top is None else 0.4
    beside = axes.inset_axes((1.04, low, 0.05, 1 - low))
    bar = axes.figure.colorbar(ScalarMappable(norm, cmap), cax=beside)
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(5)
    bar.set_label(label)
    if top is None:
        return
    key = axes.inset_axes((1.04, 0.0, 0.1, 0.27))
    places = np.arange(len(KEYS))
    # Every cell of the key is one of a column; half a cell of air is between two.
    centres = np.stack([np.zeros(len(KEYS)), places * 1.4], axis=-1)[:, None, :]
    sizes = FULL * np.sqrt(KEYS)[:, None, None]
    width = matplotlib.rcParams["axes.linewidth"]
    for corners, face, edge in ((CORNERS, "white", "0.7"), (CORNERS * sizes, "0.6", "0.45")):
        key.add_collection(
            PolyCollection(
                list(centres + corners), linewidths=width * 0.7, facecolors=face, edgecolors=edge
            ),
            autolim=False,
        )
    key.set(xlim=(-0.55, 0.55), ylim=(places[-1] * 1.4 + 0.55, -0.55), xticks=[])
    key.yaxis.tick_right()
    key.set_yticks(places * 1.4, [f"{top * part:.2g}" for part in KEYS])
    key.yaxis.set_label_position("right")
    key.tick_params(length=0, labelsize="x-small")
    key.spines[:].set_visible(False)
    key.set_ylabel("attention", fontsize="small")


def size_words(top: float, mean: str = "") -> str:
    """Return how to read the sizes, and what the attention is the `mean` of."""
    return (
        "The filled part of a cell is the attention of a dimension word's token on the "
        f"phone{mean}; a full cell is {top:.2g}."
    )


# A head that does not look still has a share.
ALIKE = "A share is the mean over heads, each counts alike however little it attends."


def colour_words(norm: TwoSlopeNorm) -> str:
    """Return from where to where the colours run."""
    return f"Colours run from {norm.vmin:.2f} to {norm.vmax:.2f}."
