"""Which phones are vowels and which are consonants, by the letters of IPA and of ARPABET.

A phone is written as data sets write it: `iː`, `t͡ʃ`, `æ̃` in IPA, `IY0`, `CH` in ARPABET. What is
neither is of a class of its own, `unknown`: it is counted there and never guessed.
"""

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

PhoneClass = Literal["vowel", "consonant", "unknown"]
CLASSES: tuple[PhoneClass, ...] = ("vowel", "consonant", "unknown")

# The chart of the International Phonetic Association (2020), with its r-coloured vowels, and the
# letters that it no longer lists but that are still written.
IPA_VOWELS = frozenset("iyɨʉɯuɪʏʊeøɘɵɤoəɛœɜɞʌɔæɐaɶɑɒɚɝᵻᵿɩɷ")
IPA_CONSONANTS = frozenset(
    "pbtdʈɖcɟkgɡqɢʔmɱnɳɲŋɴʙrʀɾɽⱱɸβꞵfvθðszʃʒʂʐxɣχꭓʁħʕhɦɬɮʋɹɻjɰlɭʎʟɫwʍɥʜʢʡɕʑɺɧʘǀǃǂǁɓɗʄɠʛʦʣʧʤʨʥ"
)
GLIDES = frozenset("jwɥɰ")
ARPABET_VOWELS = frozenset("AA AE AH AO AW AX AXR AY EH ER EY IH IX IY OW OY UH UW UX".split())
ARPABET_CONSONANTS = frozenset(
    "B CH D DH DX EL EM EN ENG F G HH HV H JH K L M N NG NX P Q R S SH T TH V W WH Y Z ZH".split()
)
# What aligners write where there is no phone.
NOT_PHONES = frozenset("sil sp spn nsn".split())


def phone_class(label: str) -> PhoneClass:
    """Return the class of a phone.

    Marks that modify a letter (length, nasality, tone, stress, ties) do not change its class. A
    vowel that ends in a glide (`aj`, `ow`) is a diphthong, and so a vowel; a phone of vowels and
    consonants otherwise is unknown, as is text.

    Args:
        label: in IPA, in any Unicode normal form, or in ARPABET with or without a digit of stress.
    """
    bare = re.fullmatch(r"([A-Z]{1,3})[0-2]?", label.strip())
    if bare is not None:
        name = bare[1]
        if name in ARPABET_VOWELS:
            return "vowel"
        return "consonant" if name in ARPABET_CONSONANTS else "unknown"
    letters = _letters(label)
    if label.strip().lower() in NOT_PHONES:
        return "unknown"
    vowels = [letter in IPA_VOWELS for letter in letters]
    if not letters or not all(one in IPA_VOWELS | IPA_CONSONANTS for one in letters):
        return "unknown"
    if not any(vowels):
        return "consonant"
    behind = letters[vowels.index(False) :] if not all(vowels) else ""
    return "vowel" if vowels[0] and set(behind) <= GLIDES else "unknown"


def _letters(label: str) -> str:
    """Return a phone's letters without what modifies them (marks, modifier letters, tones)."""
    text = unicodedata.normalize("NFD", label.strip())
    return "".join(c for c in text if unicodedata.category(c) not in ("Mn", "Lm", "Sk", "Cf"))


def sorted_by_class(labels: Iterable[str]) -> list[str]:
    """Return labels with vowels first, then consonants, then what is unknown; each sorted."""
    return sorted(labels, key=lambda label: (CLASSES.index(phone_class(label)), label))
