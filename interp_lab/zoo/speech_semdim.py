"""Held-out words as files of the semdim study: the embedded data of `task=semdim`.

The layout is LEX-ICON's: `words.json`, `audio/<language>/<word>.wav` and an alignment beside each.
The same files are written again by `python -m interp_lab.zoo.speech_semdim`.
"""

from __future__ import annotations

import argparse
import json
import wave
from pathlib import Path

import numpy as np

from interp_lab.zoo.speech import HELD_OUT, LANGUAGES, PAIRS, RATE, Clip, Word, speak

FOLDER = Path(__file__).parent / "data" / "semdim"
SEED = 2025

Record = dict[str, object]


def record(word: Word, language: str) -> Record:
    """A word of a language as LEX-ICON holds it; a made-up word means nothing."""
    return {
        "word": word.written(language),
        "ipa": word.ipa,
        "romanization": word.romanization,
        "language": language,
        "word_group": "common",
        "meaning": [],
        "en_meaning": "",
        "infinigram_count": 0,
        "dimensions": {pair: {"answer": word.sides[pair]} for pair in PAIRS},
    }


def held_out_clip(language: str, place: int, seed: int = SEED) -> Clip:
    """The draw of the held-out word at `place`, which no training has heard."""
    rng = np.random.default_rng([seed, LANGUAGES.index(language), place])
    return speak(HELD_OUT[place], rng)


def write(folder: Path = FOLDER, seed: int = SEED) -> None:
    """Write words, clips and alignments below `folder`; existing files are replaced."""
    words = {language: [record(w, language) for w in HELD_OUT] for language in LANGUAGES}
    _save_json(words, folder / "words.json")
    for language in LANGUAGES:
        for place, word in enumerate(HELD_OUT):
            clip, written = held_out_clip(language, place, seed), word.written(language)
            _save_wav(clip, folder / "audio" / language / f"{written}.wav")
            _save_json(clip.alignment(written), folder / "alignment" / language / f"{written}.json")


def _save_wav(clip: Clip, path: Path) -> None:
    """Mono, 16 bits a sample."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.round(clip.wave * 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


def _save_json(value: object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Write the embedded data again."""
    parser = argparse.ArgumentParser(description="Write the embedded words of task=semdim.")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--output", type=Path, default=FOLDER)
    args = parser.parse_args()
    write(args.output, args.seed)


if __name__ == "__main__":
    main()
