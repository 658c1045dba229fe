"""Prompts that ask which of two features fits a word's sound, and where their words stand.

A word such as `sharp` may also stand in the instruction or be part of another word. So nothing is
looked for: a template is cut at its placeholders, and the place of what goes in is written down
while the text is put together.
"""

import re
import string
from dataclasses import dataclass, field
from typing import Any, Literal

from interp_lab.datasets.jsonfile import read_json
from interp_lab.datasets.records import is_storable
from interp_lab.errors import ConfigError, did_you_mean

DataType = Literal["original", "romanized", "ipa", "audio"]
DATA_TYPES: tuple[DataType, ...] = ("original", "romanized", "ipa", "audio")

# The package's own texts, and those of LEX-ICON (arXiv 2511.10045), sign by sign.
PromptName = Literal["product", "lex_icon"]

_FRAME = """Which of the two features fits the sound of {described} better?

[WORD]
{place}

[SEMANTIC DIMENSION]
{{dimension1}} vs {{dimension2}}

[OPTIONS]
1: {{dimension1}}
2: {{dimension2}}{third}

Answer with the number only."""

_LEX_ICON = """Given a {described}[WORD], which semantic feature best describes the word based on \
auditory impression?

[WORD]
{place}

[SEMANTIC DIMENSION]
{{dimension1}} vs {{dimension2}}

[OPTIONS]
1: {{dimension1}}
2: {{dimension2}}{third}
Answer with the number only. (1-{last})"""

_DESCRIBED: dict[PromptName, dict[str, str]] = {
    "product": {
        "original": "this word",
        "romanized": "this word in Latin letters",
        "ipa": "this word in phonetic letters",
        "audio": "this spoken word",
    },
    # "a IPA" is what was asked.
    "lex_icon": {"original": "", "romanized": "Romanized ", "ipa": "IPA ", "audio": "spoken "},
}
SYSTEM: dict[PromptName, str | None] = {
    "product": None,
    "lex_icon": (
        "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of "
        "perceiving auditory and visual inputs, as well as generating text and speech."
    ),
}
NEITHER = "neither"

# What makes a dimension word an option: the number that stands directly before it.
_NUMBER = re.compile(r"(?:^|[\s(])([12])[:.)][ \t]*\Z")
# A third option is written out in the template.
_THIRD = re.compile(r"(?:^|(?<=[\s(]))(3)[:.)][ \t]*(\w[^\n()]*\b)")
_PAIR = ("dimension1", "dimension2")


@dataclass(frozen=True)
class TextSpan:
    """A stretch of one text part.

    Args:
        part: index into `PromptParts.parts`.
        start: first character within that part.
        end: one past the last.
        role: `word`, `dimension` (outside the options) or `option`.
        label: `word`; `dim1` or `dim2` by the order shown; `number1` or `number2`; of a third
            option `number3` and `neither`.
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
        third: whether a third option that stands in the text is one to answer with.
    """

    pieces: tuple[tuple[str, str | None], ...]
    third: bool = field(default=False, repr=False)

    def fill(self, word: str, dimension1: str, dimension2: str) -> PromptParts:
        """Return the prompt with these texts in it, as they are, and where they stand.

        Args:
            word: the word as it is written; a template of audio has it beside `{audio}`, if at all.
            dimension1: the feature that `1` stands for.
            dimension2: the feature that `2` stands for.
        """
        texts = {"word": word, "dimension1": dimension1, "dimension2": dimension2}
        parts: list[tuple[str, str | int]] = []
        spans: list[TextSpan] = []
        text = ""
        for place, (literal, name) in enumerate(self.pieces):
            number = _NUMBER.search(literal) if name in _PAIR else None
            if number:
                at = len(text) + number.start(1)
                spans.append(TextSpan(len(parts), at, at + 1, "option", f"number{number[1]}"))
            if third := self._third_in(place):
                for group, label in ((1, "number3"), (2, NEITHER)):
                    start, end = (len(text) + at for at in third.span(group))
                    spans.append(TextSpan(len(parts), start, end, "option", label))
            text += literal
            if name == "audio":
                parts += ([("text", text)] if text else []) + [("audio", 0)]
                text = ""
            elif name is not None:
                span = (len(text), len(text) + len(texts[name]))
                # Beside the sound, which is the word then, its letters are text.
                if name != "word" or not self.heard:
                    spans.append(TextSpan(len(parts), *span, *_meaning(name, bool(number))))
                text += texts[name]
        parts += [("text", text)] if text else []
        return PromptParts(tuple(parts), tuple(spans))

    @property
    def heard(self) -> bool:
        """Whether a sound stands in it."""
        return any(name == "audio" for _, name in self.pieces)

    @property
    def third_text(self) -> str | None:
        """What the third option is called; None without one."""
        found = [self._third_in(i) for i in range(len(self.pieces))]
        return next((match[2] for match in found if match), None)

    def _third_in(self, number: int) -> re.Match[str] | None:
        """Return where a piece's text holds the third option: after one of the other two."""
        if not self.third or not number or self.pieces[number - 1][1] not in _PAIR:
            return None
        return _THIRD.search(self.pieces[number][0])


@dataclass(frozen=True)
class Prompt:
    """How a word is asked about.

    Args:
        name: what a result calls it.
        text: of the user's turn, with its placeholders.
        template: the same, cut at them.
        system: the system turn before it; None = the checkpoint's own.
    """

    name: str
    text: str
    template: PromptTemplate
    system: str | None = None

    @property
    def stated(self) -> dict[str, str]:
        """Name -> text of each turn."""
        system = {} if self.system is None else {f"{self.name}.system": self.system}
        return system | {self.name: self.text}

    @property
    def third(self) -> str | None:
        """What the third option is called; None without one."""
        return self.template.third_text


def parse_template(
    text: str, data_type: str, source: str = "the prompt", neither: bool = False
) -> PromptTemplate:
    """Return a template cut at its placeholders, `{{` and `}}` being braces.

    Args:
        text: with `{dimension1}`, `{dimension2}` and `{word}`; for audio `{audio}` once, or
            `{word}` once, as older files have it; beside `{audio}`, `{word}` is its letters.
        data_type: one of `DATA_TYPES`.
        source: what an error calls the template.
        neither: whether it has a third option, such as `3: neither`.

    Raises:
        ConfigError: if a brace has no partner, a placeholder is unknown or missing, the audio has
            no or several places, an option's number stands before the other feature, or a third
            option is not there.
    """
    place = "audio" if data_type == "audio" else "word"
    known = {place, "word", *_PAIR}
    pieces: list[tuple[str, str | None]] = []
    before = ""
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ConfigError(f"{source}: a brace has no partner ({error})") from error
    old = "audio" not in [name for _, name, _, _ in parsed]
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
        pieces.append((before, place if name == "word" and old else name))
        before = ""
    template = PromptTemplate((*pieces, (before, None)), neither)
    _check_pieces(template, place, source)
    return template


def product_text(data_type: str, prompt: PromptName = "product", neither: bool = False) -> str:
    """Return a text of this module, with its placeholders."""
    place = "{audio}" if data_type == "audio" else "{word}"
    described, third = _DESCRIBED[prompt][data_type], f"\n3: {NEITHER}" * neither
    if prompt == "product":
        return _FRAME.format(described=described, place=place, third=third)
    return _LEX_ICON.format(described=described, place=place, third=third, last=3 if neither else 2)


def read_template(prompt_file: str | None, data_type: str) -> PromptTemplate:
    """Return the template of a data type; see `read_prompt`."""
    return read_prompt("product", prompt_file, data_type).template


def read_prompt(
    prompt: PromptName, prompt_file: str | None, data_type: str, neither: bool = False
) -> Prompt:
    """Return the prompt of a data type: one of this module, or a prompt file's.

    Args:
        prompt: which of this module; `product` where a file is given.
        prompt_file: JSON, `semantic_dimension` -> `semantic_dimension_binary_<type>` (with a third
            option `semantic_dimension_<type>`) -> `user_prompt` and, if it has one,
            `system_prompt`; None = this module's own.
        data_type: one of `DATA_TYPES`.
        neither: whether a third option is neither of the two.

    Raises:
        MissingInputError: if the file is not there or is not JSON.
        ConfigError: if it holds no template of the type, or one that `parse_template` refuses, or
            both a prompt and a file are named.
    """
    end = f"{data_type}.{NEITHER}" if neither else data_type
    if prompt_file is None:
        text = product_text(data_type, prompt, neither)
        template = parse_template(text, data_type, data_type, neither)
        return Prompt(f"{prompt}.{end}", text, template, SYSTEM[prompt])
    if prompt != "product":
        raise ConfigError(
            f"dataset.prompt={prompt} and dataset.prompt_file={prompt_file}: give one of them"
        )
    source = f"dataset.prompt_file={prompt_file}"
    found = read_json("dataset.prompt_file", prompt_file)
    way = ("semantic_dimension", f"semantic_dimension_{'' if neither else 'binary_'}{data_type}")
    for depth, key in enumerate(way):
        found = _below(found, key, " -> ".join(way[:depth]) or "the top level", source)
    text = _text_of(found, "user_prompt", " -> ".join(way), source)
    system = None
    if found.get("system_prompt") is not None:
        system = _text_of(found, "system_prompt", " -> ".join(way), source)
        if any(f"{{{name}}}" in system for name in ("word", "audio", *_PAIR)):
            raise ConfigError(f"{source}: placeholders stand in user_prompt, not in system_prompt")
    return Prompt(f"own.{end}", text, parse_template(text, data_type, source, neither), system)


def _below(found: Any, key: str, here: str, source: str) -> Any:
    if not isinstance(found, dict) or key not in found:
        has = ", ".join(map(str, found)) if isinstance(found, dict) else "no object"
        raise ConfigError(f"{source}: no {key!r} at {here}, which has: {has or 'nothing'}")
    return found[key]


def _text_of(found: Any, key: str, here: str, source: str) -> str:
    text = _below(found, key, here, source)
    if not isinstance(text, str) or not is_storable(text):
        raise ConfigError(f"{source}: {here} -> {key} is not a text")
    return text


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
    if template.third and template.third_text is None:
        raise ConfigError(f"{source}: dataset.neither=true needs an option 3, such as 3: neither")
    for literal, name in template.pieces:
        number = _NUMBER.search(literal) if name in _PAIR else None
        if name and number and name[-1] != number[1]:
            raise ConfigError(f"{source}: option {number[1]} should hold {{dimension{number[1]}}}")
