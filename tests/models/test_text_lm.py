"""Any text model by its id: random and saved, with a chat template or none; semdim on words."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from audio_cases import TEXT, tokenizer

from interp_lab.capture.session import watch
from interp_lab.datasets.base import Sample
from interp_lab.datasets.semdim_prompts import read_template
from interp_lab.errors import UnsupportedModelError
from interp_lab.models.text import TextLM
from interp_lab.studies.semdim.analysis import SemanticDimensionAttention

CPU = torch.device("cpu")
KINDS = ("qwen3", "llama", "olmo2")
MARKED = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
)


def saved(folder: Path, template: str | None = None, mark: bool = False) -> str:
    """A byte tokenizer; with `mark` one that begins every text with a mark."""
    from tokenizers import processors

    tok = tokenizer()
    if mark:
        tok.add_special_tokens({"bos_token": "<|im_start|>"})
        first = [("<|im_start|>", tok.bos_token_id)]
        single, pair = "<|im_start|> $A", "<|im_start|> $A $B"
        post = processors.TemplateProcessing(single=single, pair=pair, special_tokens=first)
        tok.backend_tokenizer.post_processor = post
    tok.chat_template = template
    tok.save_pretrained(folder)
    return str(folder)


def model(kind: str, place: str, **changes: Any) -> TextLM:
    values = {"dtype": "float32", "init": "random", "processor": place, "max_new_tokens": 2}
    own = TEXT | {"model_type": kind, "head_dim": 16}
    return TextLM("none", CPU, **values | {"architecture": own} | changes)


def written(word: str = "쾅쾅") -> Sample:
    parts = read_template(None, "original").fill(word, "big", "small")
    return Sample("ko/x", parts.parts, facts={"spans": parts.spans})


@pytest.mark.parametrize("kind", KINDS)
def test_semdim_on_words_equals_the_models_own_eager_attention(kind: str, tmp_path: Path) -> None:
    made = model(kind, saved(tmp_path))
    prepared = made.prepare([written()])
    [seen] = prepared.seen
    plans = SemanticDimensionAttention().for_model(made).plans(seen.tokens)
    plan = plans["fraction"]
    assert len(plan.keys) == 6  # bytes of two syllables
    with torch.inference_mode():
        with watch(made, prepared, [plans]) as capture:
            made.forward(prepared.inputs)
        made.module.set_attn_implementation("eager")
        truth = made.module(**prepared.inputs, output_attentions=True, use_cache=False)
    for layer, whole in enumerate(truth.attentions):
        block = whole[0][:, list(plan.queries)][:, :, list(plan.keys)]
        found = capture.rows[0]["fraction"].values[layer]
        torch.testing.assert_close(found, block, atol=1e-6, rtol=0)


def test_a_folder_on_disk_gives_the_same_answers(tmp_path: Path) -> None:
    made = model("llama", saved(tmp_path))
    made.module.save_pretrained(tmp_path)
    loaded = TextLM(str(tmp_path), CPU, dtype="float32", max_new_tokens=2)
    with torch.inference_mode():
        [a], [b] = (m.run(m.prepare([written()])) for m in (made, loaded))
    assert torch.equal(a.first_logits, b.first_logits)


def test_without_a_chat_template_the_prompt_is_the_text(tmp_path: Path) -> None:
    made = model("llama", saved(tmp_path))
    tokens = made.prepare([Sample("t", parts=(("text", "Is it big?"),))]).seen[0].tokens
    assert tokens.prompt == "Is it big?"


@pytest.mark.parametrize("template", [MARKED, None])
def test_the_mark_of_the_beginning_stands_once(tmp_path: Path, template: str | None) -> None:
    """Chat templates write it, and the tokenizer puts it in as well."""
    made = model("llama", saved(tmp_path, template, mark=True))
    prepared = made.prepare([written()])
    ids = prepared.inputs["input_ids"][0].tolist()
    mark = made.tokenizer.bos_token_id
    assert ids[0] == mark and (template is None or ids[1] == mark == ids[0])
    # The template's own turn begins with the same word here; a third would be the tokenizer's.
    assert ids.count(mark) == (1 if template is None else 2)
    tokens = prepared.seen[0].tokens
    for label, word in (("dim1", "big"), ("dim2", "small")):
        found = tokens.where(role="option", label=label)
        assert "".join(tokens.tokens[i].text for i in found).strip() == word


def test_a_slow_tokenizer_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow:
        is_fast = False

    monkeypatch.setattr(tf.AutoTokenizer, "from_pretrained", lambda *_, **__: Slow())
    with pytest.raises(UnsupportedModelError, match=r"Slow does not say.*tokenizer\.json"):
        model("llama", saved(tmp_path))


def test_a_model_that_writes_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="'clip'.*no causal language model"):
        model("clip", saved(tmp_path), architecture={"model_type": "clip"})
