"""Building TokenMaps: from a rendered prompt, the tokenizer's offsets and the processor's grids.

A processor puts many tokens where the prompt has one placeholder for an image or a clip. The same
is done here with what each of these tokens is, and the ids that come out must be the processor's
ids, one by one: a map that disagrees with the model's input cannot be made.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from interp_lab.errors import SampleError, UnsupportedModelError
from interp_lab.models.spelling import by_letters, check_spelling
from interp_lab.tokens import Token, TokenMap

# Qwen2.5-Omni: mel frames of 10 ms, halved by a convolution, then averaged in pairs.
OMNI_SECONDS_PER_TOKEN = 0.04


@dataclass(frozen=True)
class Span:
    """A stretch of the rendered prompt with a role.

    Args:
        start: first character.
        end: one past the last character.
        role: a role of `tokens.ROLES`.
        label: a name within the role, or None.
    """

    start: int
    end: int
    role: str
    label: str | None = None


def locate(prompt: str, parts: Sequence[tuple[str, str, str | None]]) -> list[Span]:
    """Return the spans of texts that appear in the prompt in this order.

    Args:
        prompt: the rendered prompt.
        parts: (text, role, label) each.

    Raises:
        SampleError: if a text is not found after the one before it.
    """
    spans, start = [], 0
    for text, role, label in parts:
        at = prompt.find(text, start) if text else -1
        if at < 0:
            raise SampleError(f"the rendered prompt does not hold {role} text {text[:40]!r}")
        spans.append(Span(at, at + len(text), role, label))
        start = at + len(text)
    return spans


def text_map(
    tokenizer: Any, prompt: str, input_ids: Sequence[int], spans: Sequence[Span]
) -> TokenMap:
    """Return the map of a text-only input; arguments as in `token_map`."""
    return token_map(tokenizer, prompt, input_ids, spans, {})


def llava_map(
    tokenizer: Any, prompt: str, input_ids: Sequence[int], spans: Sequence[Span], config: Any
) -> TokenMap:
    """Return the map of a LLaVA input: every image is the vision tower's patch grid.

    Args:
        config: the model's configuration; the others as in `token_map`.

    Raises:
        UnsupportedModelError: if image tokens are more than the patches (strategy "full").
    """
    strategy = config.vision_feature_select_strategy
    if strategy != "default":
        raise UnsupportedModelError(
            f"LLaVA with vision_feature_select_strategy={strategy!r} puts the CLS token among the "
            "image cells; use default"
        )
    side = config.vision_config.image_size // config.vision_config.patch_size
    blocks = image_blocks([(side, side)] * _count(tokenizer, prompt, config.image_token_id))
    return token_map(tokenizer, prompt, input_ids, spans, {config.image_token_id: blocks})


def qwen_vl_map(
    tokenizer: Any,
    prompt: str,
    input_ids: Sequence[int],
    spans: Sequence[Span],
    config: Any,
    image_grid_thw: Sequence[Sequence[int]] = (),
) -> TokenMap:
    """Return the map of a Qwen2-VL or Qwen2.5-VL input.

    Args:
        config: the model's configuration.
        image_grid_thw: the processor's (time, height, width) in patches, one an image; the others
            as in `token_map`.
    """
    merge = config.vision_config.spatial_merge_size
    blocks = image_blocks(qwen_grids(image_grid_thw, merge))
    return token_map(tokenizer, prompt, input_ids, spans, {config.image_token_id: blocks})


def omni_map(
    tokenizer: Any,
    prompt: str,
    input_ids: Sequence[int],
    spans: Sequence[Span],
    config: Any,
    image_grid_thw: Sequence[Sequence[int]] = (),
    mel_frames: Sequence[int] = (),
) -> TokenMap:
    """Return the map of a Qwen2.5-Omni thinker input with audio, images or both.

    Args:
        config: the thinker's configuration.
        image_grid_thw: as in `qwen_vl_map`.
        mel_frames: mel frames of each clip (the sums of `feature_attention_mask`); the others as
            in `token_map`.
    """
    merge = config.vision_config.spatial_merge_size
    blocks = {
        config.image_token_id: image_blocks(qwen_grids(image_grid_thw, merge)),
        config.audio_token_id: [audio_block(omni_audio_tokens(int(f))) for f in mel_frames],
    }
    return token_map(tokenizer, prompt, input_ids, spans, blocks)


def token_map(
    tokenizer: Any,
    prompt: str,
    input_ids: Sequence[int],
    spans: Sequence[Span],
    blocks: Mapping[int, Sequence[Sequence[Token]]],
    default_role: str = "user",
) -> TokenMap:
    """Return the map of an input, and check it against the ids that the model gets.

    Args:
        tokenizer: a fast tokenizer (it must give offsets).
        prompt: the rendered prompt, with one placeholder an image or clip.
        input_ids: the processor's ids of this sample, padding left out.
        spans: roles by character range; of overlapping ones the one with the larger share wins.
        blocks: placeholder id -> for each placeholder in order, the tokens that it stands for.
        default_role: the role of text outside all spans.

    Raises:
        SampleError: if the expanded ids are not `input_ids`, a placeholder or block is left, or
            the tokens of a named span do not spell it.
        UnsupportedModelError: if the tokenizer gives no offsets.
    """
    # The tokenizer makes this list anew whenever it is asked.
    special = frozenset(tokenizer.all_special_ids)
    left = {key: iter(value) for key, value in blocks.items()}
    tokens: list[Token] = []
    ids: list[int] = []
    for token_id, chars in prompt_pieces(tokenizer, prompt):
        if token_id in left:
            block = next(left[token_id], None)
            if block is None:
                raise SampleError(f"the prompt has more {prompt[slice(*chars)]!r} than inputs")
            tokens += block
            ids += [token_id] * len(block)
        else:
            text = text_token(tokenizer, prompt, token_id, chars, spans, default_role, special)
            tokens.append(text)
            ids.append(token_id)
    if any(next(rest, None) is not None for rest in left.values()):
        raise SampleError("the prompt has fewer image or audio placeholders than there are inputs")
    _check_ids(ids, [int(i) for i in input_ids])
    check_spelling(tokenizer, prompt, ids, [token.chars for token in tokens], spans)
    grids = [_grid(b) for bs in blocks.values() for b in bs if b and b[0].cell is not None]
    return TokenMap(tuple(tokens), tuple(grids), prompt)


def with_generated(tokens: TokenMap, texts: Sequence[str]) -> TokenMap:
    """Return the map with generated tokens after it."""
    generated = tuple(Token(text, "generated") for text in texts)
    return replace(tokens, tokens=tokens.tokens + generated)


def image_blocks(grids: Sequence[tuple[int, int]]) -> list[Sequence[Token]]:
    """Return the tokens of each image, row by row, for grids of (rows, cols)."""
    return [_image_block(index, rows, cols) for index, (rows, cols) in enumerate(grids)]


# Pictures of a data set share few grids, and tokens cannot be changed: they are made once.
@lru_cache(maxsize=16)
def _image_block(index: int, rows: int, cols: int) -> tuple[Token, ...]:
    return tuple(
        Token("<image>", "image", "image", image=index, cell=(row, col))
        for row in range(rows)
        for col in range(cols)
    )


def audio_block(count: int, seconds: float = OMNI_SECONDS_PER_TOKEN) -> list[Token]:
    """Return the tokens of one clip, `seconds` each."""
    return [
        Token("<audio>", "audio", "audio", seconds=(i * seconds, (i + 1) * seconds))
        for i in range(count)
    ]


def qwen_grids(image_grid_thw: Sequence[Sequence[int]], merge: int) -> list[tuple[int, int]]:
    """Return (rows, cols) of merged tokens of each image.

    Raises:
        SampleError: if an entry is a video, or its patches cannot be merged.
    """
    grids = []
    for time, height, width in ([int(v) for v in g] for g in image_grid_thw):
        if time != 1 or height % merge or width % merge:
            raise SampleError(
                f"image grid {(time, height, width)}: not one picture of a multiple of {merge} "
                "patches; video is not supported"
            )
        grids.append((height // merge, width // merge))
    return grids


def omni_audio_tokens(mel_frames: int) -> int:
    """Return the audio tokens of a clip of mel frames (transformers' Qwen2.5-Omni encoder)."""
    return ((mel_frames - 1) // 2 + 1 - 2) // 2 + 1


def prompt_pieces(
    tokenizer: Any, prompt: str, **options: Any
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield the id and the characters of every token of a text.

    Raises:
        UnsupportedModelError: if the tokenizer gives no offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UnsupportedModelError(
            f"{type(tokenizer).__name__} gives no character offsets; load the fast tokenizer"
        )
    encoded = tokenizer(prompt, return_offsets_mapping=True, **options)
    pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    found = [(int(i), (int(c[0]), int(c[1]))) for i, c in pairs]
    yield from by_letters(tokenizer, prompt, found)


def _count(tokenizer: Any, prompt: str, token_id: int) -> int:
    return sum(i == token_id for i, _ in prompt_pieces(tokenizer, prompt))


def text_token(
    tokenizer: Any,
    prompt: str,
    token_id: int,
    chars: tuple[int, int],
    spans: Sequence[Span],
    default_role: str,
    special: Container[int],
) -> Token:
    """Return the token of a piece of the prompt; arguments as in `token_map`."""
    start, end = chars
    if start == end:
        return Token(tokenizer.convert_ids_to_tokens(token_id), "special")
    if token_id in special:
        return Token(prompt[start:end], "special", chars=chars)
    # The space that a token begins with belongs to no span; what follows it decides.
    while start < end - 1 and prompt[start].isspace():
        start += 1
    over = [s for s in spans if s.start < end and start < s.end and s.start < s.end]
    best = max(over, key=lambda s: min(end, s.end) - max(start, s.start), default=None)
    role, label = (best.role, best.label) if best else (default_role, None)
    return Token(prompt[chars[0] : end], role, chars=chars, label=label)


def _grid(block: Sequence[Token]) -> tuple[int, int]:
    last = block[-1].cell
    assert last is not None
    return last[0] + 1, last[1] + 1


def _check_ids(ours: list[int], theirs: list[int]) -> None:
    if ours == theirs:
        return
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    at = min(len(ours), len(theirs)) if at is None else at
    raise SampleError(
        f"the token map has {len(ours)} tokens, the model's input {len(theirs)}; they part at "
        f"token {at}: is the prompt the one that the processor got?"
    )
