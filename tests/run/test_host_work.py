"""Work on the host grows with the prompt, not with its square: looks at tokens are counted."""

from collections.abc import Iterator
from typing import Any

import pytest

from interp_lab.capture.roles import interventions_for
from interp_lab.models.tokenmaps import with_generated
from interp_lab.studies.scienceqa.analysis import ABOUT, head_plan
from interp_lab.studies.semdim.spans import word_spans
from interp_lab.studies.trajectory.analysis import AnswersOfModel, Trajectory, chosen_layers
from interp_lab.tokens import Token, TokenMap


class Looks:
    """How often tokens or positions were looked at."""

    count = 0


class Counted(tuple):  # type: ignore[type-arg]
    """A tuple that counts each entry that is read of it, also by functions written in C."""

    def __iter__(self) -> Iterator[Any]:
        for entry in super().__iter__():
            Looks.count += 1
            yield entry

    def __getitem__(self, place: Any) -> Any:
        Looks.count += 1
        return super().__getitem__(place)


def long_map(scale: int) -> TokenMap:
    """A prompt in which everything grows: pictures, words, sound, the marked words."""
    cells = [
        Token("<i>", "image", "image", image=i, cell=(r, c))
        for i in range(scale)
        for r in range(3)
        for c in range(4)
    ]
    sound = [
        Token("~", "audio", "audio", seconds=(i * 0.04, (i + 1) * 0.04)) for i in range(6 * scale)
    ]
    marks = [
        ("word", "word"),
        ("option", "number1"),
        ("option", "dim1"),
        ("option", "number2"),
        ("option", "dim2"),
        ("user", None),
    ]
    text = [(role, label) for role, label in marks for _ in range(scale)]
    words = [
        Token("a", role, chars=(i, i + 1), label=label) for i, (role, label) in enumerate(text)
    ]
    grids = ((3, 4),) * scale
    return TokenMap(Counted([*cells, *sound, *words]), grids, "a" * len(words))


def looks(work: str, scale: int, monkeypatch: pytest.MonkeyPatch) -> int:
    Looks.count = 0
    tokens = long_map(scale)
    found = TokenMap.where
    with monkeypatch.context() as patch:
        patch.setattr(TokenMap, "where", lambda *a, **k: Counted(found(*a, **k)))
        if work in ABOUT:
            head_plan(work, tokens)  # type: ignore[arg-type]
        elif work == "trajectory":
            AnswersOfModel(Trajectory(), chosen_layers(None, 28)).plans(tokens)
            with_generated(tokens, ["b"] * scale).to_json()
        elif work == "semdim":
            spans = word_spans(tokens, "option")
            char, second = [
                (s, [("p", i, i + 1) for i in range(scale)]) for s in ("char", "second")
            ]
            for unit, phones in (char, second):
                spans.units(tokens, phones, unit)
            spans.described(tokens, "flow")
            tokens.to_json()
        else:
            spec = {"kind": "block", "queries": {"role": "option"}, "keys": {"modality": "image"}}
            interventions_for([spec] * 3, tokens)
    return Looks.count


@pytest.mark.parametrize("work", [*ABOUT, "trajectory", "semdim", "interventions"])
def test_four_times_the_prompt_is_four_times_the_work(
    work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (looks(work, scale, monkeypatch) for scale in (20, 80))
    # The square would be 16 times; sorting adds a little to 4.
    assert 0 < many <= 5 * few


def test_lists_of_a_map_are_those_of_a_search_from_token_to_token() -> None:
    tokens = long_map(3)
    listed = list(tuple.__iter__(tokens.tokens))  # type: ignore[arg-type]
    for role in ("word", ("option", "image"), None):
        for image in (None, 0, 2, 7):
            for label in (None, "dim1"):
                roles = (role,) if isinstance(role, str) else role
                want = [
                    i
                    for i, t in enumerate(listed)
                    if (roles is None or t.role in roles)
                    and (image is None or t.image == image)
                    and (label is None or t.label == label)
                ]
                assert list(tokens.where(role=role, image=image, label=label)) == want
    for start in range(-1, 20):
        for end in range(start, 20):
            at = [
                i
                for i, t in enumerate(listed)
                if t.chars and t.chars[0] < end and start < t.chars[1]
            ]
            assert list(tokens.at_chars(start, end)) == at
            span = start * 0.03, end * 0.03
            heard = [
                i
                for i, t in enumerate(listed)
                if t.seconds and span[0] <= sum(t.seconds) / 2 < span[1]
            ]
            assert list(tokens.at_seconds(*span)) == heard


def test_pieces_of_one_character_are_found_by_all_of_its_characters() -> None:
    """Starts never run backwards, but an end may lie before the end of a token before it."""
    ranges = [(0, 6), (0, 2), (2, 3), (2, 3), (3, 9), (9, 10)]
    tokens = TokenMap(tuple(Token("x", "user", chars=c) for c in ranges), (), "0123456789")
    for start in range(10):
        for end in range(start, 11):
            want = [i for i, (a, b) in enumerate(ranges) if a < end and start < b]
            assert list(tokens.at_chars(start, end)) == want
