"""What a language model returns for one sample: text, tokens, and the logits of the first one."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Answer:
    """A generated answer.

    Args:
        text: the new tokens as text, without special tokens.
        tokens: their ids, the end token included.
        first_logits: (vocabulary,) float32 on the CPU, the logits that chose the first token.
        complete: False if `max_new_tokens` ended it.
        pieces: the text of each token, special ones by name; see `models.pieces`.
    """

    text: str
    tokens: tuple[int, ...]
    first_logits: Tensor
    complete: bool
    pieces: tuple[str, ...] = ()
