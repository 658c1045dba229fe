"""What a grid of tokens lies on: a part of a picture, gray where the grid reaches beyond it."""

import numpy as np
from PIL import Image

PADDING = 128


def shown(picture: Image.Image, box: tuple[float, float, float, float]) -> np.ndarray:
    """Return the part of a picture that a box covers, (height, width, 3) uint8.

    Args:
        picture: any.
        box: left, top, right, bottom in shares of its width and height; beyond 0 to 1 is padding.
    """
    scale = (picture.width, picture.height) * 2
    left, top, right, bottom = (round(v * s) for v, s in zip(box, scale, strict=True))
    canvas = Image.new("RGB", (max(1, right - left), max(1, bottom - top)), (PADDING,) * 3)
    canvas.paste(picture.convert("RGB"), (-left, -top))
    return np.asarray(canvas)
