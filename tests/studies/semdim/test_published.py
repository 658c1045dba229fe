"""The published variants against arithmetic on planted attention, written here in plain NumPy.

Nothing of the package is used for the expected numbers: a full attention matrix is planted for each
sample, and what LEX-ICON (arXiv 2511.10045) states is computed from it in float64.
"""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from interp_lab.config.nodes import conf_dir
from interp_lab.datasets.base import Sample
from interp_lab.libraries.hydra_inside import composed
from interp_lab.models.base import Seen
from interp_lab.statistics.bands import layer_bands
from interp_lab.store.merge import merge
from interp_lab.store.parts import PartWriter, list_parts
from interp_lab.store.results import open_results
from interp_lab.studies.semdim.analysis import (
    SemanticDimensionAttention,
    WordsOfModel,
    first_number,
)
from interp_lab.studies.semdim.numbers import WordNumbers
from interp_lab.studies.semdim.shares import phone_runs
from interp_lab.tokens import Token, TokenMap

LAYERS, HEADS = 2, 3
# Stored fractions and masses are float32.
TOLERANCE = 1e-6
# Word, its phones, and what the model answers in order and flipped (big is right).
WORDS = (("kakki", "k a k k i", "12"), ("ika", "i k a", "11"), ("kik", "k i k", "21"))


def token_map(phones: list[str]) -> TokenMap:
    """`phones | D D2a D2b | 1 O1 2 O2a O2b | ?`: dimension 1 has one token, dimension 2 has two."""
    text, tokens = "", []
    for i, phone in enumerate(phones):
        start = len(text) + (i > 0)
        text += " " * (i > 0) + phone
        tokens.append(Token(phone, "word", chars=(start, len(text)), label="word"))
    rest = [
        ("D", "dimension", "dim1"),
        ("E", "dimension", "dim2"),
        ("F", "dimension", "dim2"),
        ("1", "option", "number1"),
        ("O", "option", "dim1"),
        ("2", "option", "number2"),
        ("P", "option", "dim2"),
        ("Q", "option", "dim2"),
        ("?", "assistant", None),
    ]
    for name, role, label in rest:
        tokens.append(Token(name, role, chars=(len(text), len(text) + 1), label=label))
        text += name
    return TokenMap(tuple(tokens), prompt=text)


def planted(number: int, n_tokens: int) -> np.ndarray:
    """Random attention (layer, head, query, key), rows adding up to 1."""
    rng = np.random.default_rng(number)
    attention = rng.random((LAYERS, HEADS, n_tokens, n_tokens)) ** 3
    attention[1, 2] = np.eye(n_tokens)  # a head that looks at nothing of the word: 0/0
    return attention / attention.sum(axis=-1, keepdims=True)


def samples() -> list[dict[str, Any]]:
    found = []
    for word, phones, answers in WORDS:
        for flipped, said in enumerate(answers):
            tokens = token_map(phones.split())
            shown = ("big", "small")[:: -1 if flipped else 1]
            found.append(
                {
                    "word": word,
                    "phones": phones.split(),
                    "flipped": flipped,
                    "said": said,
                    "answer": str(1 + shown.index("big")),
                    "shown": shown,
                    "tokens": tokens,
                    "attention": planted(len(found), len(tokens)),
                }
            )
    return found


def computed(folder: Path, scope: str, **options: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Measure the planted samples as a run does; return the aggregates and the definitions."""
    analysis = SemanticDimensionAttention(dimension_scope=scope)  # type: ignore[arg-type]
    study = WordsOfModel(analysis, LAYERS)
    writer, ids = PartWriter(folder / "parts", analysis.fields), []
    for number, one in enumerate(samples()):
        places = [(i, i + 1) for i in range(0, 2 * len(one["phones"]), 2)]
        facts = {
            "word": one["word"],
            "pair": "big-small",
            "flipped": one["flipped"],
            "dimension1": one["shown"][0],
            "dimension2": one["shown"][1],
            "phone_unit": "char",
            "phones": tuple((p, *at) for p, at in zip(one["phones"], places, strict=True)),
            "options": dict(zip("12", one["shown"], strict=True)),
        }
        ids.append(f"en/{one['word']}/big-small/{'flipped' if one['flipped'] else 'plain'}")
        captured = {}
        for name, plan in study.plans(one["tokens"]).items():
            block = one["attention"][:, :, list(plan.queries or ())][..., list(plan.keys or ())]
            block = block if name == "fraction" else block.mean(axis=1)
            captured[name] = SimpleNamespace(values=torch.tensor(block))
        sample = Sample(ids[-1], answer=one["answer"], facts=facts)
        outputs = {"plain": SimpleNamespace(text=one["said"])}
        writer.add(number, ids[-1], study.update(sample, Seen(one["tokens"]), captured, outputs))
    writer.flush()
    numbers = WordNumbers(bootstrap=100, **options)
    about = {"definitions": json.dumps({**analysis.definitions, **numbers.definitions})}
    merge(list_parts(folder / "parts"), ids, folder / "r.h5", about, numbers.compute)
    with open_results(folder / "r.h5") as results:
        assert [results.read("answer_word", i) for i in range(len(ids))] == ["big"] * len(ids)
        assert results.read("predicted_word", 1) == ("big" if WORDS[0][2][1] == "2" else "small")
        found = {name: results.aggregate(name) for name in results.aggregates}
        about_means = results.aggregates.get("phone_dimension")
        return found | {"about": about_means}, results.definitions


def by_hand(keep: str, positions: dict[str, tuple[list[int], list[int]]], pooled: bool) -> Any:
    """Return phone -> (mean (layer,), entries) of the share of `big`, from the full matrices."""
    entries: dict[str, list[tuple[str, np.ndarray]]] = {}
    every = samples()
    for number, one in enumerate(every):
        pair = every[number // 2 * 2 : number // 2 * 2 + 2]
        right = [o["said"] == o["answer"] for o in pair]
        if (keep == "sample" and one["said"] != one["answer"]) or (
            keep == "pair" and not all(right)
        ):
            continue
        n = len(one["phones"])
        runs: list[list[int]] = []
        for i, phone in enumerate(one["phones"]):
            if pooled and i and one["phones"][i - 1] == phone:
                runs[-1].append(i)
            else:
                runs.append([i])
        for run in runs:
            share = np.zeros(LAYERS)
            for layer in range(LAYERS):
                for head in range(HEADS):
                    a = one["attention"][layer, head]
                    s1 = sum(a[n + q, k] for q in positions["dims"][0] for k in run)
                    s2 = sum(a[n + q, k] for q in positions["dims"][1] for k in run)
                    big = s2 if one["flipped"] else s1
                    share[layer] += (big / (s1 + s2) if s1 + s2 else 0.0) / HEADS
            entries.setdefault(one["phones"][run[0]], []).append((one["word"], share))
    means = {}
    for phone, found in entries.items():
        if pooled:
            means[phone] = np.mean([share for _, share in found], axis=0), len(found)
            continue
        words = {word: [s for w, s in found if w == word] for word, _ in found}
        means[phone] = np.mean([np.mean(s, axis=0) for s in words.values()], axis=0), len(words)
    return means


BLOCKS = {
    "dimension": ([0], [1, 2]),
    "options": ([4], [6, 7]),
    "both": ([0, 4], [1, 2, 6, 7]),
}


@pytest.mark.parametrize("scope", BLOCKS)
@pytest.mark.parametrize(
    ("correct_only", "keep"), [(False, ""), ("pair", "pair"), (True, "pair"), ("sample", "sample")]
)
@pytest.mark.parametrize("pooling", ["word", "run"])
def test_phone_means(
    tmp_path: Path, scope: str, correct_only: Any, keep: str, pooling: str
) -> None:
    found, definitions = computed(tmp_path, scope, correct_only=correct_only, pooling=pooling)
    expected = by_hand(keep, {"dims": BLOCKS[scope]}, pooling == "run")
    phones = json.loads(found["phones"])
    assert phones == sorted(expected)
    for place, phone in enumerate(phones):
        mean, count = expected[phone]
        np.testing.assert_allclose(found["phone_dimension"][:, place, 0], mean, atol=TOLERANCE)
        assert found["phone_dimension_count"][0, place, 0] == count
    assert scope in definitions["fraction"]
    name = {"word": "semdim.phone_mean/1", "run": "semdim.phone_runs/1"}[pooling]
    assert definitions["phone_dimension"] == name
    assert ("semdim.phone_runs/1" in found["about"].definition) == (pooling == "run")
    assert f"correct_only={correct_only}" in definitions["aggregated"]
    # kakki: both orders right; ika: in order alone; kik: none.
    dropped = {"": (0, 0), "pair": (2, 4), "sample": (1, 3)}[keep]
    assert (found["n_dropped"], found["n_dropped_samples"]) == dropped


def test_runs_are_neighbours_with_nothing_between() -> None:
    spoken = [("l", 0, 0.08), ("l", 0.08, 0.12), ("l", 0.16, 0.2), ("i", 0.2, 0.24)]
    units = [{"label": n, "start": a, "end": b, "unit": "second"} for n, a, b in spoken]
    assert phone_runs(units) == [[0, 1], [2], [3]]
    written = [("l", 0, 1), ("l", 2, 3), ("i", 4, 5), ("l", 6, 7)]
    units = [{"label": n, "start": a, "end": b, "unit": "char"} for n, a, b in written]
    assert phone_runs(units) == [[0, 1], [2], [3]]
    assert phone_runs([]) == []


def test_the_published_bands_of_28_layers() -> None:
    published = [range(0, 9), range(9, 18), range(18, 28)]
    assert layer_bands(28, 3, "floor") == published
    assert layer_bands(28, 3) == [range(0, 9), range(9, 19), range(19, 28)]
    assert layer_bands(4, 3, "floor") == [range(0, 1), range(1, 2), range(2, 4)]
    assert layer_bands(2, 1, "floor") == [range(0, 2)]


@pytest.mark.parametrize(
    ("text", "said"),
    [("1", "1"), ("Not 1 but 2", "1"), ("12", "1"), ("option two", None), ("3", None), ("", None)],
)
def test_the_first_number_is_the_answer_whatever_surrounds_it(text: str, said: str | None) -> None:
    assert first_number(text, ["1", "2"]) == said
    assert first_number("3 or 1", ["1", "2", "3"]) == "3"


def test_the_experiment_sets_what_was_published() -> None:
    cfg = composed(conf_dir(), ["experiment=lex_icon"])
    published = {
        "task_name": "semdim",
        "model.checkpoint": "Qwen/Qwen2.5-Omni-7B",
        "model.max_new_tokens": 32,
        "model.temperature": 0,
        "dataset.prompt": "lex_icon",
        "dataset.data_type": "audio",
        "dataset.language": None,
        "dataset.flip": True,
        "analysis.dimension_scope": "both",
        "analysis.layer_type": "self",
        "analysis.answer_rule": "first_number",
        "numbers.normalize": "sum",
        "numbers.correct_only": "sample",
        "numbers.pooling": "run",
        "visualization.bands": 3,
        "visualization.band_rule": "floor",
    }
    assert {key: OmegaConf.select(cfg, key) for key in published} == published


def test_nothing_answered_rightly_leaves_no_mean_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(f"{__name__}.WORDS", (("kik", "k i k", "21"),))
    found, _ = computed(tmp_path, "both", correct_only="sample", pooling="run")
    assert "phone_dimension" not in found and found["n_dropped_samples"] == 2
    assert "correct_only=sample leaves no word" in caplog.text
