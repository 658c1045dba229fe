"""The residual stream as named spaces: what a token holds is written in dimensions of its own.

One constant stands in every token, far larger than all that is written beside it. RMSNorm then
divides every token by nearly the same number, which the norm's gain takes back: a layer reads the
stream as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

Vector = Mapping[int, float]  # dimension -> weight, all others 0
CONSTANT = 32.0


class Stream:
    """Named spaces, one after the other.

    Args:
        sizes: name -> number of dimensions.
        width: of the whole stream; what no space names stays 0.

    Raises:
        ValueError: if the spaces do not fit.
    """

    def __init__(self, sizes: Mapping[str, int], width: int) -> None:
        self._first: dict[str, int] = {}
        self._sizes = dict(sizes)
        used = 0
        for name, size in sizes.items():
            self._first[name] = used
            used += size
        if used > width:
            raise ValueError(f"the spaces need {used} dimensions, the stream has {width}")
        self.width = width

    def size(self, name: str) -> int:
        """Return how many dimensions a space has."""
        return self._sizes[name]

    def at(self, name: str, item: int = 0) -> int:
        """Return the dimension of one item of a space.

        Raises:
            IndexError: if the space has no such item.
        """
        if not 0 <= item < self._sizes[name]:
            raise IndexError(f"{name} has {self._sizes[name]} items, asked for item {item}")
        return self._first[name] + item

    def all(self, name: str) -> list[int]:
        """Return the dimensions of a space."""
        return [self.at(name, item) for item in range(self._sizes[name])]


def write(row: Tensor, vector: Vector, factor: float = 1.0) -> None:
    """Add a vector to a row of weights, in place."""
    for dimension, weight in vector.items():
        row[dimension] += factor * weight


def set_norm_gain(gain: Tensor, constant_at: int) -> None:
    """Let an RMSNorm pass on what the stream holds, and its constant as 1, in place."""
    root = gain.numel() ** 0.5
    gain.fill_(CONSTANT / root)
    gain[constant_at] = 1 / root
