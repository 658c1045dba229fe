"""The words of a semantic-dimension file: read, named, filtered, one entry a measurement.

A misspelled dimension or language must not make data disappear, and one damaged record must not
stop a run. So what the user asks for is checked against what there is, and what a record has wrong
becomes an entry that fails with its reason.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_lab.datasets.jsonfile import read_json
from interp_lab.datasets.ondisk import spelling
from interp_lab.datasets.records import is_storable
from interp_lab.errors import ConfigError, SampleError, did_you_mean

# The pairs of the LEX-ICON study (arXiv 2511.10045); their order here is the canonical one.
PAIRS = tuple(
    "good-bad beautiful-ugly pleasant-unpleasant strong-weak big-small rugged-delicate "
    "active-passive fast-slow sharp-round realistic-fantastical structured-disorganized "
    "ordinary-unique interesting-uninteresting simple-complex abrupt-continuous exciting-calming "
    "hard-soft happy-sad harsh-mellow heavy-light inhibited-free masculine-feminine "
    "solid-nonsolid tense-relaxed dangerous-safe".split()
)

# A language names a folder; file systems take no longer names.
LONGEST_NAME = 255


@dataclass(frozen=True)
class Pair:
    """Two opposite features, in the canonical order.

    Args:
        key: `dimension1-dimension2`.
        dimension1: the first feature.
        dimension2: the second.
        answer: the one of the two that fits the word; or the third option's text.
    """

    key: str
    dimension1: str
    dimension2: str
    answer: str


@dataclass(frozen=True)
class Entry:
    """One measurement, or one that cannot be made.

    Args:
        id: `<language>/<word>/<pair>/<plain|flipped>`; shorter if it cannot be made.
        language: the file's key.
        record: the word's record.
        pair: what is asked; None if it cannot be.
        flipped: whether the second feature is shown first.
        problem: why it cannot be made, or empty.
    """

    id: str
    language: str
    record: Any
    pair: Pair | None = None
    flipped: bool = False
    problem: str = ""


def nfc(text: str) -> str:
    """Return a text in Unicode's composed form, without spaces around it."""
    return unicodedata.normalize("NFC", text).strip()


def read_words(data_file: str) -> dict[str, list[Any]]:
    """Return language -> records; what a record is, is not checked.

    Raises:
        MissingInputError: if the file is not there or is not JSON.
        ConfigError: if it is no object of lists, or holds no word.
    """
    where = f"dataset.data_file={data_file}"
    words = read_json("dataset.data_file", data_file)
    if not isinstance(words, dict):
        raise ConfigError(f"{where}: should be an object, language -> list of words")
    for language, records in words.items():
        names = (
            language.strip() and is_storable(language) and len(language.encode()) <= LONGEST_NAME
        )
        if not names or "/" in language or language in (".", ".."):
            raise ConfigError(f"{where}: {language!r} cannot be the name of a language")
        if not isinstance(records, list):
            raise ConfigError(f"{where}: {language!r} should hold a list of words")
    if not any(words.values()):
        raise ConfigError(f"{where}: holds no word")
    return words


def chosen(
    key: str, wanted: str | Sequence[str] | None, known: Iterable[str], hint: str = ""
) -> list[str]:
    """Return what was asked for, each once; all that is known if `wanted` is None.

    Args:
        key: the configuration key, for the error.
        wanted: one name, or several.
        known: the names that there are.
        hint: goes before the list of known names.

    Raises:
        ConfigError: if a name is not known, or the list is empty.
    """
    names = list(dict.fromkeys(known))
    if wanted is None:
        return names
    asked = list(dict.fromkeys([wanted] if isinstance(wanted, str) else wanted))
    if not asked:
        raise ConfigError(f"{key}: the list is empty; null means all")
    for name in asked:
        if name not in names:
            listed = ", ".join(map(str, names)) or "none"
            raise ConfigError(
                f"{key}={name}: unknown.{did_you_mean(name, names)} Known{hint}: {listed}"
            )
    return asked


def known_pairs(records: Iterable[Any]) -> dict[str, str]:
    """Return each name of a pair -> its canonical name, for the study's pairs and these records'.

    Both orders of a pair are names of it. The canonical one is the study's, else the one that
    comes first in the file.
    """
    canonical: dict[str, str] = {}
    for key in [*PAIRS, *(nfc(k) for r in records for k in _dimensions(r))]:
        sides = _sides(key)
        if sides and key not in canonical:
            name, reverse = "-".join(sides), "-".join(sides[::-1])
            canonical.setdefault(name, name)
            canonical.setdefault(reverse, canonical[name])
            canonical[key] = canonical[name]  # spaces around the hyphen make another key
    return canonical


def word_names(records: Sequence[Any]) -> list[str]:
    """Return a name for each record of a language, all different, whatever is chosen later.

    The word itself, `/` written as `|`; the second record of one word (a homograph) is called
    `<word> (2)`, and a record without a usable word `record <n>`, n from 0.
    """
    words = [_usable_word(record).replace("/", "|") for record in records]
    taken = set(words)
    seen: dict[str, int] = {}
    names: list[str] = []
    for number, word in enumerate(words):
        seen[word] = seen.get(word, 0) + 1
        name = word
        if not word or seen[word] > 1:
            name = f"{word} ({seen[word]})" if word else f"record {number}"
            while name in taken:  # a word that looks like one of our names
                name += "'"
            taken.add(name)
        names.append(name)
    return names


def entries_of(
    language: str,
    name: str,
    record: Any,
    canonical: Mapping[str, str],
    flip: bool,
    third: str | None = None,
) -> list[Entry]:
    """Return a word's measurements: every pair, in both orders if `flip`.

    Args:
        language: the file's key.
        name: see `word_names`.
        record: the word.
        canonical: from `known_pairs`.
        flip: whether each pair is also asked with its second feature first.
        third: an answer beside the two features, if it is an option.

    Returns:
        Entries; one with a problem for what cannot be measured, none for `dimensions: {}`.
    """
    if not _usable_word(record):
        return [Entry(f"{language}/{name}", language, record, problem="word: should be a text")]
    found = record.get("dimensions")
    if not isinstance(found, dict):
        problem = "dimensions: should be an object of pairs"
        return [Entry(f"{language}/{name}", language, record, problem=problem)]
    entries: list[Entry] = []
    seen: set[str] = set()
    for number, (key, value) in enumerate(found.items()):
        try:
            pair = _pair(key, value, canonical, third)
            if pair.key in seen:
                raise SampleError(f"dimensions: {key!r} names a pair that was given before")
        except SampleError as error:
            id_ = f"{language}/{name}/pair {number}"
            entries.append(Entry(id_, language, record, problem=str(error)))
            continue
        seen.add(pair.key)
        for flipped in (False, True)[: 1 + flip]:
            id_ = f"{language}/{name}/{pair.key}/{'flipped' if flipped else 'plain'}"
            entries.append(Entry(id_, language, record, pair, flipped))
    return entries


def find_file(folder: Path, name: str, suffixes: Sequence[str]) -> Path | None:
    """Return the file of a name, in any Unicode form and case of the ending; None if none.

    Raises:
        SampleError: if the name holds a slash, so that it would lie in another folder, or several
            files have it.
    """
    if "/" in name or "\\" in name or name in (".", ".."):
        raise SampleError(f"no file can be named after {name!r}")
    try:
        paths = [spelling(folder, f"{name}{suffix}") for suffix in suffixes]
        return next((path for path in paths if path.is_file()), None)
    except (OSError, ValueError) as error:  # longer than a name can be
        raise SampleError(f"no file can be named after {name!r:.60} ({error})") from error


def _dimensions(record: Any) -> dict[str, Any]:
    found = record.get("dimensions") if isinstance(record, dict) else None
    return found if isinstance(found, dict) else {}


def _usable_word(record: Any) -> str:
    word = record.get("word") if isinstance(record, dict) else None
    return nfc(word) if isinstance(word, str) and is_storable(word) else ""


def _sides(key: str) -> tuple[str, str] | None:
    """Return the two features of a key, or None if it has no two different ones."""
    first, _, second = (part.strip() for part in key.partition("-"))
    fine = first and second and first != second and "/" not in key and is_storable(key)
    return (first, second) if fine else None


def _pair(key: str, value: Any, canonical: Mapping[str, str], third: str | None) -> Pair:
    name = canonical.get(nfc(key))
    sides = _sides(name) if name else None
    if name is None or sides is None:
        raise SampleError(f"dimensions: {key!r} should be two features, such as 'big-small'")
    answer = value.get("answer") if isinstance(value, dict) else None
    if third is not None and isinstance(answer, str) and nfc(answer).lower() == third.lower():
        return Pair(name, *sides, third)
    if not isinstance(answer, str) or nfc(answer) not in sides:
        raise SampleError(
            f"dimensions: the answer of {key!r} is {answer!r}, not {' or '.join(sides)}"
        )
    return Pair(name, *sides, nfc(answer))
