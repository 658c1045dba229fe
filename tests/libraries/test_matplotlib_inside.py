"""Where matplotlib keeps the titles of an axes."""

from matplotlib.figure import Figure

from interp_lab.libraries.matplotlib_inside import titles_of


def test_all_three_titles_are_found() -> None:
    axes = Figure().add_subplot()
    for place in ("left", "center", "right"):
        axes.set_title(place, loc=place)
    assert sorted(title.get_text() for title in titles_of(axes)) == ["center", "left", "right"]
