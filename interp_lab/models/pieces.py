"""The text of each generated token, as a person reads it.

A byte-level token may be a part of a letter (most Korean syllables are two or three tokens). Such a
token has no text; it is shown as its bytes, and the token that completes the letter shows it.
"""

from collections.abc import Sequence
from typing import Any

from transformers.convert_slow_tokenizer import bytes_to_unicode

# What a decoder writes for bytes that are no letter yet.
UNFINISHED = "�"
# A letter of UTF-8 has four bytes at most; after so many tokens the bytes are damaged, not waiting.
LONGEST_LETTER = 4
BYTE_OF = {letter: byte for byte, letter in bytes_to_unicode().items()}


def pieces(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    """Return one text a token; special tokens by their names, parts of letters as `<ED 95>`.

    Args:
        tokenizer: of the model that wrote the ids.
        ids: generated token ids, in order.
    """
    found: list[str] = []
    context, start = 0, 0
    for end in range(1, len(ids) + 1):
        # Decoded behind the token before it, so that a space that begins the token is kept.
        before = _decoded(tokenizer, ids[context:start])
        text = _decoded(tokenizer, ids[context:end])[len(before) :]
        if text.endswith(UNFINISHED) and end - start < LONGEST_LETTER:
            found.append(_as_bytes(tokenizer, ids[end - 1]))
            continue
        found.append(text or _as_bytes(tokenizer, ids[end - 1]))
        context, start = start, end
    return tuple(found)


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )


def _as_bytes(tokenizer: Any, token_id: int) -> str:
    token = str(tokenizer.convert_ids_to_tokens(int(token_id)))
    if token and all(letter in BYTE_OF for letter in token):
        return "<" + " ".join(f"{BYTE_OF[letter]:02X}" for letter in token) + ">"
    return token
