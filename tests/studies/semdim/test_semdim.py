"""semdim: fractions by hand, spans by place, and the aggregates of what a run stores."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp_lab.errors import SampleError
from interp_lab.statistics.bands import layers_of
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter, list_parts
from interp_lab.store.results import open_results
from interp_lab.studies.semdim.analysis import SemanticDimensionAttention
from interp_lab.studies.semdim.numbers import WordNumbers
from interp_lab.studies.semdim.spans import word_spans
from interp_lab.tokens import Token, TokenMap

PROMPT = "big X 1: big 2: small ?"


def token_map(word: str = "X") -> TokenMap:
    """`big` stands in the instruction too, and there it is no dimension."""
    return TokenMap(
        (
            Token("big", "user", chars=(0, 3)),
            Token(word, "word", chars=(4, 5), label="word"),
            Token("1", "option", chars=(6, 7), label="number1"),
            Token("big", "option", chars=(9, 12), label="dim1"),
            Token("2", "option", chars=(13, 14), label="number2"),
            Token("sm", "option", chars=(16, 18), label="dim2"),
            Token("all", "option", chars=(18, 21), label="dim2"),
            Token("?", "assistant", chars=(22, 23)),
        ),
        prompt=PROMPT,
    )


def test_spans_are_found_by_role_and_place() -> None:
    spans = word_spans(token_map(), "option")
    assert (spans.word, spans.dim1, spans.dim2) == ((1,), (3,), (5, 6))
    assert (spans.option1, spans.option2, spans.answer) == ((2, 3), (4, 5, 6), 7)
    groups = [t["group"] for t in json.loads(spans.described(token_map(), "flow"))]
    assert groups == ["word", "option1", "option1", "option2", "option2", "option2", "answer"]


def test_a_third_option_is_among_the_options_and_no_dimension() -> None:
    third = (
        Token("3", "option", chars=(22, 23), label="number3"),
        Token("no", "option", chars=(23, 24), label="neither"),
        Token("?", "assistant", chars=(24, 25)),
    )
    tokens = TokenMap((*token_map().tokens[:-1], *third), prompt=PROMPT + "  ")
    spans = word_spans(tokens, ["option"])
    assert (spans.option3, spans.options) == ((7, 8), (2, 3, 4, 5, 6, 7, 8))
    assert (spans.dimensions, spans.flow) == ((3, 5, 6), (1, 2, 3, 4, 5, 6, 7, 8, 9))


def test_a_prompt_without_dimension_tokens_is_a_failed_sample() -> None:
    with pytest.raises(SampleError, match="first dimension"):
        word_spans(token_map(), "dimension")


def test_units_are_phones_by_characters_or_seconds_else_tokens() -> None:
    written = TokenMap(
        (
            Token(" t͡ʃ", "word", chars=(0, 4)),
            Token(" ɯː", "word", chars=(4, 7)),
            *token_map().tokens[2:0],
            Token("1", "option", chars=(7, 8), label="number1"),
            Token("b", "option", chars=(8, 9), label="dim1"),
            Token("2", "option", chars=(9, 10), label="number2"),
            Token("s", "option", chars=(10, 11), label="dim2"),
        ),
        prompt=" t͡ʃ ɯː1b2s",
    )
    spans = word_spans(written, "option")
    units = spans.units(written, (("t͡ʃ", 0, 3), ("ɯː", 4, 6)), "char")
    assert [(u["label"], u["keys"]) for u in units] == [("t͡ʃ", [0]), ("ɯː", [1])]
    assert [u["label"] for u in spans.units(written, (), None)] == [" t͡ʃ", " ɯː"]
    heard = TokenMap(
        tuple(Token("~", "audio", "audio", seconds=(i * 0.04, i * 0.04 + 0.04)) for i in range(5))
        + tuple(Token(t.text, t.role, label=t.label) for t in token_map().tokens[2:])
    )
    units = word_spans(heard, "option").units(
        heard, (("K", 0.0, 0.08), ("IY0", 0.12, 0.2)), "second"
    )
    assert [(u["label"], u["keys"]) for u in units] == [("K", [0, 1]), ("IY0", [3, 4])]


def test_bands_cover_all_layers_once() -> None:
    parts = [layers_of(band, 28) for band in ("early", "middle", "late")]
    assert sum(parts, ()) == layers_of("all", 28) == tuple(range(28))


def stored(folder: Path, rows: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """Write samples with these fractions and return the aggregates by name."""
    analysis, numbers = SemanticDimensionAttention(), WordNumbers(bootstrap=100, **options)
    writer = PartWriter(folder / "parts", analysis.fields)
    ids = []
    for number, row in enumerate(rows):
        share = np.asarray(row["share"], dtype=float)[None, None]
        units = [{"label": label} for label in row["phones"]]
        order = "flipped" if row["flipped"] else "plain"
        ids.append(f"en/{row['word']}/big-small/{order}")
        writer.add(
            number,
            ids[-1],
            {
                "fraction_sum": share,
                "fraction_mean": share,
                "mass": np.ones_like(share),
                "units": json.dumps(units),
                "pair": "big-small",
                "n_dim1_tokens": 1,
                "n_dim2_tokens": 1,
                "flipped": int(row["flipped"]),
                "correct": int(row.get("correct", 1)),
            },
        )
    writer.flush()
    about = {"definitions": json.dumps(analysis.definitions)}
    merge(list_parts(folder / "parts"), ids, folder / "r.h5", about, lambda _: [])
    with open_results(folder / "r.h5") as results:
        return {f.name: value for f, value in numbers.compute(results)}


ROWS = [
    # Shown as big/small the share of big is 0.8 and 0.4; as small/big that of small is 0.4, 0.6.
    {"word": "ki", "phones": ["k", "i"], "share": [0.8, 0.4], "flipped": False},
    {"word": "ki", "phones": ["k", "i"], "share": [0.4, 0.6], "flipped": True},
    {"word": "ka", "phones": ["k", "a"], "share": [0.5, 0.9], "flipped": False, "correct": 0},
    {"word": "ka", "phones": ["k", "a"], "share": [0.5, 0.1], "flipped": True},
]


def test_orders_are_averaged_after_they_are_turned_to_the_same_feature(tmp_path: Path) -> None:
    found = stored(tmp_path, ROWS)
    assert json.loads(found["phones"]) == ["a", "i", "k"]
    # ki: k (0.8 + 0.6) / 2, i (0.4 + 0.4) / 2; ka: k 0.5, a (0.9 + 0.9) / 2.
    np.testing.assert_allclose(found["phone_dimension"][0, :, 0], [0.9, 0.4, (0.7 + 0.5) / 2])
    assert found["phone_dimension_count"][0, :, 0].tolist() == [1, 1, 2]
    np.testing.assert_allclose(found["dimension_curve"][0, 0], ((0.7 + 0.4) / 2 + 0.7) / 2)
    assert found["accuracy"] == 0.75 and found["n_dropped"] == 0


def test_correct_only_drops_the_pair_and_counts_it(tmp_path: Path) -> None:
    found = stored(tmp_path, ROWS, correct_only=True)
    assert found["n_dropped"] == 1
    assert json.loads(found["phones"]) == ["i", "k"]
    np.testing.assert_allclose(found["phone_dimension"][0, :, 0], [0.4, 0.7])
