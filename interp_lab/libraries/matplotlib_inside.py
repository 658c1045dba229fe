"""What is assumed of matplotlib's inside: where the three titles of an axes are."""

from matplotlib.axes import Axes
from matplotlib.text import Text


def titles_of(axes: Axes) -> tuple[Text, ...]:
    """Return the titles in the middle, on the left and on the right; empty ones too."""
    return axes.title, getattr(axes, "_left_title"), getattr(axes, "_right_title")  # noqa: B009
