"""TokenMaps agree with the model's ids, and refuse what does not."""

import pytest
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers

from interp_lab.errors import SampleError, UnsupportedModelError
from interp_lab.models import tokenmaps as tm

WORDS = ["<image>", "<audio>", "<s>", "the", "red", "square", "is", "at", "?", "left"]


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", additional_special_tokens=["<image>", "<audio>"]
    )


def ids_of(tokenizer, prompt, **counts):
    """What a processor would give: placeholders repeated."""
    ids = []
    for i in tokenizer(prompt)["input_ids"]:
        name = WORDS[i].strip("<>")
        ids += [i] * counts.get(name, 1)
    return ids


def test_text_roles_follow_characters(tokenizer):
    prompt = "<s> the red square is at left"
    spans = tm.locate(prompt, [("red square", "word", "shape"), ("left", "option", "A")])
    tokens = tm.text_map(tokenizer, prompt, ids_of(tokenizer, prompt), spans)
    assert tokens.where(role="word") == (2, 3)
    assert tokens.where(role="option", label="A") == (6,)
    assert tokens.where(role="special") == (0,)
    assert [prompt[slice(*t.chars)] for t in tokens] == prompt.split()


def test_a_span_that_is_not_in_the_prompt_is_an_error():
    with pytest.raises(SampleError, match="does not hold word text 'blue'"):
        tm.locate("the red", [("blue", "word", None)])


def llava_config():
    vision = tf.CLIPVisionConfig(image_size=12, patch_size=4)
    return tf.LlavaConfig(
        vision_config=vision,
        text_config=tf.LlamaConfig(),
        image_token_index=0,
        vision_feature_select_strategy="default",
    )


def test_llava_cells_are_row_major(tokenizer):
    prompt = "<s> <image> the square"
    ids = ids_of(tokenizer, prompt, image=9)
    tokens = tm.llava_map(tokenizer, prompt, ids, [], llava_config())
    assert len(tokens) == 12 and tokens.grids == ((3, 3),)
    assert [t.cell for t in tokens][1:5] == [(0, 0), (0, 1), (0, 2), (1, 0)]


def test_llava_with_cls_among_its_cells_is_refused(tokenizer):
    config = llava_config()
    config.vision_feature_select_strategy = "full"
    with pytest.raises(UnsupportedModelError, match="CLS"):
        tm.llava_map(tokenizer, "<image>", [0] * 10, [], config)


def qwen_config():
    return tf.Qwen2VLConfig(image_token_id=0, vision_config={"spatial_merge_size": 2})


def test_qwen_images_of_different_sizes(tokenizer):
    prompt = "<image> the <image> left"
    grids = [(1, 4, 6), (1, 2, 8)]
    ids = [0] * 6 + [3] + [0] * 4 + [9]
    tokens = tm.qwen_vl_map(tokenizer, prompt, ids, [], qwen_config(), grids)
    assert tokens.grids == ((2, 3), (1, 4))
    assert tokens.where(image=1) == (7, 8, 9, 10)
    assert tokens.tokens[10].cell == (0, 3)


@pytest.mark.parametrize(
    ("prompt", "ids", "grids", "message"),
    [
        ("<image> left", [0] * 5 + [9], [(1, 4, 6)], "part at token 5"),
        ("<image> <image>", [0] * 6, [(1, 4, 6)], "more '<image>' than inputs"),
        ("left", [9], [(1, 4, 6)], "fewer image or audio placeholders"),
        ("<image>", [0] * 6, [(2, 4, 6)], "video is not supported"),
    ],
)
def test_inputs_that_disagree_are_refused(tokenizer, prompt, ids, grids, message):
    with pytest.raises(SampleError, match=message):
        tm.qwen_vl_map(tokenizer, prompt, ids, [], qwen_config(), grids)


def test_omni_audio_is_forty_milliseconds_a_token(tokenizer):
    config = tf.Qwen2_5OmniThinkerConfig(audio_token_index=1, image_token_index=0)
    prompt = "the <audio> is left"
    count = tm.omni_audio_tokens(80)
    ids = ids_of(tokenizer, prompt, audio=count)
    tokens = tm.omni_map(tokenizer, prompt, ids, [], config, mel_frames=[80])
    assert count == 20 and tokens.where(modality="audio") == tuple(range(1, 21))
    assert tokens.tokens[20].seconds == pytest.approx((0.76, 0.80))
    assert tokens.at_seconds(0.0, 0.08) == (1, 2)


def test_generated_tokens_follow(tokenizer):
    prompt = "the red"
    tokens = tm.text_map(tokenizer, prompt, ids_of(tokenizer, prompt), [])
    assert tm.with_generated(tokens, ["left"]).where(role="generated") == (2,)
