"""What figures about a word share: its tokens and phones, the choice of layers and heads, titles.

Everything here reads a result and returns plain values; drawing is in the modules beside it.
"""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from interp_lab.errors import ConfigError
from interp_lab.fields import Category, Document, Field, Scalar
from interp_lab.statistics.bands import NAMES, BandRule, layer_bands
from interp_lab.store.results import Results
from interp_lab.visualization.base import NothingToDrawError, Style
from interp_lab.visualization.reading import read_ragged, shown
from interp_lab.visualization.sheets import Heading
from interp_lab.visualization.toolbox import SECOND, TOP, USE_CAPTION

WORD_COLOR = "0.2"
# First and second side: the ends of the diverging colours as well.
COLORS = {"dim1": TOP, "dim2": SECOND, "option1": TOP, "option2": SECOND}


@dataclass(frozen=True)
class WordStyle(Style):
    """Style of figures about words (see `Style` for the rest).

    Args:
        layer: the one layer that figures show, by its number in the model; null = bands of layers.
        head: the one head that they show; null = the mean over heads.
        bands: into how many bands of equal size the layers are divided; 1 = the mean over all.
        band_rule: where a band begins if they cannot be equal; see `statistics.bands.layer_bands`.
    """

    layer: int | None = None
    head: int | None = None
    bands: int = 3
    band_rule: BandRule = "nearest"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_number("bands", 1, 100, whole=True)
        for key in ("layer", "head"):
            if getattr(self, key) is not None:
                self._check_number(key, 0, 10_000, whole=True)


@dataclass(frozen=True)
class Token:
    """A token of a figure's axis.

    Args:
        text: as it is written.
        group: word, dim1, dim2, option1, option2 or answer.
        seconds: start and end in the sound, for a token of audio.
    """

    text: str
    group: str
    seconds: tuple[float, float] | None = None

    @property
    def label(self) -> str:
        """The text as a label: composed letters, no space around it, blanks made visible."""
        return shown(self.text)

    @property
    def color(self) -> str:
        """The colour of the token's group."""
        return COLORS.get(self.group, WORD_COLOR)


@dataclass(frozen=True)
class Unit:
    """A phone or token of a word: its label, its word tokens, and its place from start to end."""

    label: str
    keys: tuple[int, ...]
    start: float
    end: float
    unit: str


@dataclass(frozen=True)
class Band:
    """Layers that one panel averages: their name, and their rows in the arrays."""

    name: str
    rows: np.ndarray


def read_tokens(results: Results, sample: str, name: str) -> list[Token]:
    """Return the tokens that the Document `name` of a sample lists.

    Raises:
        NothingToDrawError: if the result does not hold it.
    """
    rows = json.loads(_document(results, sample, name))
    pairs = [(row, row.get("seconds")) for row in rows]
    return [
        Token(row["text"], row["group"], (float(s[0]), float(s[1])) if s else None)
        for row, s in pairs
    ]


def read_units(results: Results, sample: str, name: str = "units") -> list[Unit]:
    """Return the phones or tokens of a sample's word; none if the result does not hold them."""
    try:
        rows = json.loads(_document(results, sample, name))
    except NothingToDrawError:
        return []
    return [
        Unit(
            unicodedata.normalize("NFC", row["label"]),
            tuple(row["keys"]),
            float(row["start"]),
            float(row["end"]),
            row["unit"],
        )
        for row in rows
    ]


def _document(results: Results, sample: str, name: str) -> str:
    field = results.fields.get(name)
    if not isinstance(field, Document):
        raise NothingToDrawError(f"the result holds no Document {name}")
    return str(read_ragged(results, name, sample))


def spans(tokens: Sequence[Token]) -> list[tuple[str, int, int]]:
    """Return (group, first token, behind the last token) of each run of tokens of one group."""
    found = []
    for group, members in groupby(enumerate(tokens), key=lambda pair: pair[1].group):
        places = [place for place, _ in members]
        found.append((group, places[0], places[-1] + 1))
    return found


def numbers_of(results: Results, axis: str, n: int) -> list[int]:
    """Return the numbers in the model of the `n` entries on the axis `layer` or `head`.

    An analysis that stores some of them names them in an aggregate Document `layers` or `heads`.
    """
    name = f"{axis}s"
    if isinstance(results.aggregates.get(name), Document):
        numbers = json.loads(str(results.aggregate(name)))
        if len(numbers) == n:
            return [int(number) for number in numbers]
    return list(range(n))


def bands_of(
    results: Results, n_layers: int, style: WordStyle, bands: int | None = None
) -> list[Band]:
    """Return which layers each panel averages: the chosen one, or bands of equal size.

    With `band_rule: nearest` the borders are those of a knock-out's bands.

    Args:
        results: an open result.
        n_layers: length of the layer axis.
        style: gives `layer`, `bands` and `band_rule`.
        bands: another number of bands.

    Raises:
        ConfigError: if the chosen layer is not stored.
    """
    numbers = numbers_of(results, "layer", n_layers)
    if style.layer is not None:
        return [Band(f"layer {style.layer}", np.array([_place("layer", style.layer, numbers)]))]
    n_bands = min(bands or style.bands, n_layers)
    parts = [np.array(band) for band in layer_bands(n_layers, n_bands, style.band_rule)]
    names = NAMES.get(len(parts), ("mean of" if len(parts) == 1 else "",) * len(parts))
    named = zip(names, parts, strict=True)
    return [Band(_band_name(name, part, numbers), part) for name, part in named]


def _band_name(name: str, rows: np.ndarray, numbers: Sequence[int]) -> str:
    first, last = numbers[rows[0]], numbers[rows[-1]]
    layers = f"layer {first}" if len(rows) == 1 else f"layers {first}–{last}"
    return f"{name} {layers}".strip()


def heads_of(results: Results, n_heads: int, style: WordStyle) -> tuple[np.ndarray, str]:
    """Return the rows of the head axis that a figure averages, and what to call them.

    Raises:
        ConfigError: if the chosen head is not stored.
    """
    if n_heads == 1 and style.head is not None:
        raise ConfigError(
            f"select.head={style.head}: the result holds one mean over the heads; "
            "analysis.matrix_heads=all, added to the command of the run, measures each"
        )
    numbers = numbers_of(results, "head", n_heads)
    if style.head is not None:
        return np.array([_place("head", style.head, numbers)]), f"head {style.head}"
    words = "mean over heads" if n_heads == 1 else f"mean over {n_heads} heads"
    return np.arange(n_heads), words


def _place(axis: str, number: int, numbers: Sequence[int]) -> int:
    if number not in numbers:
        whole = list(numbers) == list(range(len(numbers)))
        there = f"0 to {len(numbers) - 1}" if whole else ", ".join(map(str, numbers))
        raise ConfigError(f"select.{axis}={number}: the result holds {axis}s {there}")
    return numbers.index(number)


def word_heading(
    results: Results,
    sample: str,
    title: str,
    fields: Sequence[Field],
    words: Sequence[str],
    foot: str,
    *,
    of_one: bool = True,
) -> Heading:
    """Return what stands above and below a figure of one sample, or of several of one word.

    Args:
        results: an open result.
        sample: whose word, language and answer are told.
        title: `{word}`, `{dimension1}` and the like are filled in.
        fields: what is drawn; their definitions are named.
        words: what else the subtitle says, such as the heads.
        foot: how to read it; the sentence on use follows.
        of_one: tell also the sample's answer and its option order.
    """
    facts = facts_of(results, sample)
    about = [facts[key] for key in ("language", "data_type") if key in facts]
    if of_one and "answer" in facts and "predicted" in facts:
        is_right = facts["answer"] == facts["predicted"]
        verdict = "right" if is_right else f"answer: {side_of(facts, 'answer')}"
        about.append(f"model says {side_of(facts, 'predicted') or 'nothing'} ({verdict})")
    if of_one and "flipped" in facts:
        about.append("options flipped" if float(facts["flipped"]) else "options in order")
    known = results.attributes
    about += [*words, *(str(known[key]) for key in ("model", "dataset") if known.get(key))]
    about += dict.fromkeys(field.definition for field in fields if field.definition)
    filled = title.format_map(facts)
    return Heading(filled, " · ".join(about), tuple(results.notes), f"{foot} {USE_CAPTION}")


def side_of(facts: Mapping[str, str], key: str) -> str:
    """Return the dimension that an answer names by its number as shown: 1 is dimension1."""
    if facts.get(f"{key}_word"):
        return facts[f"{key}_word"]
    said = facts.get(key, "")
    return facts.get(f"dimension{said}", said) if said in ("1", "2") else said


def facts_of(results: Results, sample: str) -> dict[str, str]:
    """Return a sample's Category and Scalar fields as texts."""
    kinds = (Category, Scalar)
    return {
        field.name: unicodedata.normalize("NFC", str(results.read(field.name, sample)))
        for field in results.of_kind(*kinds)
        if not field.ragged
    }
