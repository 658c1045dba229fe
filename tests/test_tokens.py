"""TokenMap: it finds tokens by what they are, and refuses to be inconsistent."""

import pytest

from interp_lab.tokens import Token, TokenMap


def small_map() -> TokenMap:
    cells = [Token("<i>", "image", "image", image=0, cell=(r, c)) for r in (0, 1) for c in (0, 1)]
    text = [
        Token("a", "user", chars=(0, 1)),
        Token("bc", "word", chars=(1, 3), label="word"),
        Token("d", "assistant", chars=(3, 4)),
    ]
    sound = [Token("~", "audio", "audio", seconds=(i * 0.04, (i + 1) * 0.04)) for i in range(3)]
    return TokenMap(tuple(cells + text + sound), grids=((2, 2),), prompt="abcd")


def test_where_meets_every_condition() -> None:
    tokens = small_map()
    assert tokens.where(modality="image") == (0, 1, 2, 3)
    assert tokens.where(role=("word", "assistant"), modality="text") == (5, 6)
    assert tokens.where(label="word") == (5,)


def test_characters_and_seconds_find_the_tokens_they_touch() -> None:
    tokens = small_map()
    assert tokens.at_chars(2, 4) == (5, 6)
    assert tokens.at_seconds(0.0, 0.07) == (7, 8)


def test_json_round_trip_is_exact() -> None:
    tokens = small_map()
    assert TokenMap.from_json(tokens.to_json()) == tokens


def test_table_has_a_line_a_token() -> None:
    lines = small_map().table().splitlines()
    assert len(lines) == 1 + 10
    assert "row 1 col 0" in lines[3]


@pytest.mark.parametrize(
    ("tokens", "options", "says"),
    [
        ([Token("x", "image", "image", image=0, cell=(0, 0))], {"grids": ((1, 2),)}, "grid"),
        ([Token("x", "image", "image", image=0, cell=(0, 0))], {}, "without a grid"),
        ([Token("x", "user", chars=(0, 5))], {"prompt": "abc"}, "leave the prompt"),
        (
            [Token("x", "user", chars=(2, 3)), Token("y", "user", chars=(0, 1))],
            {"prompt": "abc"},
            "overlap",
        ),
        ([Token("x", "audio", "audio", seconds=(2.0, 1.0))], {}, "backwards"),
    ],
)
def test_an_inconsistent_map_is_refused(
    tokens: list[Token], options: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        TokenMap(tuple(tokens), **options)


@pytest.mark.parametrize("values", [{"role": "nobody"}, {"role": "user", "modality": "smell"}])
def test_unknown_roles_and_modalities_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not one of"):
        Token("x", **values)
