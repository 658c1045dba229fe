"""task=semdim from the command line: heard and read words, selection, layer types, knock-out."""

import json
import string
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from interp_lab.store.results import open_results
from interp_lab.tokens import TokenMap

EVERY = ("task=semdim", "dataset.max_samples=1", "numbers.bootstrap=100", "batch_size=2")
SMALL = (*EVERY, "dataset.language=en")


def result_path(said) -> Path:
    assert said.code == 0, said.err
    return Path(said.out.strip().splitlines()[-1].removeprefix("results: "))


def test_heard_words_give_matrices_fractions_times_and_figures(command) -> None:
    path = result_path(command(*EVERY, "dataset.language=ko", "visualization.max_samples=1"))
    drawn = {p.name.split("_")[1] for p in (path.parent / "figures").rglob("semdim_*.png")}
    assert {"heatmap", "flow"} <= drawn
    with open_results(path) as results:
        assert len(results) == 4  # two pairs in two orders
        assert json.loads(results.attributes["checks"])["live_check"]["audio"] > 0
        row = results.sample_ids[0]
        tokens = json.loads(results.read("matrix_tokens", row))
        assert [t["group"] for t in tokens].count("word") == 20
        assert tokens[1]["seconds"] == [0.04, 0.08]
        matrix = results.read("attention_matrix", row)
        assert matrix.shape == (4, 1, len(tokens), len(tokens))
        sides = results.read("fraction_sum", row)
        units = json.loads(results.read("units", row))
        assert sides.shape == (4, 4, len(units)) and ((sides >= 0) & (sides <= 1)).all()
        assert results.read("spectrogram", row).shape == (128, 80)


def test_the_fraction_follows_from_the_stored_matrix(command) -> None:
    """One layer and head: the fraction is arithmetic on the block that is stored beside it."""
    one = ("analysis.layers=[2]", "analysis.heads=[1]", "analysis.matrix_heads=all")
    path = result_path(command(*SMALL, *one, "visualization.max_samples=0"))
    with open_results(path) as results:
        row = results.sample_ids[0]
        matrix = results.read("attention_matrix", row)[0, 0]
        groups = [t["group"] for t in json.loads(results.read("matrix_tokens", row))]
        place = {g: [i for i, x in enumerate(groups) if x == g] for g in ("word", "dim1", "dim2")}
        for unit, got in zip(
            json.loads(results.read("units", row)),
            results.read("fraction_sum", row)[0, 0],
            strict=True,
        ):
            keys = [place["word"][k] for k in unit["keys"]]
            first, second = (matrix[np.ix_(place[d], keys)].sum() for d in ("dim1", "dim2"))
            assert got == pytest.approx(first / (first + second), abs=1e-5)


@pytest.mark.parametrize("data_type", ["original", "romanized", "ipa"])
def test_read_words_of_every_kind(command, data_type: str) -> None:
    kind = (f"dataset.data_type={data_type}", "dataset.language=[ko,ja,fr]")
    path = result_path(command(*EVERY, *kind, "visualization.max_samples=0"))
    with open_results(path) as results:
        assert len(results) == 12 and not results.failures
        assert results.aggregate("accuracy") >= 0.9


def test_only_what_is_selected_is_drawn_again(command) -> None:
    path = result_path(command(*EVERY, "dataset.language=[en,ko]", "visualization.max_samples=0"))
    with open_results(path) as results:
        word = results.read("word", results.sample_ids[-1])
    said = command(
        "mode=render",
        f"results={path}",
        f"select.word={word}",
        "select.dimensions=[big,small]",
        "visualization.workers=0",
        "visualization.dpi=40",
    )
    assert said.code == 0, said.err
    names = [p.name for p in (path.parent / "figures").rglob("semdim_heatmap_*.png")]
    assert len(names) == 2 and all(f"_{word}_" in n and "big" in n for n in names)
    said = command("mode=render", f"results={path}", "select.word=nonsense")
    assert said.code == 1 and "nonsense" in said.err
    none = "visualization.max_samples=0"
    said = command("mode=render", f"results={path}", f"select.word={word}", none)
    assert said.code == 1 and "max_samples=0 for none; leave that out" in said.err
    one = ("select.dimensions=[big,small]", "visualization.workers=0", "visualization.dpi=40")
    said = command("mode=render", f"results={path}", f"select.word={word}", "select.head=2", *one)
    assert said.code == 1 and "analysis.matrix_heads=all, added to the command" in said.err


def test_the_published_choices_at_once(command) -> None:
    typed = ("experiment=lex_icon", "model=tiny_omni", "dataset=semdim_tiny")
    typed += ("dataset.max_samples=1", "numbers.bootstrap=100")
    path = result_path(command(*typed, "dataset.data_type=ipa", "visualization.max_samples=0"))
    with open_results(path) as results:
        config = yaml.safe_load(results.attributes["config"])
        assert set(results.stream(["language"]).__next__()["language"]) == {"en", "fr", "ko", "ja"}
        assert set(results.prompts) == {"lex_icon.ipa", "lex_icon.ipa.system"}
        tokens = TokenMap.from_json(results.read("tokens", 0))
        assert results.definitions["fraction"] == "semdim.fraction/1 (both)"
        assert results.definitions["answer"] == "semdim.first_number/1"
        assert results.definitions["phone_dimension"] == "semdim.phone_runs/1"
        assert "correct_only=sample" in results.definitions["aggregated"]
        groups = [t["group"] for t in json.loads(results.read("matrix_tokens", 0))]
        assert groups.count("dim1") == groups.count("dim2") == 2  # one token, in two places
        names = dict(zip("12", (results.read(f"dimension{n}", 0) for n in "12"), strict=True))
        for kind in ("answer", "predicted"):
            assert results.read(f"{kind}_word", 0) == names[results.read(kind, 0)]
    assert config["model"]["max_new_tokens"] == 32 and config["model"]["temperature"] == 0
    assert config["visualization"]["band_rule"] == "floor"
    # The chat format with the published system turn, and where the roles stand in it.
    system = "<|im_start|>system\nYou are Qwen, a virtual human developed by the Qwen Team, Alibaba"
    assert tokens.prompt.startswith(system) and "helpful assistant" not in tokens.prompt
    user = tokens.prompt.index("Given a IPA [WORD], which semantic feature")
    assert {t.role for t in tokens if t.chars and t.chars[1] <= user} <= {"system", "special"}
    told = (path.parent / "exports" / "semdim_report.txt").read_text()
    assert "Given a IPA [WORD], which" in told and "semdim.phone_runs/1" in told
    exported = json.loads((path.parent / "exports" / "prompts.json").read_text())
    assert exported["lex_icon.ipa"].endswith("Answer with the number only. (1-2)")


def test_a_third_option_is_answered_and_hidden_from(command) -> None:
    typed = (*SMALL, "dataset.neither=true", "dataset.data_type=ipa", "analysis.knockout=true")
    path = result_path(command(*typed, "visualization.max_samples=1"))
    with open_results(path) as results:
        assert "product.ipa.neither" in results.prompts
        tokens = TokenMap.from_json(results.read("tokens", 0))
        third = [t.text.strip() for t in tokens if t.label in ("number3", "neither")]
        assert third[0] == "3" and "".join(third[1:]) == "neither"
        assert all(results.read("answer", i) in "12" for i in range(len(results)))
        assert results.aggregate("chance_accuracy") == pytest.approx(1 / 3)


def test_summary_lists_language_word_pair_and_data_type(command) -> None:
    path = result_path(command(*SMALL, "visualization.max_samples=0"))
    said = command("mode=summary", f"results={path}")
    for words in ("language: en 4", "pair: big-small 2, sharp-round 2", "data_type: audio 4"):
        assert words in said.out


@pytest.mark.parametrize(("layer_type", "rows"), [("output", 1), ("encoder", 40)])
def test_other_layer_types(command, layer_type: str, rows: int) -> None:
    typed = (f"analysis.layer_type={layer_type}", "batch_size=1", "visualization.max_samples=0")
    path = result_path(command(*SMALL, *typed))
    with open_results(path) as results:
        assert results.read("attention_matrix", 0).shape[2] == rows


def encoder_decoder(folder: Path) -> str:
    """A tiny random T5 whose tokens are characters, saved with its tokenizer."""
    known = {c: i for i, c in enumerate(("<pad>", "</s>", "<unk>", *string.printable))}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\S"), "removed", invert=True)
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    words.save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=128,
        d_model=16,
        d_kv=8,
        d_ff=16,
        num_layers=3,
        num_heads=2,
        num_decoder_layers=2,
        decoder_start_token_id=0,
    )
    T5ForConditionalGeneration(config).eval().save_pretrained(folder)
    return str(folder)


def test_cross_attention_of_an_encoder_decoder_is_its_own(command, tmp_path: Path) -> None:
    folder = encoder_decoder(tmp_path / "t5")
    typed = (*SMALL, "dataset.data_type=original", "visualization.max_samples=0")
    typed += ("model=flan_t5_base", f"model.checkpoint={folder}", "analysis.layer_type=cross")
    path = result_path(command(*typed, "analysis.matrix_heads=all"))
    model = T5ForConditionalGeneration.from_pretrained(folder, attn_implementation="eager").eval()
    words = PreTrainedTokenizerFast.from_pretrained(folder)
    with open_results(path) as results:
        tokens = TokenMap.from_json(results.read("tokens", 0))
        prompt, spans = tokens.prompt, json.loads(results.read("matrix_tokens", 0))
        stored = results.read("attention_matrix", 0)
    inputs = words(prompt, return_tensors="pt", add_special_tokens=True)
    with torch.no_grad():
        start = torch.zeros(1, 1, dtype=torch.long)
        out = model(**inputs, decoder_input_ids=start, output_attentions=True)
    pieces = [prompt[a:b] for a, b in words(prompt, return_offsets_mapping=True)["offset_mapping"]]
    named = [(i, t) for i, t in enumerate(tokens.tokens) if t.label in ("word", "dim1", "dim2")]
    places = [i for i, t in named if t.role in ("word", "option")]
    assert [pieces[i] for i in places] == [s["text"] for s in spans]
    want = torch.stack(out.cross_attentions)[:, 0][..., places].numpy()
    assert stored.shape == want.shape == (2, 2, 1, len(spans))
    np.testing.assert_allclose(stored, want, atol=1e-5)


def test_hiding_the_word_from_everything_makes_the_answer_a_guess(command) -> None:
    path = result_path(
        command(
            "task=semdim",
            "dataset.max_samples=6",
            "dataset.language=en",
            "analysis.knockout=true",
            "numbers.bootstrap=100",
            "visualization.max_samples=0",
        )
    )
    with open_results(path) as results:
        assert results.aggregate("knockout_baseline_accuracy") >= 0.95
        assert results.aggregate("knockout_everywhere_accuracy") <= 0.75


def test_a_missing_wav_is_a_recorded_failure_and_never_a_text_prompt(command, tmp_path) -> None:
    import shutil

    from interp_lab.config.nodes import PACKAGE

    shutil.copytree(PACKAGE / "zoo" / "data" / "semdim", tmp_path / "data")
    gone = sorted((tmp_path / "data" / "audio" / "en").glob("*.wav"))[0]
    gone.unlink()
    said = command(
        "task=semdim",
        "dataset.max_samples=20",
        "dataset.language=en",
        f"dataset.data_file={tmp_path}/data/words.json",
        f"dataset.audio_root={tmp_path}/data/audio",
        "visualization.max_samples=0",
        f"dataset.alignment_dir={tmp_path}/data/alignment",
        "numbers.bootstrap=100",
    )
    assert said.code == 3, said.err
    path = Path(said.out.strip().splitlines()[-1].removeprefix("results: "))
    with open_results(path) as results:
        assert {f.sample_id.split("/")[1] for f in results.failures} == {gone.stem}


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("analysis.layer_type=cross", "model=flan_t5_base"),
        ("dataset.word_group=odd", "common"),
        ("dataset.dimensions=[big-smal]", "'big-small'"),
        ("analysis.layers=[40]", "4 layers"),
        ("model=tiny_clip", "has no answers"),
    ],
)
def test_mistakes_are_one_line(command, typed: str, says: str) -> None:
    said = command(*SMALL, typed)
    assert said.code == 1
    assert says in said.err and "Traceback" not in said.err
