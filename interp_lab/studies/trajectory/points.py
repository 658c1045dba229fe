"""Where in a picture attention lies: centres of mass of cells, and their distance to points."""

import numpy as np


def centres(weights: np.ndarray, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the centre of mass of attention on an image's cells.

    Args:
        weights: (..., rows * cols), attention on the cells, row by row.
        grid: (rows, cols).

    Returns:
        x and y, each (...), as shares of the picture's width and height; the picture's middle
        where no attention falls on it.
    """
    rows, cols = grid
    cells = weights.astype(np.float64).reshape(*weights.shape[:-1], rows, cols)
    total = cells.sum((-2, -1))
    safe = np.where(total > 0, total, 1.0)
    x = (cells.sum(-2) @ ((np.arange(cols) + 0.5) / cols)) / safe
    y = (cells.sum(-1) @ ((np.arange(rows) + 0.5) / rows)) / safe
    return np.where(total > 0, x, 0.5), np.where(total > 0, y, 0.5)


def distances(
    x: np.ndarray, y: np.ndarray, point: tuple[float, float], size: tuple[int, int]
) -> np.ndarray:
    """Return the distance to a point, in diagonals of the picture (0 to 1).

    Args:
        x, y: places as shares of width and height, of any shape.
        point: (x, y), the same shares.
        size: (width, height) in pixels.
    """
    width, height = size
    return np.hypot((x - point[0]) * width, (y - point[1]) * height) / np.hypot(width, height)
