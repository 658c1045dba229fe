"""Words and pairs of features, in the LEX-ICON layout: which feature does a word's sound fit?

Every pair of a word, in each order shown, is one measurement. The word is written (in its own
letters, in Latin ones, in IPA) or spoken; a spoken word without a sound is a failed sample, never
a written one.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from interp_lab.config.signature import Distinct
from interp_lab.datasets.audio import RATE, read_audio, require_audio, trim_silence
from interp_lab.datasets.base import MadeOf, Sample, existing_path
from interp_lab.datasets.ondisk import spelling
from interp_lab.datasets.records import is_storable
from interp_lab.datasets.semdim_phones import Phone, cut_phones, ipa_phones, read_alignment
from interp_lab.datasets.semdim_prompts import DATA_TYPES, DataType, PromptName, read_prompt
from interp_lab.datasets.semdim_words import (
    Entry,
    chosen,
    entries_of,
    find_file,
    known_pairs,
    nfc,
    read_words,
    word_names,
)
from interp_lab.errors import ConfigError, MissingInputError, SampleError

# Data type -> field of the record that stands in the prompt.
FIELDS = {"original": "word", "romanized": "romanization", "ipa": "ipa"}
SOUNDS = (".wav", ".flac")


class SemanticDimensions:
    """Pairs of features of the words of a file.

    A sample's parts are those of the prompt, its system turn the prompt's; its answer is `1` or `2`
    by the order shown, or `3` if neither of the two is an option and the word's answer. Its facts:
    `word` (composed Unicode), `written` (what stands in the prompt; empty for audio), `language`,
    `data_type`, `word_group`, `dimension1` and `dimension2` (as shown), `pair` (canonical, whatever
    is shown first), `flipped`, `options` (number -> its text), `spans` (`TextSpan`s in the parts),
    `phones` ((label, start, end) each; empty if unknown), `phone_unit` ("char" of `written` for
    ipa, "second" for audio, else empty). For audio also `audio_file`, `seconds` (of the waveform),
    and `trimmed` ((start, end) that was kept of the file, in seconds; only with `trim_silence`).

    Words are chosen in this order: `language`, `word_group`, `dimensions`, `max_samples`.

    Args:
        data_file: JSON, language -> list of words.
        data_type: how the word is given: original, romanized or ipa (written), or audio.
        language: one or several of the file's keys; null = all.
        word_group: one or several; null = all.
        audio_root: holds `<language>/<word>.wav` or `.flac`; for audio.
        alignment_dir: holds `<language>/<word>.json` or `<word>.json`; for audio; null = none. A
            word without a file has no phones.
        prompt: the package's texts, `product` or `lex_icon` (those of arXiv 2511.10045, with their
            system prompt).
        prompt_file: JSON with prompts of your own, and their system prompt; null = `prompt`.
        neither: ask with a third option, neither of the two.
        dimensions: only these pairs, such as big-small; null = all of each word.
        flip: ask each pair in both orders.
        max_samples: the first so many words of each language; -1 = all.
        trim_silence: cut silence off both ends of the audio.

    Attributes:
        prompts: name -> text of each turn, with its placeholders.
        n_words: words that are measured.
        skipped_without_dimensions: words with `dimensions: {}`, among those of language and group.
        skipped_by_dimensions: words that have none of `dimensions`.

    Raises:
        MissingInputError: if a file or folder is not there or is not JSON.
        ConfigError: if a language, word group or pair is unknown, the prompt is malformed, the
            packages for audio are missing, or no word is left.
    """

    gives: tuple[str, ...] = ("text", "audio")
    or_gives = (("text",),)
    only_with = MappingProxyType(
        dict.fromkeys(("audio_root", "alignment_dir", "trim_silence"), ("data_type", "audio"))
    )
    knows = ("word", "dimension1", "dimension2")

    def __init__(
        self,
        data_file: str,
        data_type: DataType,
        language: str | Distinct[str] | None = None,
        word_group: str | Distinct[str] | None = None,
        audio_root: str | None = None,
        alignment_dir: str | None = None,
        prompt_file: str | None = None,
        dimensions: str | Distinct[str] | None = None,
        flip: bool = True,
        max_samples: int = -1,
        trim_silence: bool = False,
        prompt: PromptName = "product",
        neither: bool = False,
    ) -> None:
        if max_samples != -1 and max_samples < 1:
            raise ConfigError(f"dataset.max_samples={max_samples}: give -1 (all) or at least 1")
        self._type = chosen("dataset.data_type", data_type, DATA_TYPES)[0]
        self._prompt = read_prompt(prompt, prompt_file, self._type, neither)
        self.prompts = self._prompt.stated
        words = read_words(data_file)
        languages = chosen("dataset.language", language, words)
        groups = _groups(word_group, [r for name in languages for r in words[name]])
        canonical = known_pairs(r for records in words.values() for r in records)
        pairs = _pairs(dimensions, canonical)
        self.n_words = self.skipped_without_dimensions = self.skipped_by_dimensions = 0
        self._entries: list[Entry] = []
        for name in languages:
            found = self._words_of(name, words[name], groups, canonical, pairs, flip)
            found = found[:max_samples] if max_samples > 0 else found
            self.n_words += len(found)
            self._entries += [entry for entries in found for entry in entries]
        if not self._entries:
            raise ConfigError(
                f"dataset.data_file={data_file}: no word is left to measure "
                f"({self.skipped_without_dimensions} without dimensions, "
                f"{self.skipped_by_dimensions} without those of dataset.dimensions)"
            )
        self._trim = trim_silence
        if self._type != "audio":
            self.gives = ("text",)
        self._audio_root = self._alignment_dir = None
        if self._type == "audio":
            require_audio()
            self._audio_root = _audio_folder(audio_root, {e.language for e in self._entries})
            self._alignment_dir = alignment_dir and _folder("alignment_dir", alignment_dir)

    def ids(self) -> Sequence[str]:
        """Return `<language>/<word>/<pair>/<plain|flipped>` of every sample."""
        return [entry.id for entry in self._entries]

    def counts(self) -> dict[str, int]:
        """Return the words that are measured, and those left out, by reason."""
        return {
            "words": self.n_words,
            "skipped_without_dimensions": self.skipped_without_dimensions,
            "skipped_by_dimensions": self.skipped_by_dimensions,
        }

    def made_of(self, index: int) -> MadeOf:
        """Return the word, the pair, the prompt, and the files of sound and alignment.

        The word's other pairs are not among it: they are samples of their own.
        """
        entry = self._entries[index]
        word = entry.record
        if entry.pair is not None:
            word = {key: value for key, value in word.items() if key != "dimensions"}
        said = [word, repr(entry.pair), entry.flipped, entry.problem, repr(self._prompt.template)]
        said += [self._prompt.system] if self._prompt.system is not None else []
        return MadeOf(said, self._files_of(entry))

    def load(self, index: int) -> Sample:
        """Return one word with one question.

        Raises:
            SampleError: if the record is malformed or its audio cannot be used.
        """
        entry = self._entries[index]
        pair, record = entry.pair, entry.record
        if pair is None:
            raise SampleError(entry.problem)
        shown = (pair.dimension1, pair.dimension2)[:: -1 if entry.flipped else 1]
        written = "" if self._type == "audio" else _written(record, FIELDS[self._type])
        prompt = self._prompt.template.fill(written or nfc(record["word"]), *shown)
        options = dict(enumerate((*shown, *filter(None, [self._prompt.third])), start=1))
        facts: dict[str, Any] = {
            "word": nfc(record["word"]),
            "written": written,
            "language": entry.language,
            "data_type": self._type,
            "word_group": _group(record),
            "dimension1": shown[0],
            "dimension2": shown[1],
            "pair": pair.key,
            "flipped": entry.flipped,
            "options": {str(number): text for number, text in options.items()},
            "spans": prompt.spans,
            "phones": ipa_phones(written) if self._type == "ipa" else (),
            "phone_unit": {"ipa": "char", "audio": "second"}.get(self._type, ""),
        }
        answer = next(str(number) for number, text in options.items() if text == pair.answer)
        found = Sample(entry.id, prompt.parts, (), (), answer, facts, self._prompt.system)
        if self._type != "audio":
            return found
        waveform, heard = self._sound(entry)
        return replace(found, audio=((waveform, RATE),), facts=facts | heard)

    def _words_of(
        self,
        language: str,
        records: Sequence[Any],
        groups: set[str] | None,
        canonical: dict[str, str],
        pairs: set[str] | None,
        flip: bool,
    ) -> list[list[Entry]]:
        """Return the entries of each word that is chosen, and count those that are not."""
        words: list[list[Entry]] = []
        for name, record in zip(word_names(records), records, strict=True):
            # A record that is no object is in no group, but must fail and not disappear.
            if groups is not None and isinstance(record, dict):
                group = record.get("word_group")
                if not isinstance(group, str) or group not in groups:
                    continue
            every = entries_of(language, name, record, canonical, flip, self._prompt.third)
            kept = [e for e in every if pairs is None or e.pair is None or e.pair.key in pairs]
            self.skipped_without_dimensions += not every
            self.skipped_by_dimensions += bool(every) and not kept
            words += [kept] if kept else []
        return words

    def _sound(self, entry: Entry) -> tuple[np.ndarray, dict[str, Any]]:
        """Return a word's waveform at `RATE` and the facts that go with it."""
        assert self._audio_root is not None
        word = entry.record["word"].strip()
        folder = spelling(self._audio_root, entry.language)
        file = find_file(folder, word, SOUNDS)
        if file is None:
            raise SampleError(f"{folder / nfc(word)}.wav: no such audio file, nor a .flac")
        waveform, rate = read_audio(file)
        phones = self._phones(entry.language, word, len(waveform) / rate)
        facts: dict[str, Any] = {"audio_file": str(file)}
        if self._trim:
            waveform, kept = trim_silence(waveform, rate)
            phones = cut_phones(phones, *kept)
            facts["trimmed"] = kept
        return waveform, facts | {"phones": phones, "seconds": len(waveform) / rate}

    def _files_of(self, entry: Entry) -> tuple[Path, ...]:
        """Return the files of sound and alignment that there are."""
        if entry.pair is None or self._audio_root is None:
            return ()
        word = entry.record["word"].strip()
        try:
            sound = find_file(spelling(self._audio_root, entry.language), word, SOUNDS)
            found = (sound, self._alignment(entry.language, word))
        except SampleError:
            return ()
        return tuple(file for file in found if file is not None)

    def _alignment(self, language: str, word: str) -> Path | None:
        if not self._alignment_dir:
            return None
        root = Path(self._alignment_dir)
        own = find_file(spelling(root, language), word, (".json",))
        return own or find_file(root, word, (".json",))

    def _phones(self, language: str, word: str, seconds: float) -> tuple[Phone, ...]:
        file = self._alignment(language, word)
        return read_alignment(file, seconds) if file else ()


def _written(record: dict[str, Any], field: str) -> str:
    text = record.get(field)
    if not isinstance(text, str) or not text.strip() or not is_storable(text):
        raise SampleError(f"{field}: should be a text, is {text!r:.40}")
    return " ".join(nfc(text).split())


def _group(record: dict[str, Any]) -> str:
    group = record.get("word_group")
    return group if isinstance(group, str) and is_storable(group) else ""


def _groups(wanted: str | list[str] | None, records: Sequence[Any]) -> set[str] | None:
    if wanted is None:
        return None
    groups = (r.get("word_group") for r in records if isinstance(r, dict))
    known = [group for group in groups if isinstance(group, str)]
    return set(chosen("dataset.word_group", wanted, known, " in the chosen languages"))


def _pairs(wanted: str | list[str] | None, canonical: dict[str, str]) -> set[str] | None:
    """Return the canonical names of pairs that may be asked for in either order."""
    if wanted is None:
        return None
    asked = [wanted] if isinstance(wanted, str) else wanted
    names = [canonical.get(nfc(name), name) for name in asked]
    return set(chosen("dataset.dimensions", names, canonical.values()))


def _folder(key: str, path: str) -> Path:
    folder = existing_path(f"dataset.{key}", path)
    if not folder.is_dir():
        raise MissingInputError(f"dataset.{key}={path}: not a folder")
    return folder


def _audio_folder(audio_root: str | None, languages: set[str]) -> Path:
    if audio_root is None:
        raise ConfigError("dataset.audio_root is not given: dataset.data_type=audio needs it")
    folder = _folder("audio_root", audio_root)
    for language in sorted(languages):
        if not spelling(folder, language).is_dir():
            raise MissingInputError(
                f"dataset.audio_root={audio_root}: has no folder {language!r}; choose others with "
                "dataset.language"
            )
    return folder
