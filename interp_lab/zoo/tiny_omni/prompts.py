"""The questions that `tiny_omni` is asked, in the words of the semdim study's default prompt.

The model is trained on nothing else, so the text here has to be the study's, sign by sign; a test
compares the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

from transformers import Qwen2_5OmniProcessor

from interp_lab.zoo.speech import PAIRS, Word

DATA_TYPES = ("original", "romanized", "ipa", "audio")
TEXT_TYPES = DATA_TYPES[:3]
DIMENSIONS = tuple(side for pair in PAIRS for side in pair.split("-"))
OPTIONS = ("1", "2")

_DESCRIBED = {
    "original": "this word",
    "romanized": "this word in Latin letters",
    "ipa": "this word in phonetic letters",
    "audio": "this spoken word",
}
_ASK = "Which of the two features fits the sound of {described} better?\n\n[WORD]\n"
_OFFER = (
    "\n\n[SEMANTIC DIMENSION]\n{first} vs {second}\n\n[OPTIONS]\n1: {first}\n2: {second}\n\n"
    "Answer with the number only."
)

# Turns as in Qwen2.5-Omni's published format: a default system sentence, and one placeholder
# between two marks for a clip or a picture.
SYSTEM = "You are a helpful assistant."
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if loop.first and message['role'] != 'system' -%}"
    "{{ '<|im_start|>system\n" + SYSTEM + "<|im_end|>\n' }}{%- endif -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'audio' -%}{{ '<|audio_bos|><|AUDIO|><|audio_eos|>' }}"
    "{%- elif part['type'] == 'image' -%}{{ '<|vision_bos|><|IMAGE|><|vision_eos|>' }}"
    "{%- elif part['type'] == 'video' -%}{{ '<|vision_bos|><|VIDEO|><|vision_eos|>' }}"
    "{%- else -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{ '<|im_end|>\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)


@dataclass(frozen=True)
class Question:
    """One word, one pair of sides in one order, one way to show the word.

    pair: of `speech.PAIRS`. swapped: whether the pair's second side is option 1. language: of the
    script; it matters for data_type "original" only.
    """

    word: Word
    pair: str
    swapped: bool
    data_type: str
    language: str = "en"

    @property
    def sides(self) -> tuple[str, str]:
        """The sides in the order of the options."""
        first, second = self.pair.split("-")
        return (second, first) if self.swapped else (first, second)

    @property
    def side(self) -> str:
        """The side that the word is on."""
        return self.word.sides[self.pair]

    @property
    def answer(self) -> str:
        """The number of the right option."""
        return OPTIONS[self.sides.index(self.side)]

    @property
    def written(self) -> str:
        """What stands in the word's block; nothing for a clip."""
        if self.data_type == "audio":
            return ""
        if self.data_type == "original":
            return self.word.written(self.language)
        return self.word.romanization if self.data_type == "romanized" else self.word.ipa


class Asked(Protocol):
    """How a word is shown, the sides in the order of the options, and which of them is right."""

    @property
    def data_type(self) -> str: ...

    @property
    def sides(self) -> tuple[str, str]: ...

    @property
    def side(self) -> str: ...

    @property
    def written(self) -> str: ...

    @property
    def answer(self) -> str: ...


def chat_prompt(processor: Qwen2_5OmniProcessor, question: Asked) -> str:
    """The prompt as the general code renders it, with one placeholder for a clip."""
    ask = _ASK.format(described=_DESCRIBED[question.data_type])
    offer = _OFFER.format(first=question.sides[0], second=question.sides[1])
    if question.data_type == "audio":
        content: list[dict[str, Any]] = [
            {"type": "text", "text": ask},
            {"type": "audio", "audio": "audio"},
            {"type": "text", "text": offer},
        ]
    else:
        content = [{"type": "text", "text": f"{ask}{question.written}{offer}"}]
    turns = [{"role": "user", "content": content}]
    return processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)


def prompt_words() -> list[str]:
    """The words that stay whole: those of the prompts, the roles and the dimensions."""
    asked = [_ASK.format(described=described) for described in _DESCRIBED.values()]
    offered = _OFFER.format(first="", second="")
    text = " ".join([*asked, offered, SYSTEM, "system user assistant", *DIMENSIONS])
    return list(dict.fromkeys(re.findall(r"[A-Za-z]+", text)))
