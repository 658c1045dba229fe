"""Where a sample's texts stand in a chat prompt: by place, whatever else looks like them."""

from collections.abc import Callable, Sequence

import pytest

from interp_lab.datasets.base import Sample
from interp_lab.datasets.semdim_prompts import TextSpan
from interp_lab.errors import SampleError
from interp_lab.models.language import chat

Render = Callable[[Sequence[str]], str]


def template(system: str | None = None, between: str = "") -> Render:
    """A chat format: a system turn, the user's texts with something between, the answer begun."""
    before = f"<s>{system}</s>" if system is not None else ""
    return lambda texts: f"{before}<u>{between.join(texts)}</u><a>"


def sample(*texts: str, system: str | None = None, spans: tuple[TextSpan, ...] = ()) -> Sample:
    parts = tuple(part for text in texts for part in (("text", text), ("audio", 0)))[:-1]
    return Sample("x", parts, facts={"spans": spans}, system=system)


def test_a_word_that_the_system_turn_holds_too_is_found_where_it_stands() -> None:
    asked = sample(
        "big", "\n1: big\n", system="Say big or u.", spans=(TextSpan(2, 4, 7, "o", "d"),)
    )
    prompt, spans = chat(asked, template("Say big or u.", "[clip]"))
    assert prompt == "<s>Say big or u.</s><u>big[clip]\n1: big\n</u><a>"
    found = [(prompt[s.start : s.end], s.role) for s in spans]
    first, second = "<s>Say big or u.</s><u>", "</u><a>"
    assert found == [
        ("big", "o"),
        ("big", "user"),
        ("\n1: big\n", "user"),
        (first, "system"),
        (second, "assistant"),
    ]
    assert spans[0].start == len("<s>Say big or u.</s><u>big[clip]\n1: ")
    assert spans[1].start == len("<s>Say big or u.</s><u>")


@pytest.mark.parametrize("text", ["u", "", "  \n ends in blanks \n", "{word} %s", "<u>"])
def test_a_text_is_taken_as_it_is(text: str) -> None:
    prompt, spans = chat(sample(text), template("u u"))
    (user,) = [s for s in spans if s.role == "user"]
    assert prompt[user.start : user.end] == text and user.start == len("<s>u u</s><u>")


@pytest.mark.parametrize("text", [" a", "a ", "a\n", " "])
def test_a_template_that_trims_is_said(text: str) -> None:
    with pytest.raises(SampleError, match="template changes the text"):
        chat(sample(text), lambda texts: f"<u>{texts[0].strip()}</u>")


def test_a_template_without_a_system_turn_is_said() -> None:
    with pytest.raises(SampleError, match="no place for it"):
        chat(sample("Be short. Who?", system="Be short."), template())
    chat(sample("Who?", system="Be short."), template("Be short."))
