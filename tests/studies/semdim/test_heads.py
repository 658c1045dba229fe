"""Single heads of semdim: maps by phone and class, moves between dimensions, and what is shown.

The shipped model's truth: vowels decide big-small, consonants sharp-round, and a head looks for one
side of a pair alone (its card). Here it is read from the report, the summary and the drawn figures.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.patches import Rectangle

from interp_lab.errors import ConfigError
from interp_lab.store.results import Results, open_results
from interp_lab.studies.semdim.figures.head_phones import class_overview, head_phones
from interp_lab.studies.semdim.figures.words import WordStyle
from interp_lab.studies.semdim.heads import Asked, HeadTotals, standing_out
from interp_lab.studies.semdim.phone_classes import phone_class, sorted_by_class
from interp_lab.studies.semdim.shares import familywise_bounds, shuffle_phones
from interp_lab.visualization.base import NothingToDrawError

SMALL, BIG = ("EH0", "IY0"), ("AA0", "OW0")
SHARP, ROUND = ("CH", "K", "T"), ("B", "L", "M")
STYLE = WordStyle(dpi=40, workers=0)


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        *((label, "vowel") for label in "IY0 AA OW2 AXR iː ɑː oʊ æ̃ ˈa ə˞ ɚ aɪ̯ aj ow a˥".split()),
        *((label, "consonant") for label in "CH K NG t͡ʃ tʰ ç ŋ̍ ʔ ⁿd ɹ̩ g ɡ w".split()),
        *((label, "unknown") for label in ["", "␣", *"X SIL sil spn 나 ja t1 ap".split()]),
    ],
)
def test_phones_have_classes_by_their_letters(label: str, kind: str) -> None:
    assert phone_class(label) == kind


def test_composed_and_decomposed_letters_are_one_phone() -> None:
    assert phone_class("\u00e7") == phone_class("c\u0327") == "consonant"
    assert phone_class("\u00e3") == phone_class("a\u0303") == "vowel"
    assert sorted_by_class(["t", "나", "o", "a", "b"]) == ["a", "o", "b", "t", "나"]


def one(dimension: str, labels: str, mass: list[float], share: float = 0.5) -> Asked:
    """One layer and head."""
    whole = np.array(mass)[None, None]
    return Asked(dimension, labels.split(), whole, whole * share)


def test_maps_are_means_over_words_and_shares_weigh_by_attention() -> None:
    totals = HeadTotals()
    # Two a in a word: their mean as a phone, their sum as a class.
    totals.update("aka", one("x", "a k a", [0.1, 0.2, 0.3], 0.5))
    totals.update("ka", one("x", "k a", [0.4, 0.6], 0.75))
    phones, classes = totals.phones(["x"]), totals.classes(["x"])
    assert phones.labels == ("a", "k")
    assert phones.mass[0, 0, :, 0] == pytest.approx([(0.2 + 0.6) / 2, (0.2 + 0.4) / 2])
    a, k = (0.1 + 0.45) / 0.8, (0.1 + 0.3) / 0.6
    assert phones.share[0, 0, :, 0] == pytest.approx([a, k])
    assert phones.n_words[:, 0].tolist() == [2, 2]
    assert classes.labels == ("vowel", "consonant", "unknown")
    assert classes.mass[0, 0, :, 0] == pytest.approx([(0.4 + 0.6) / 2, 0.3, 0])
    assert classes.n_words[:, 0].tolist() == [2, 2, 0]
    assert classes.share[0, 0, 2, 0] == 0.5  # nothing attends: no preference
    assert totals.moves(["x"], seed=0, n_permutations=5) is None  # one dimension: no move


def test_a_move_is_vowels_less_consonants_between_dimensions() -> None:
    totals = HeadTotals()
    totals.update("ka", one("x", "k a", [0.1, 0.7]))
    totals.update("ka", one("y", "k a", [0.5, 0.2]))
    totals.update("ti", one("x", "t i", [0.0, 0.2]))
    totals.update("ti", one("y", "t i", [0.1, 0.1]))
    moves = totals.moves(["x", "y"], seed=0, n_permutations=50)
    assert moves is not None and moves.n_words == 2
    # (0.6 - -0.3 + 0.2 - 0.0) / 2
    assert moves.score[0, 0] == pytest.approx((0.9 + 0.2) / 2)
    assert moves.toward[0, 0] == pytest.approx([0.275, -0.275])
    # Of two words a half of the shuffles has the score itself: chance enough.
    assert moves.threshold == pytest.approx(moves.score[0, 0])
    assert standing_out(moves.score, moves.threshold, 3) == []


def test_words_that_are_asked_for_other_dimensions_are_no_move() -> None:
    """A word whose vowel is looked at for all its dimensions moves nothing, whoever lacks one."""
    totals = HeadTotals()
    for dimension in ("x", "y"):
        totals.update("ka", one(dimension, "k a", [0.0, 0.9]))
    for dimension in ("y", "z"):
        totals.update("ti", one(dimension, "t i", [0.9, 0.0]))
    totals.update("so", one("x", "s o", [0.9, 0.0]))
    moves = totals.moves(["x", "y", "z"], seed=0, n_permutations=5)
    assert moves is not None and moves.n_words == 2
    assert moves.score[0, 0] == pytest.approx(0)


def many_words(effect: float, seed: int) -> HeadTotals:
    """Forty words, three dimensions, 2 layers of 3 heads of noise; one head moves by `effect`."""
    rng = np.random.default_rng(seed)
    totals = HeadTotals()
    for word in range(40):
        for dimension in ("x", "y", "z"):
            mass = rng.uniform(0, 0.3, (2, 3, 2))
            mass[1, 2, 1] += effect * (dimension == "y")
            totals.update(f"w{word}", Asked(dimension, ["k", "a"], mass, mass / 2))
    return totals


def test_noise_stands_out_as_rarely_as_the_shuffles_say() -> None:
    found = 0
    for seed in range(40):
        moves = many_words(0.0, seed).moves(["x", "y", "z"], seed=seed, n_permutations=60)
        assert moves is not None
        found += bool(standing_out(moves.score, moves.threshold, 6))
    # Five of a hundred are expected, two of forty; 8 or more have a chance below 0.001.
    assert found < 8
    moves = many_words(0.2, 0).moves(["x", "y", "z"], seed=0, n_permutations=60)
    assert moves is not None
    assert standing_out(moves.score, moves.threshold, 6) == [(1, 2)]
    assert moves.toward[1, 2].argmax() == 1


def test_bounds_of_all_cells_hold_for_all_cells() -> None:
    """Of noise a bound of single cells is passed nearly always, one of all cells hardly ever."""
    single = together = 0
    words = [f"w{i // 4}" for i in range(80)]
    for seed in range(40):
        rng = np.random.default_rng(seed)
        found, means = [], []
        for _ in range(2):
            phones = [str(p) for p in rng.permutation(np.arange(80) % 10)]
            values = rng.normal(0.5, 0.1, (80, 3))
            found.append(shuffle_phones(values, phones, words, seed=seed, n_permutations=80))
            means.append(found[-1].estimate)
        single += any(((e.value < e.low) | (e.value > e.high)).any() for e in means)
        bounds = familywise_bounds(found)
        outside = [(e.value < a) | (e.value > b) for e, (a, b) in zip(means, bounds, strict=True)]
        together += any(one.any() for one in outside)
    assert single >= 30 and together < 8


def test_bounds_of_all_cells_are_arithmetic_on_the_shuffles() -> None:
    values = np.array([[0.0], [1.0]])
    found = shuffle_phones(values, ["a", "b"], ["v", "w"], seed=3, n_permutations=100)
    # Each phone is 0 or 1: their middles add to 1, their spreads are alike.
    (p, q), (s, t) = found.middle[0], found.spread[0]
    assert p + q == pytest.approx(1) and s == pytest.approx(t) == pytest.approx((p * q) ** 0.5)
    largest = max(p, q) / s
    ((low, high),) = familywise_bounds([found])
    assert low[0] == pytest.approx(np.clip([p - largest * s, q - largest * s], 0, 1))
    assert high[0] == pytest.approx([1, 1])


def looks(told: str, head: str, pair: str) -> dict[str, float]:
    """Return what the report says of a head and pair: vowel, consonant."""
    lines = told[told.index(f"{head}: move") :].splitlines()[1:]
    line = next(one for one in lines if one.strip().startswith(pair))
    return {k: float(v) for k, v in re.findall(r"(vowel|consonant) ([\d.]+)", line)}


def check_told(told: str) -> None:
    """The planted truth in words: the card's best mover first, then the two pointers."""
    assert re.findall(r"layer \d head \d(?=: move)", told) == [
        "layer 1 head 3",
        "layer 2 head 2",
        "layer 0 head 3",
    ]
    size, edge = (looks(told, "layer 1 head 3", pair) for pair in ("big-small", "sharp-round"))
    assert size["vowel"] > 0.4 and size["consonant"] < 0.05
    assert edge["consonant"] > size["consonant"] + 0.15 and edge["vowel"] < size["vowel"] - 0.15
    vowels = looks(told, "layer 2 head 2", "big-small")
    assert vowels["vowel"] > 0.3 > 0.1 > vowels["consonant"]
    consonants = looks(told, "layer 0 head 3", "sharp-round")
    assert consonants["consonant"] > 0.4 > 0.1 > consonants["vowel"]


def filled(results: Results, style: WordStyle = STYLE) -> dict[str, dict[tuple[str, str], float]]:
    """Read head_phones: head -> (phone, pair) -> the filled part of the drawn cell."""
    figure = head_phones(results, style)
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    phones = [label.get_text() for label in panels[0].get_yticklabels()]
    found = {}
    for axes in panels:
        pairs = [label.get_text() for label in axes.get_xticklabels()]
        shapes = [c for c in axes.collections if isinstance(c, PolyCollection)]
        (squares,) = (c for c in shapes if c.get_array() is not None)
        parts = {}
        for outline in squares.get_paths():
            low, high = outline.vertices.min(axis=0), outline.vertices.max(axis=0)
            column, row = np.rint((low + high) / 2).astype(int)
            parts[phones[row], pairs[column]] = float(np.prod(high - low))
        found[axes.get_title(loc="left")] = parts
    return found


def check_drawn(path: Path) -> None:
    """The planted truth in shapes, in both figures of single heads."""
    with open_results(path) as results:
        drawn = filled(results)
        overview = class_overview(results, STYLE)
        with pytest.raises(ConfigError, match=r"select.head=9: the result holds heads 0, 1, 2, 3"):
            head_phones(results, WordStyle(dpi=40, layer=1, head=9))
        chosen = filled(results, WordStyle(dpi=40, layer=3, head=0))
    assert list(drawn) == ["layer 1, head 3", "layer 2, head 2", "layer 0, head 3"]
    assert list(chosen) == ["layer 3, head 0"]
    mover, vowels, consonants = drawn.values()
    # It turns from the vowels of one side to the consonants of one side; the card says so.
    assert all(mover[p, "big-small"] > 0.6 for p in SMALL)
    assert all(mover[p, "big-small"] < 0.1 for p in (*BIG, *SHARP, *ROUND))
    assert all(mover[p, "sharp-round"] > mover[p, "big-small"] + 0.1 for p in SHARP)
    assert all(mover[p, "sharp-round"] < mover[p, "big-small"] - 0.1 for p in SMALL)
    # The other two: big vowels for size, sharp consonants for sharpness.
    assert all(vowels[p, "big-small"] > 0.5 > vowels[p, "sharp-round"] for p in BIG)
    assert all(consonants[p, "sharp-round"] > 0.6 for p in SHARP)
    assert all(consonants[p, "sharp-round"] < 0.2 for p in (*SMALL, *BIG, *ROUND))
    first, *_ = overview.axes
    frames = {(r.get_x() + 0.46, r.get_y() + 0.46) for r in first.patches if type(r) is Rectangle}
    assert {(round(x), round(y)) for x, y in frames} == {(3, 1), (2, 2), (3, 0)}  # (head, layer)
    bars = {
        axes.get_title(loc="left"): [bar.get_height() for bar in axes.patches]
        for axes in overview.axes[1:]
        if axes.get_title(loc="left")
    }
    # Vowels of big-small and sharp-round, then consonants.
    size, edge, _, consonant = bars["layer 1, head 3"]
    assert size > 0.4 and edge < size - 0.15 and consonant > 0.15


def test_report_summary_and_figures_show_the_planted_truth(command) -> None:
    typed = ("task=semdim", "dataset.language=[en,ko]", "numbers.bootstrap=200", "batch_size=32")
    said = command(*typed, "visualization.figures=null", "capture.live_check=false")
    assert said.code == 0, said.err
    path = Path(said.out.strip().splitlines()[-1].removeprefix("results: "))
    check_told((path.parent / "exports" / "semdim_report.txt").read_text(encoding="utf-8"))
    check_told(command("mode=summary", f"results={path}").out)
    check_drawn(path)


def test_a_result_without_phones_has_no_heads(tmp_path: Path) -> None:
    from known_words import APPLE, asked, written

    with written(tmp_path, asked([APPLE])) as results:
        for draw in (class_overview, head_phones):
            with pytest.raises(NothingToDrawError, match="the result holds no Head"):
                draw(results, STYLE)
