"""Words in tokenizers as they are: bytes, byte fallback, normalisers; each right or refused."""

import unicodedata
from functools import cache
from typing import Any

import pytest
import transformers as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)

from interp_lab.errors import SampleError, UnsupportedModelError
from interp_lab.models.tokenmaps import Span, text_map

LATIN = "abcdefghijklmnopqrstuvwxyz"
NORMALISERS = {
    "none": lambda: None,
    "NFC": normalizers.NFC,
    "NFD": normalizers.NFD,
    "NFKC": normalizers.NFKC,
    "NFKD": normalizers.NFKD,
    "lower": normalizers.Lowercase,
    "accents": lambda: normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
    "bert": normalizers.BertNormalizer,
}


def bytes_only(normaliser: Any) -> Tokenizer:
    """Byte-level BPE without a merge: a Hangul syllable is three tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if normaliser:
        core.normalizer = normaliser
    return core


def merged_bytes(normaliser: Any) -> Tokenizer:
    """Merges that cut letters: the last byte of one Hangul syllable with the first of the next."""
    core = bytes_only(normaliser)
    spelled = [pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(w)[0][0]
               for w in ("쾅쾅", "ㄱㄴ", "がが", "é́")]  # fmt: skip
    pairs = {(w[i], w[i + 1]) for w in spelled for i in range(2, len(w) - 1, 3)}
    vocabulary = core.get_vocab()
    for a, b in sorted(pairs):
        vocabulary[a + b] = len(vocabulary)
    core.model = models.BPE(vocabulary, sorted(pairs))
    return core


def fallback(normaliser: Any, prepend: bool = False) -> Tokenizer:
    """Unigram with byte fallback, as sentencepiece models have it."""
    scored = [("<unk>", 0.0), *((f"<0x{i:02X}>", -20.0) for i in range(256)), ("▁", -3.0)]
    scored += [(c, -5.0) for c in LATIN] + [
        ("▁the", -1.0),
        ("쾅", -6.0),
        ("각", -6.0),
        ("が", -6.0),
    ]
    core = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=True))
    steps = [normaliser] if normaliser else []
    if prepend:
        steps += [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace()
    if steps:
        core.normalizer = normalizers.Sequence(steps)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return core


KINDS = {
    "bytes": bytes_only,
    "merged": merged_bytes,
    "metaspace": fallback,
    "prepend": lambda normaliser: fallback(normaliser, prepend=True),
}


@cache
def tokenizer(kind: str, normaliser: str) -> Any:
    core = KINDS[kind](NORMALISERS[normaliser]())
    return tf.PreTrainedTokenizerFast(tokenizer_object=core, clean_up_tokenization_spaces=False)


WORDS = [
    "쾅쾅", "각", "값", "ㄱㄴ", "한\u1100\u1161", unicodedata.normalize("NFD", "쾅각"),
    "ドキドキ", "が", "か\u3099", "ﾊﾞ", "مُحَمَّد", "مرحبا", "لا", "t͡ʃuː", "æ̃ˑ", "k͡p˥˩",
    "e\u0301", "é", "İ", "ß", "ﬁre", "①", "㌀", "\u1e9b\u0323", "👍🏽",
    "👨\u200d👩\u200d👧", "❤\ufe0f", "a\u0300\u0316",
]  # fmt: skip


def tokens_of(tok: Any, word: str) -> tuple[Any, Any]:
    """The tokens of a word that also stands elsewhere, and those of its neighbours."""
    prompt = f'{word} is {word}, or "{word}" vs. {word}s'
    start = prompt.index(f'"{word}"') + 1
    spans = [Span(start, start + len(word), "word", "w")]
    ids = tok(prompt)["input_ids"]
    tokens = text_map(tok, prompt, ids, spans)
    return tokens, (ids, prompt, start)


def by_hand(tok: Any, ids: Any, prompt: str, start: int, word: str) -> set[int]:
    """Positions by what is decoded, and by no offset: the text before, then the word."""
    core = tok.backend_tokenizer

    def size(text: str) -> int:
        own = core.normalizer.normalize_str(text) if core.normalizer else text
        return len(own.replace(" ", "").replace("▁", "").encode())

    first, last = size(prompt[:start]), size(prompt[: start + len(word)])
    found, done = set(), 0
    for position, token in enumerate(core.id_to_token(i) for i in ids):
        if token.startswith("<0x"):
            length = 1
        elif isinstance(core.pre_tokenizer, pre_tokenizers.ByteLevel):
            length = len(token.replace("Ġ", ""))
        else:
            length = len(token.replace("▁", "").encode())
        if length and done < last and done + length > first:
            found.add(position)
        done += length
    return found


@pytest.mark.parametrize("normaliser", NORMALISERS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_words_tokens_are_the_words(kind: str, normaliser: str) -> None:
    tok, refused = tokenizer(kind, normaliser), []
    for word in WORDS:
        try:
            tokens, (ids, prompt, start) = tokens_of(tok, word)
        except SampleError:
            refused.append(word)
            continue
        assert set(tokens.where(role="word")) == by_hand(tok, ids, prompt, start, word), word
    assert len(refused) <= 1, refused


LETTERS = st.one_of(
    st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), min_size=1, max_size=4),
    st.text(st.sampled_from("ᄀ까ᅢᆨᆫがぱﾊﾟ゙ガ"), min_size=1, max_size=5),
    st.text(st.sampled_from("مرحبالُّآأ"), min_size=1, max_size=5),
    st.text(st.sampled_from("tʃdʒæŋu͡ːˑ̃̊ʰ˥é"), min_size=1, max_size=6),
    st.text(st.sampled_from("👍🏽👨👩❤\ufe0f\u200d"), min_size=1, max_size=5),
)


@settings(max_examples=60, deadline=None)
@given(LETTERS, st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(NORMALISERS)))
@example("ᄀ", "bytes", "NFC")
def test_any_word_is_right_or_refused(word: str, kind: str, normaliser: str) -> None:
    # A mark that joins the quotation mark before it is no word.
    if unicodedata.combining(word[0]) or unicodedata.category(word[0]) in ("Mn", "Cf"):
        return
    tok = tokenizer(kind, normaliser)
    try:
        tokens, (ids, prompt, start) = tokens_of(tok, word)
    except SampleError:
        return
    assert set(tokens.where(role="word")) == by_hand(tok, ids, prompt, start, word)


class Wrong:
    """A tokenizer whose offsets are off."""

    def __init__(self, tok: Any, shift: int = 0, lost: int | None = None) -> None:
        self._tok, self._shift, self._lost = tok, shift, lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tok, name)

    def __call__(self, text: str, **options: Any) -> Any:
        found = self._tok(text, **options)
        if "offset_mapping" in found:
            moved = [(max(0, a + self._shift), max(0, b + self._shift))
                     for a, b in found["offset_mapping"]]  # fmt: skip
            if self._lost is not None:
                moved[self._lost] = (moved[self._lost][0],) * 2
            moved = [(min(a, len(text)), min(b, len(text))) for a, b in moved]
            found["offset_mapping"] = moved
        return found


@pytest.mark.parametrize("shift", [-1, 1, 2])
def test_offsets_that_are_off_are_refused(shift: int) -> None:
    for word in ("쾅각", "tʃuː", "مرحبا"):
        with pytest.raises(SampleError, match="spell"):
            tokens_of(Wrong(tokenizer("bytes", "NFD"), shift), word)


def test_a_token_whose_offsets_are_lost_is_not_left_out_of_its_word() -> None:
    tok = tokenizer("metaspace", "none")
    prompt = 'tuk is tuk, or "tuk" vs. tuks'
    offsets = tok(prompt, return_offsets_mapping=True)["offset_mapping"]
    at = [start for start, _ in offsets].index(prompt.index('"tuk"') + 2)
    with pytest.raises(SampleError, match="'tuk' spell 'tk'"):
        tokens_of(Wrong(tok, lost=at), "tuk")


def test_an_unknown_token_is_believed() -> None:
    core = Tokenizer(models.WordLevel({"is": 0, "?": 1}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tok = tf.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?")
    tokens, _ = tokens_of(tok, "쾅")
    assert len(tokens.where(role="word")) == 0  # special: it stands for no text
    core.model = models.WordLevel({"is": 0, "?": 1, "쾅": 2}, unk_token="?")
    tok = tf.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?")
    assert len(tokens_of(tok, "쾅")[0].where(role="word")) == 1


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False
        all_special_ids = ()

    with pytest.raises(UnsupportedModelError, match="gives no character offsets"):
        text_map(Slow(), "x", [1], [])
