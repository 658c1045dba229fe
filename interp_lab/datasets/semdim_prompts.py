"""Prompts that ask which of two features fits a word's sound, and where their words stand.

A word such as `sharp` may also stand in the instruction or be part of another word. So nothing is
looked for: a template is cut at its placeholders, and the place of what goes in is written down
while the text is put together.
"""

import re
import string
from dataclasses import dataclass
from typing import Literal

from interp_lab.datasets.jsonfile import read_json
from interp_lab.errors import ConfigError, did_you_mean

DataType = Literal["original", "romanized", "ipa", "audio"]
DATA_TYPES: tuple[DataType, ...] = ("original", "romanized", "ipa", "audio")

_FRAME = """Which of the two features fits the sound of {described} better?

[WORD]
{place}

[SEMANTIC DIMENSION]
{{dimension1}} vs {{dimension2}}

[OPTIONS]
1: {{dimension1}}
2: {{dimension2}}

Answer with the number only."""

TEMPLATES: dict[str, str] = {
    "original": _FRAME.format(described="this word", place="{word}"),
    "romanized": _FRAME.format(described="this word in Latin letters", place="{word}"),
    "ipa": _FRAME.format(described="this word in phonetic letters", place="{word}"),
    "audio": _FRAME.format(described="this spoken word", place="{audio}"),
}

# What makes a dimension word an option: the number that stands directly before it.
_NUMBER = re.compile(r"(?:^|[\s(])([12])[:.)][ \t]*\Z")
_PAIR = ("dimension1", "dimension2")


@dataclass(frozen=True)
class TextSpan:
    """A stretch of one text part.

    Args:
        part: index into `PromptParts.parts`.
        start: first character within that part.
        end: one past the last.
        role: `word`, `dimension` (outside the options) or `option`.
        label: `word`; `dim1` or `dim2` by the order shown; `number1` or `number2`.
    """

    part: int
    start: int
    end: int
    role: str
    label: str


@dataclass(frozen=True)
class PromptParts:
    """A filled prompt.

    Args:
        parts: in order, ("text", str) or ("audio", 0).
        spans: in order; for audio none has the role `word`, because the audio part is the word.
    """

    parts: tuple[tuple[str, str | int], ...]
    spans: tuple[TextSpan, ...]


@dataclass(frozen=True)
class PromptTemplate:
    """A template cut at its placeholders; made by `parse_template`.

    Args:
        pieces: (text before, placeholder after it) in order; the last placeholder is None.
    """

    pieces: tuple[tuple[str, str | None], ...]

    def fill(self, word: str, dimension1: str, dimension2: str) -> PromptParts:
        """Return the prompt with these texts in it, as they are, and where they stand.

        Args:
            word: the word as it is written; not used by a template of audio.
            dimension1: the feature that `1` stands for.
            dimension2: the feature that `2` stands for.
        """
        texts = {"word": word, "dimension1": dimension1, "dimension2": dimension2}
        parts: list[tuple[str, str | int]] = []
        spans: list[TextSpan] = []
        text = ""
        for literal, name in self.pieces:
            number = _NUMBER.search(literal) if name in _PAIR else None
            if number:
                at = len(text) + number.start(1)
                spans.append(TextSpan(len(parts), at, at + 1, "option", f"number{number[1]}"))
            text += literal
            if name == "audio":
                parts += ([("text", text)] if text else []) + [("audio", 0)]
                text = ""
            elif name is not None:
                span = (len(text), len(text) + len(texts[name]))
                spans.append(TextSpan(len(parts), *span, *_meaning(name, bool(number))))
                text += texts[name]
        parts += [("text", text)] if text else []
        return PromptParts(tuple(parts), tuple(spans))


def parse_template(text: str, data_type: str, source: str = "the prompt") -> PromptTemplate:
    """Return a template cut at its placeholders, `{{` and `}}` being braces.

    Args:
        text: with `{dimension1}`, `{dimension2}` and `{word}`; for audio `{audio}` once, or
            `{word}` once, as older files have it.
        data_type: one of `DATA_TYPES`.
        source: what an error calls the template.

    Raises:
        ConfigError: if a brace has no partner, a placeholder is unknown or missing, the audio has
            no or several places, or an option's number stands before the other feature.
    """
    place = "audio" if data_type == "audio" else "word"
    known = {place, "word", *_PAIR}
    pieces: list[tuple[str, str | None]] = []
    before = ""
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ConfigError(f"{source}: a brace has no partner ({error})") from error
    for literal, name, spec, conversion in parsed:
        before += literal
        if name is None:
            continue
        if name not in known or spec or conversion:
            whole = f"{name}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}"
            raise ConfigError(
                f"{source}: unknown placeholder {{{whole}}}; known are "
                f"{', '.join(f'{{{k}}}' for k in sorted(known))}.{did_you_mean(name, known)}"
            )
        pieces.append((before, place if name == "word" else name))
        before = ""
    template = PromptTemplate((*pieces, (before, None)))
    _check_pieces(template, place, source)
    return template


def read_template(prompt_file: str | None, data_type: str) -> PromptTemplate:
    """Return the template of a data type: this module's own, or a prompt file's.

    Args:
        prompt_file: JSON, `semantic_dimension` -> `semantic_dimension_binary_<type>` ->
            `user_prompt`; None = this module's own.
        data_type: one of `DATA_TYPES`.

    Raises:
        MissingInputError: if the file is not there or is not JSON.
        ConfigError: if it holds no template of the type, or one that `parse_template` refuses.
    """
    if prompt_file is None:
        return parse_template(TEMPLATES[data_type], data_type)
    source = f"dataset.prompt_file={prompt_file}"
    found = read_json("dataset.prompt_file", prompt_file)
    way = ("semantic_dimension", f"semantic_dimension_binary_{data_type}", "user_prompt")
    for depth, key in enumerate(way):
        if not isinstance(found, dict) or key not in found:
            here = " -> ".join(way[:depth]) or "the top level"
            has = ", ".join(map(str, found)) if isinstance(found, dict) else "no object"
            raise ConfigError(f"{source}: no {key!r} at {here}, which has: {has or 'nothing'}")
        found = found[key]
    if not isinstance(found, str):
        raise ConfigError(f"{source}: {' -> '.join(way)} is not a text")
    return parse_template(found, data_type, source)


def _meaning(name: str, is_option: bool) -> tuple[str, str]:
    """Return role and label of what replaces a placeholder."""
    if name == "word":
        return "word", "word"
    return "option" if is_option else "dimension", f"dim{name[-1]}"


def _check_pieces(template: PromptTemplate, place: str, source: str) -> None:
    names = [name for _, name in template.pieces]
    for name in (place, *_PAIR):
        if name not in names:
            raise ConfigError(f"{source}: placeholder {{{name}}} is missing")
    if names.count("audio") > 1:
        raise ConfigError(f"{source}: {{audio}} (or {{word}}) should stand once")
    for literal, name in template.pieces:
        number = _NUMBER.search(literal) if name in _PAIR else None
        if name and number and name[-1] != number[1]:
            raise ConfigError(f"{source}: option {number[1]} should hold {{dimension{number[1]}}}")
