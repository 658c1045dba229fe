"""Prompts of the semdim study: where each word stands, whatever else looks like it."""

import json
from pathlib import Path
from typing import Any

import pytest

from interp_lab.datasets.semdim_prompts import (
    DATA_TYPES,
    PromptParts,
    parse_template,
    read_prompt,
    read_template,
)
from interp_lab.errors import ConfigError, MissingInputError

SHOWN = [
    ("dimension", "dim1"),
    ("dimension", "dim2"),
    ("option", "number1"),
    ("option", "dim1"),
    ("option", "number2"),
    ("option", "dim2"),
]


def marked(prompt: PromptParts) -> list[tuple[str, str, str]]:
    """Role, label and text of each span."""
    texts = [str(value) for _, value in prompt.parts]
    return [(s.role, s.label, texts[s.part][s.start : s.end]) for s in prompt.spans]


def before(prompt: PromptParts, role: str, label: str) -> str:
    """The text of a span's line that stands before it."""
    (span,) = [s for s in prompt.spans if (s.role, s.label) == (role, label)]
    return str(prompt.parts[span.part][1])[: span.start].rpartition("\n")[2]


@pytest.mark.parametrize("data_type", ["original", "romanized", "ipa"])
@pytest.mark.parametrize("word", ["sound", "1", "the", "big", "smal", "t͡ʃ u", "단어", "ni {word}"])
def test_spans_are_of_the_places_and_of_nothing_that_looks_alike(data_type: str, word: str) -> None:
    prompt = read_template(None, data_type).fill(word, "small", "big")
    ((kind, text),) = prompt.parts
    assert kind == "text"
    texts = {"dim1": "small", "dim2": "big", "number1": "1", "number2": "2"}
    expected = [("word", "word", word), *((r, n, texts[n]) for r, n in SHOWN)]
    assert marked(prompt) == expected
    (span,) = [s for s in prompt.spans if s.role == "word"]
    assert str(text)[: span.start].endswith("[WORD]\n")
    assert str(text)[span.end :].startswith("\n\n[SEMANTIC DIMENSION]\nsmall vs big\n")
    assert before(prompt, "dimension", "dim2") == "small vs "
    assert before(prompt, "option", "dim2") == "2: "
    assert before(prompt, "option", "number2") == ""


def test_audio_is_a_part_between_two_texts() -> None:
    prompt = read_template(None, "audio").fill("", "sharp", "round")
    assert [kind for kind, _ in prompt.parts] == ["text", "audio", "text"]
    assert prompt.parts[1] == ("audio", 0)
    assert str(prompt.parts[0][1]).endswith("[WORD]\n")
    assert [(role, label) for role, label, _ in marked(prompt)] == SHOWN
    assert {s.part for s in prompt.spans} == {2}
    assert marked(prompt)[-1] == ("option", "dim2", "round")


def test_the_default_prompts_differ_in_how_the_word_is_described_only() -> None:
    texts = {t: read_template(None, t).fill("x", "a", "b").parts for t in DATA_TYPES}
    firsts = [str(parts[0][1]).split("\n", 1)[0] for parts in texts.values()]
    assert len(set(firsts)) == 4
    rests = {str(parts[0][1]).split("\n", 1)[1] for t, parts in texts.items() if t != "audio"}
    assert len(rests) == 1


@pytest.mark.parametrize("place", ["{audio}", "{word}"])
def test_both_marks_for_audio_and_a_clip_at_the_end(place: str) -> None:
    text = f"{{dimension1}} or {{dimension2}}: 1. {{dimension1}} (2) {{dimension2}}? {place}"
    prompt = parse_template(text, "audio").fill("never shown", "big", "small")
    assert prompt.parts == (("text", "big or small: 1. big (2) small? "), ("audio", 0))
    assert marked(prompt) == [
        ("dimension", "dim1", "big"),
        ("dimension", "dim2", "small"),
        ("option", "number1", "1"),
        ("option", "dim1", "big"),
        ("option", "number2", "2"),
        ("option", "dim2", "small"),
    ]


def test_a_word_may_stand_twice_and_braces_may_be_written() -> None:
    text = "{{json}} {word}\n1: {dimension1}\n2: {dimension2}\n{word}? 3{dimension1}"
    prompt = parse_template(text, "ipa").fill("o", "big", "small")
    assert prompt.parts == (("text", "{json} o\n1: big\n2: small\no? 3big"),)
    words = [(s.start, s.end) for s in prompt.spans if s.role == "word"]
    assert words == [(7, 8), (25, 26)]
    assert marked(prompt)[-1] == ("dimension", "dim1", "big")


@pytest.mark.parametrize(
    ("text", "data_type", "says"),
    [
        ("{word} {dimension1}", "ipa", r"placeholder \{dimension2\} is missing"),
        ("{dimension1} {dimension2}", "ipa", r"placeholder \{word\} is missing"),
        ("{dimension1} {dimension2}", "audio", r"placeholder \{audio\} is missing"),
        ("{wrd} {dimension1} {dimension2}", "ipa", r"unknown placeholder \{wrd\}.*'word'"),
        ("{} {dimension1} {dimension2}", "ipa", r"unknown placeholder \{\}"),
        ("{audio} {dimension1} {dimension2}", "ipa", r"unknown placeholder \{audio\}"),
        ("{word!r} {dimension1} {dimension2}", "ipa", r"unknown placeholder \{word!r\}"),
        ("{word:>9} {dimension1} {dimension2}", "ipa", r"unknown placeholder \{word:>9\}"),
        ("{word} {dimension1} {dimension2", "ipa", "a brace has no partner"),
        ("{word} } {dimension1} {dimension2}", "ipa", "a brace has no partner"),
        ("{audio} {audio} {dimension1} {dimension2}", "audio", "should stand once"),
        ("{word} {word} {dimension1} {dimension2}", "audio", "should stand once"),
        ("{word}\n1: {dimension2}\n2: {dimension1}", "ipa", r"option 1 .* hold \{dimension1\}"),
    ],
)
def test_a_wrong_template_is_refused(text: str, data_type: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_template(text, data_type)


def prompt_file(folder: Path, content: Any) -> str:
    file = folder / "prompts.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return str(file)


def test_a_prompt_file_has_a_template_a_type(tmp_path: Path) -> None:
    texts = {"ipa": "{word} {dimension1} {dimension2}", "audio": "{word}{dimension1}{dimension2}"}
    types = {f"semantic_dimension_binary_{t}": {"user_prompt": text} for t, text in texts.items()}
    file = prompt_file(tmp_path, {"semantic_dimension": types, "other": 1})
    assert read_template(file, "ipa").fill("u", "a", "b").parts == (("text", "u a b"),)
    assert read_template(file, "audio").fill("", "a", "b").parts == (("audio", 0), ("text", "ab"))
    with pytest.raises(ConfigError, match="no 'semantic_dimension_binary_original' at semantic_"):
        read_template(file, "original")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "no 'semantic_dimension' at the top level, which has: nothing"),
        ([], "no 'semantic_dimension' at the top level, which has: no object"),
        ({"semantic_dimension": {"semantic_dimension_binary_ipa": {"text": ""}}}, "has: text"),
        ({"semantic_dimension": {"semantic_dimension_binary_ipa": {"user_prompt": 1}}}, "no.* a t"),
        (
            {"semantic_dimension": {"semantic_dimension_binary_ipa": {"user_prompt": "{word}"}}},
            r"dataset.prompt_file=.*prompts.json: placeholder \{dimension1\} is missing",
        ),
    ],
)
def test_a_wrong_prompt_file_is_refused(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_template(prompt_file(tmp_path, content), "ipa")


def test_a_prompt_file_has_to_be_there_and_json(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"dataset.prompt_file.*not JSON"):
        read_template(prompt_file(tmp_path, "{"), "ipa")
    with pytest.raises(MissingInputError, match=r"no such file.*Did you mean 'prompts.json'"):
        read_template(str(tmp_path / "prompt.json"), "ipa")


# The published texts (arXiv 2511.10045), typed here once more.
ASKED = (
    "which semantic feature best describes the word based on auditory impression?\n\n[WORD]\n{word}"
    "\n\n[SEMANTIC DIMENSION]\n{dimension1} vs {dimension2}\n\n[OPTIONS]\n1: {dimension1}\n2: "
    "{dimension2}\nAnswer with the number only. (1-2)"
)
PUBLISHED = {
    "original": "Given a [WORD], " + ASKED,
    "romanized": "Given a Romanized [WORD], " + ASKED,
    "ipa": "Given a IPA [WORD], " + ASKED,
    "audio": "Given a spoken [WORD], " + ASKED.replace("{word}", "{audio}"),
}
SYSTEM = (
    "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of "
    "perceiving auditory and visual inputs, as well as generating text and speech."
)


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_the_published_prompts_sign_by_sign(data_type: str) -> None:
    prompt = read_prompt("lex_icon", None, data_type)
    assert prompt.stated == {
        f"lex_icon.{data_type}.system": SYSTEM,
        f"lex_icon.{data_type}": PUBLISHED[data_type],
    }
    parts = prompt.template.fill("word", "vs", "best").parts
    filled = "".join(str(value) if kind == "text" else "{audio}" for kind, value in parts)
    of = {"{word}": "word", "{dimension1}": "vs", "{dimension2}": "best"}
    expected = PUBLISHED[data_type]
    for mark, text in of.items():
        expected = expected.replace(mark, text)
    assert filled == expected


def test_published_spans_are_right_where_the_words_stand_elsewhere_too() -> None:
    prompt = read_prompt("lex_icon", None, "original").template.fill("word", "vs", "best")
    assert marked(prompt) == [
        ("word", "word", "word"),
        ("dimension", "dim1", "vs"),
        ("dimension", "dim2", "best"),
        ("option", "number1", "1"),
        ("option", "dim1", "vs"),
        ("option", "number2", "2"),
        ("option", "dim2", "best"),
    ]
    text = str(prompt.parts[0][1])
    places = {(s.role, s.label): text[: s.start] for s in prompt.spans}
    assert places["word", "word"].endswith("\n\n[WORD]\n")
    assert places["dimension", "dim1"].endswith("[SEMANTIC DIMENSION]\n")
    assert places["option", "dim2"].endswith("\n2: ")


@pytest.mark.parametrize("name", ["product", "lex_icon"])
def test_a_third_option_is_one_to_answer_with(name: Any) -> None:
    prompt = read_prompt(name, None, "ipa", neither=True)
    assert prompt.third == "neither" and f"{name}.ipa.neither" in prompt.stated
    spans = marked(prompt.template.fill("u", "big", "small"))
    assert spans[-2:] == [("option", "number3", "3"), ("option", "neither", "neither")]
    assert prompt.text.split("[OPTIONS]\n")[1].startswith(
        "1: {dimension1}\n2: {dimension2}\n3: neither\n"
    )
    two = read_prompt(name, None, "ipa")
    assert two.third is None and "3" not in two.text


def test_own_texts_are_kept_blanks_and_all_with_their_system_prompt(tmp_path: Path) -> None:
    user = "\n {word}  {dimension1} {dimension2} \n"
    own = {"user_prompt": user, "system_prompt": "  Be short. {curly}\n"}
    types = {"semantic_dimension_binary_ipa": own}
    types["semantic_dimension_ipa"] = {"user_prompt": user + "3) none of both (sorry)"}
    file = prompt_file(tmp_path, {"semantic_dimension": types})
    prompt = read_prompt("product", file, "ipa")
    assert prompt.stated == {"own.ipa.system": "  Be short. {curly}\n", "own.ipa": user}
    assert prompt.template.fill("u", "a", "b").parts == (("text", "\n u  a b \n"),)
    three = read_prompt("product", file, "ipa", neither=True)
    assert (three.third, three.system) == ("none of both", None)
    with pytest.raises(ConfigError, match="dataset.prompt=lex_icon and .*: give one"):
        read_prompt("lex_icon", file, "ipa")


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (
            {"user_prompt": "{word} {dimension1} {dimension2}", "system_prompt": 1},
            "system_prompt i",
        ),
        (
            {"user_prompt": "{word} {dimension1} {dimension2}", "system_prompt": "Hear {word}."},
            "stand in user_prompt",
        ),
    ],
)
def test_a_wrong_system_prompt_is_refused(tmp_path: Path, own: Any, says: str) -> None:
    types = {"semantic_dimension_binary_ipa": own}
    with pytest.raises(ConfigError, match=says):
        read_prompt("product", prompt_file(tmp_path, {"semantic_dimension": types}), "ipa")


def test_a_third_option_that_is_not_there_is_said() -> None:
    with pytest.raises(ConfigError, match="needs an option 3"):
        parse_template("3: x {word} {dimension1} {dimension2}", "ipa", neither=True)


def test_letters_may_stand_beside_the_sound_and_are_text_then() -> None:
    text = "{word}: {audio}\n1: {dimension1}\n2: {dimension2}"
    prompt = parse_template(text, "audio").fill("boom", "big", "small")
    assert prompt.parts == (("text", "boom: "), ("audio", 0), ("text", "\n1: big\n2: small"))
    assert [label for _, label, _ in marked(prompt)] == ["number1", "dim1", "number2", "dim2"]
