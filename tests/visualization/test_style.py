"""A style is wrong before anything is measured, in one line that names the key."""

import matplotlib
import pytest

from interp_lab.errors import ConfigError
from interp_lab.studies.clip_similarity.figures.maps import MapStyle
from interp_lab.visualization.base import FORMATS, NATURAL_POINTS, Page, Style


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"cmap": "virids"},
            "visualization.cmap='virids': matplotlib has no such colormap. Did you mean 'viridis'?",
        ),
        ({"dpi": 0}, "visualization.dpi=0: give a whole number from 10 to 4800"),
        ({"dpi": "150"}, "visualization.dpi='150': give a whole number from 10 to 4800"),
        ({"workers": True}, "visualization.workers=True: give a whole number from 0 to 1024"),
        ({"max_samples": -2}, "visualization.max_samples=-2: give a whole number of at least -1"),
        ({"figsize": [20]}, "visualization.figsize=[20]: give [width, height] in inches"),
        (
            {"figsize": [20, -1]},
            "visualization.figsize=[20.0, -1.0]: each side must be from 1 to 200 inches",
        ),
        (
            {"figsize": [20, 16], "dpi": 4000},
            "visualization.figsize=[20.0, 16.0]: with visualization.dpi=4000 a side has 80000 "
            "pixels, the most is 65535",
        ),
        (
            {"font": "DejaVu Sanz"},
            "visualization.font='DejaVu Sanz': no such font family or file here. "
            "Did you mean 'DejaVu Sans'?",
        ),
        (
            {"overlay_alpha": 0},
            "visualization.overlay_alpha=0: give a number from 0.01 to 1",
        ),
        (
            {"limits": [1, 0]},
            "visualization.limits=[1.0, 0.0]: the first must be smaller than the second",
        ),
        ({"overlay_gray": "no"}, "visualization.overlay_gray='no': give true or false"),
    ],
)
def test_wrong_values_are_one_line(values: dict, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        MapStyle(**values)
    assert str(caught.value) == line


def test_a_format_that_cannot_be_written_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"visualization.format='PNG': .*Did you mean 'png'"):
        Style(format="PNG")
    assert {"png", "pdf", "svg"} <= set(FORMATS)
    assert "pgf" not in FORMATS  # needs TeX, so it would fail at the end of a run


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    matplotlib.rcParams["font.size"] = 7.5
    before = dict(matplotlib.rcParams)
    with Style().context(13):
        assert matplotlib.rcParams["font.size"] == 13
    assert dict(matplotlib.rcParams) == before
    matplotlib.rcParams["font.size"] = matplotlib.rcParamsDefault["font.size"]


def test_figsize_is_filled_or_fitted_in() -> None:
    style = Style(figsize=(20, 16))
    assert style.page((10, 5), fill=True) == Page(20, 16, 2 * NATURAL_POINTS)
    assert style.page((10, 5)) == Page(20, 10, 2 * NATURAL_POINTS)
    assert style.page((10, 10)) == Page(16, 16, 1.6 * NATURAL_POINTS)
    assert Style(font_size=9).page((10, 5)) == Page(10, 5, 9)
