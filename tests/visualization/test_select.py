"""Which samples a user asks to see, and where their figures lie."""

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from known_words import APPLE, BUTTERFLY, CAFE, NABI, asked, written

from interp_lab.errors import ConfigError
from interp_lab.store.results import Results
from interp_lab.studies.semdim.figures.words import WordStyle
from interp_lab.visualization.base import Style
from interp_lab.visualization.draw import check_figures, draw_all
from interp_lab.visualization.figure_files import apart, figure_path
from interp_lab.visualization.select import chosen_samples, groups, restyled, unlimited

HEAT = {
    "_target_": "known_maps.blank",
    "allow_targets": ["known_maps"],
    "file": "{language}/heat_{word}_{dimension1}_{dimension2}",
    "per": "sample",
}
MEAN = {
    "_target_": "known_words.blank_group",
    "allow_targets": ["known_maps", "known_words"],
    "file": "mean_{word}_{data_type}",
    "per": "group",
    "by": ["word", "data_type"],
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """Four words, two pairs, both orders: 16 samples."""
    words = [APPLE, BUTTERFLY, CAFE, NABI]
    with written(tmp_path_factory.mktemp("select"), asked(words), layers=2, heads=1) as held:
        yield held


@pytest.mark.parametrize(
    ("select", "n", "start"),
    [
        (None, 16, ""),
        ({"word": None, "layer": 3}, 16, ""),
        ({"word": "apple"}, 4, "en/apple/"),
        (
            {"word": unicodedata.normalize("NFD", "나비")},
            8,
            "ko/나비/",
        ),  # decomposed, as some keyboards write it
        ({"word": "나비", "data_type": "audio"}, 4, "ko/나비/audio/"),
        ({"word": ["apple", "été"], "language": "fr"}, None, ""),
        ({"language": ["en", "fr"]}, 8, ""),
        ({"word": "apple", "dimensions": ["small", "big"]}, 2, "en/apple/original/big-small/"),
        ({"word": "apple", "dimensions": "big-small"}, 2, "en/apple/original/big-small/"),
        ({"dimensions": ["round"]}, 8, ""),
    ],
)
def test_samples_are_chosen_by_their_fields(
    results: Results, select: dict[str, Any] | None, n: int | None, start: str
) -> None:
    if n is None:  # apple is not French
        with pytest.raises(ConfigError, match="word='apple': no sample with language=fr has it"):
            chosen_samples(results, select)
        return
    found = chosen_samples(results, select)
    assert len(found) == n
    assert all(name.startswith(start) for name in found)
    assert found == [name for name in results.sample_ids if name in found]


@pytest.mark.parametrize(
    ("select", "line"),
    [
        (
            {"word": "appel"},
            r"select.word='appel': no sample has it. Did you mean 'apple'\? "
            "There are: apple, été, 나비",
        ),
        ({"language": "ja"}, "There are: en, fr, ko"),
        ({"word": "apple", "data_type": "audio"}, "no sample with word=apple has it.*: original"),
        ({"dimensions": ["big", "smal"]}, "Did you mean 'small'"),
        ({"dimensions": ["big", "round"]}, "no pair of these two; big stands against small"),
        ({"dimensions": ["a", "b", "c"]}, "give one dimension or the two of a pair"),
        ({"words": "apple"}, r"have no words\. Did you mean 'word'\? They have: answer, data_type"),
    ],
)
def test_what_matches_nothing_is_an_error(
    results: Results, select: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigError, match=line):
        chosen_samples(results, select)


def test_a_result_without_the_field_says_so(tmp_path: Path) -> None:
    with (
        written(tmp_path, asked([APPLE])[:1], without=["language"]) as held,
        pytest.raises(ConfigError, match=r"select\.language: the samples.*have no language"),
    ):
        chosen_samples(held, {"language": "en"})


def test_layer_and_head_go_to_the_style() -> None:
    style = restyled(WordStyle(dpi=30), {"layer": 3, "head": 0, "word": "apple"})
    assert (style.layer, style.head, style.dpi) == (3, 0, 30)
    assert restyled(style, None) is style
    with pytest.raises(ConfigError, match=r"select\.layer=3: the figures of this task"):
        restyled(Style(), {"layer": 3})
    with pytest.raises(ConfigError, match=r"visualization\.layer=-1: give a whole number"):
        restyled(WordStyle(), {"layer": -1})


@pytest.mark.parametrize(
    ("select", "typed", "limit"),
    [
        ({"word": "apple"}, ["select.word"], -1),
        ({"word": "apple", "layer": 3}, ["select.word", "results"], -1),
        ({"word": "apple"}, ["select.word", "visualization.max_samples"], 2),
        ({"word": "apple"}, ["select"], -1),
        ({"word": "apple"}, [], 2),  # chosen when it was measured, with the limit of then
        ({"layer": 3}, ["select.layer"], 2),
        ({"word": None}, ["select.word"], 2),
        (None, [], 2),
    ],
)
def test_samples_that_a_command_asks_for_beat_a_limit_that_it_does_not_give(
    select: dict[str, Any] | None, typed: list[str], limit: int
) -> None:
    assert unlimited(Style(max_samples=2), select, typed).max_samples == limit


def test_asking_for_samples_and_for_none_of_them_is_an_error() -> None:
    typed = ["select.word", "visualization.max_samples"]
    for keys in (typed, []):
        with pytest.raises(ConfigError, match=r"select.word=apple: .*=0 for none; leave"):
            unlimited(Style(max_samples=0), {"word": "apple"}, keys)
    assert unlimited(Style(max_samples=0), {"layer": 3}, []).max_samples == 0


def test_groups_are_whole_also_beyond_the_limit(results: Results) -> None:
    chosen = chosen_samples(results, None)
    (only,) = groups(results, ["word", "data_type"], chosen, limit=1)
    assert list(only) == chosen[:4]
    everything = groups(results, ["word"], chosen, limit=16)
    assert [len(group) for group in everything] == [4, 8, 4]
    with pytest.raises(ConfigError, match=r"by=wort.*Did you mean 'word'"):
        groups(results, ["wort"], chosen, 1)


def test_files_are_named_by_their_fields(results: Results, tmp_path: Path) -> None:
    paths = draw_all(
        results.path, {"h": HEAT, "m": MEAN}, Style(dpi=10, workers=0), tmp_path, {"word": "나비"}
    )
    names = [str(path.relative_to(tmp_path)) for path in paths]
    assert names[:4] == [
        "ko/heat_나비_big_small.png",
        "ko/heat_나비_small_big.png",
        "ko/heat_나비_sharp_round.png",
        "ko/heat_나비_round_sharp.png",
    ]
    # The same names again, of the spoken word: told apart by a hash of the sample.
    assert all(name.startswith("ko/heat_나비_") for name in names[:8])
    assert len(set(names)) == 10
    assert names[8:] == ["mean_나비_original.png", "mean_나비_audio.png"]


def test_a_word_cannot_open_a_folder(tmp_path: Path) -> None:
    word = type(APPLE)("../a/b c", "en", "original", ("a",))
    with written(tmp_path, asked([word])[:1]) as held:
        path = figure_path(tmp_path, held, "x/{word}_{pair}", held.sample_ids[0])
        assert path.parent == tmp_path / "x"
        assert path.name.startswith("a_b_c_big-small-")
        with pytest.raises(ConfigError, match="have no wort. Did you mean 'word'"):
            figure_path(tmp_path, held, "{wort}", held.sample_ids[0])


def test_equal_places_are_told_apart() -> None:
    first, second = apart([Path("a.b.png")] * 2, ["x", "y"])
    assert first == Path("a.b.png")
    assert second.name.startswith("a.b-") and second.suffix == ".png"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"by": None}, "by=None: give the Category fields"),
        ({"by": "word"}, "by='word': give the Category fields"),
        (
            {"file": "mean"},
            r"name the fields of by in braces, no others, as \{word\}_\{data_type\}",
        ),
        ({"file": "{word"}, "file='{word'"),
        ({"file": "{word.__class__}"}, "is not a name of a field"),
        ({"per": "sample"}, "by=.*only a figure with per: group has it"),
        ({"_target_": "known_maps.blank"}, "with per=group a draw function starts with"),
    ],
)
def test_mistakes_in_a_group_are_found_before_a_run(change: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line) as caught:
        check_figures({"one": {**MEAN, **change}})
    assert str(caught.value).startswith("visualization.figures.one")


def test_a_figure_of_the_run_has_no_sample_to_be_named_by() -> None:
    node = {**HEAT, "_target_": "known_maps.blank_run", "file": "x_{word}", "per": "run"}
    with pytest.raises(ConfigError, match="a figure of the run has no {word}"):
        check_figures({"one": node})
