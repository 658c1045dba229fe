"""LLaVA's published formats, character by character, and what the model gets of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_language import architecture
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

from interp_lab.datasets.scienceqa import ScienceQA
from interp_lab.errors import UnsupportedModelError
from interp_lab.models.llava import Llava

ASKED = "Which?\nA. red\nB. blue\n Say  it: "
# (what stands before the picture and the question, what stands after it), as published.
FORMATS = {
    "vicuna_v1": (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions. USER: ",
        " ASSISTANT:",
    ),
    "llava_v1": (
        "A chat between a curious human and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the human's questions. USER: ",
        " ASSISTANT:",
    ),
    "llava_v0": (
        "A chat between a curious human and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the human's questions.###Human: ",
        "###Assistant:",
    ),
    "llava_llama_2": (
        "[INST] <<SYS>>\nYou are a helpful language and vision assistant. You are able to "
        "understand the visual content that the user provides, and assist the user with a variety "
        "of tasks using natural language.\n<</SYS>>\n\n",
        " [/INST]",
    ),
    "mpt": (
        "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. The "
        "assistant gives helpful and honest answers.<|im_end|><|im_start|>user\n",
        "<|im_end|><|im_start|>assistant\n",
    ),
    "plain": ("", "\n"),
}
FORMATS |= {"v1": FORMATS["vicuna_v1"], "v0_plain": FORMATS["plain"]}


def llava(folder: Path, *turns: str) -> Llava:
    """A tiny LLaVA with one token a byte, which begins every input with <s>."""
    special = ["<pad>", "<s>", "</s>", "<image>", *turns]
    words = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=special[3:],
    )
    LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        ),
        tokenizer=fast,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    text = {"vocab_size": len(words), "max_position_embeddings": 1024}
    text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return Llava(
        checkpoint="tiny",
        device=torch.device("cpu"),
        dtype="float32",
        init="random",
        max_new_tokens=3,
        architecture=architecture(text=text, image_token_index=3),
        processor=str(folder),
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Llava:
    return llava(tmp_path_factory.mktemp("llava"), "<|im_start|>", "<|im_end|>")


def questions(folder: Path, **options: Any) -> ScienceQA:
    """One question with a picture and one without, and an instruction with blanks around it."""
    turns = [{"from": "human", "value": "<image>\nWhich?\nA. red\nB. blue"}]
    turns.append({"from": "gpt", "value": "A"})
    bare = [{**turns[0], "value": "Which?\nA. red\nB. blue"}, turns[1]]
    records = [{"id": "1", "image": "a.png", "conversations": turns}]
    records.append({"id": "2", "conversations": bare})
    Image.new("RGB", (40, 30), (9, 99, 200)).save(folder / "a.png")
    (folder / "q.json").write_text(json.dumps(records))
    return ScienceQA(
        str(folder / "q.json"),
        str(folder),
        text_only="include",
        instruction=" Say  it: ",
        **options,
    )


@pytest.mark.parametrize("mode", FORMATS)
def test_a_format_is_what_was_published(tmp_path: Path, model: Llava, mode: str) -> None:
    data = questions(tmp_path, conv_mode=mode)
    before, after = FORMATS[mode]
    samples = [data.load(0), data.load(1)]
    prompts = [f"{before}<image>\n{ASKED}{after}", f"{before}{ASKED}{after}"]
    assert [model.render(s)[0] for s in samples] == prompts
    stated = f"{before}{{image}}\n{{question}}\n Say  it: {after}"
    assert data.prompts == {mode: stated}
    prepared = model.prepare(samples)
    for row, prompt in enumerate(prompts):
        ids = prepared.inputs["input_ids"][row]
        ids = ids[prepared.inputs["attention_mask"][row].bool()].tolist()
        assert ids[0] == 1 and ids.count(1) == 1, "one mark of the beginning, at the beginning"
        assert 2 not in ids, "no mark of the end: no answer stands there yet"
        # The 16 patches of 32x32 pixels stand where the placeholder stood.
        assert model.tokenizer.decode(ids[1:]) == prompt.replace("<image>", "<image>" * 16)
    tokens = prepared.seen[0].tokens
    # One token a byte: the question's tokens are its bytes, wherever its words stand besides.
    first = 1 + len(before) + 16 + 1
    said = [i for i, t in enumerate(tokens.tokens) if t.role in ("user", "option")]
    if mode != "mpt":  # whose marks are one token each
        assert said == [i for i in range(first, first + len(ASKED))]


def test_a_tokenizer_without_a_format_s_tokens_is_refused(tmp_path: Path) -> None:
    sample = questions(tmp_path, conv_mode="mpt").load(0)
    with pytest.raises(UnsupportedModelError, match=r"conv_mode=mpt: .*<\|im_start\|>, <\|im_end"):
        llava(tmp_path / "processor").prepare([sample])
