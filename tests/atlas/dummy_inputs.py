"""Inputs that a model of any class may run on, guessed from its forward's names and configuration.

Guesses are tried in turn and the first that runs is taken. What the library says of a guess is used
once: where it counts placeholders of a picture or sound, so many are put into the text.
"""

import inspect
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from building import one_line
from shrinking import VOCABULARY, parts_of
from torch import Tensor, nn

Inputs = dict[str, Any]
# Odd, so that no picture has as many places as the text has tokens.
TOKENS = 19
ANSWER = 6
# Tokens at the beginning that are no placeholders, halved.
PLAIN = 3
LONGEST_SOUND = 200
BINS = ("num_mel_bins", "feature_size", "input_feat_per_channel", "input_dim", "n_mels", "num_mels")
PICTURES = ("pixel_values", "pixel_values_images", "flattened_patches", "pixel_values_videos")
WAVES = ("input_values", "audio_values", "x")
WIDTHS = ("hidden_size", "d_model", "embed_dim", "dim")
PLACEHOLDERS = {
    "image": ("image_token_id", "image_token_index", "media_placeholder_token_id"),
    "video": ("video_token_id", "video_token_index"),
    "audio": ("audio_token_id", "audio_token_index"),
}


def runs(module: nn.Module, config: Any) -> tuple[Inputs | None, list[str]]:
    """Return the first guess that a module runs on, or None, and what became of those before."""
    complaints: list[str] = []
    for guess in guesses(module, config):
        for inputs in (guess, None):
            try:
                inputs = _with_placeholders(guess, config, complaints) if inputs is None else inputs
                if inputs is None:
                    break
                with torch.no_grad():
                    module(**inputs)
                return inputs, complaints
            except Exception as error:  # a wrong guess may raise anything
                complaints.append(f"{', '.join(sorted(guess))}: {one_line(error)}")
    return None, complaints


def guesses(module: nn.Module, config: Any) -> Iterator[Inputs]:
    """Yield sets of arguments, the fullest first."""
    names = set(inspect.signature(module.forward).parameters)
    answer: Inputs = {}
    if "decoder_input_ids" in names:
        answer = {"decoder_input_ids": token_ids(config, ANSWER, 1)}
        # An answer that begins otherwise is given this beginning by `generate`.
        answer["decoder_input_ids"][0, 0] = answer_start(config)
    found = [
        {**inputs, **answer}
        for kind in (_pictures, _sounds, _texts, _series, _states)
        for inputs in kind(names, config)
    ]
    for inputs in found:
        beside = _companions(names, config, inputs)
        if beside:
            yield {**inputs, **beside}
    yield from found


def answer_start(config: Any) -> int:
    """Return the id that a decoder begins with."""
    names = ("decoder_start_token_id", "bos_token_id", "pad_token_id")
    return number(config, names, 2) % VOCABULARY


def setting(config: Any, names: Sequence[str], default: Any = None) -> Any:
    """Return the first number (or list of numbers) of a configuration or its nested ones."""
    for name in names:
        for part in parts_of(config):
            value = vars(part).get(name)
            if value is not None and not isinstance(value, bool):
                return value
    return default


def number(config: Any, names: Sequence[str], default: int) -> int:
    """Return the first whole number of a configuration under one of the names."""
    found = setting(config, names, default)
    return found if isinstance(found, int) else default


def token_ids(config: Any, count: int, seed: int) -> Tensor:
    """Return (1, count) ids that no setting of the configuration names."""
    sizes, special = [200], set()
    for part in parts_of(config):
        for name, value in vars(part).items():
            if "vocab_size" in name and isinstance(value, int) and value > 16:
                sizes.append(value)
            elif name.endswith(("_token_id", "_token_index", "_id")):
                special.update(value if isinstance(value, list) else [value])
    plain = torch.tensor([i for i in range(4, min(sizes)) if i not in special])
    generator = torch.Generator().manual_seed(seed)
    return plain[torch.randint(len(plain), (1, count), generator=generator)]


def _text(names: set[str], config: Any) -> Inputs:
    if "input_ids" not in names:
        return {}
    text = {"input_ids": token_ids(config, tokens_of(config), 0)}
    if "attention_mask" in names:
        text["attention_mask"] = torch.ones_like(text["input_ids"])
    if "qformer_input_ids" in names:
        text["qformer_input_ids"] = token_ids(config, tokens_of(config), 2)
        text["qformer_attention_mask"] = torch.ones_like(text["input_ids"])
    return text


def tokens_of(config: Any) -> int:
    """Return how many tokens a text has; an odd number, fewer where positions end before."""
    places = number(config, ("max_position_embeddings",), TOKENS)
    return min(TOKENS, places - 1 + places % 2)


def _texts(names: set[str], config: Any) -> Iterator[Inputs]:
    text = _text(names, config)
    if text:
        yield text
        yield {"input_ids": text["input_ids"]}
        codes = number(config, ("num_codebooks",), 0)
        if codes:
            yield {"input_ids": text["input_ids"].repeat(codes, 1)}
        if "use_cache" in names:
            yield {**text, "use_cache": False}
        if "bbox" in names:
            yield {**text, "bbox": torch.zeros(*text["input_ids"].shape, 4, dtype=torch.long)}


def picture(config: Any) -> Tensor:
    """Return one random picture (1, channel, height, width) of the size that is configured."""
    channels = number(config, ("num_channels", "in_channels", "in_chans", "image_channels"), 3)
    size = setting(config, ("image_size", "img_size", "input_size"), 64)
    size = tuple(size) if isinstance(size, list | tuple) else (size, size)
    if len(size) != 2 or not all(isinstance(s, int) for s in size):
        size = (64, 64)
    return _noise(1, channels, *size)


def _pictures(names: set[str], config: Any) -> Iterator[Inputs]:
    text, image = _text(names, config), picture(config)
    channels = image.shape[1]
    side = number(config, ("patch_size",), 14)
    deep = number(config, ("temporal_patch_size",), 1)
    depths = list(dict.fromkeys((deep, 2)))
    grids = [n for n in ("image_grid_thw", "grid_thw") if n in names]
    for grid, thick in itertools.product(grids, depths):
        flat = _noise(16, channels * thick * side * side)
        for key in ("pixel_values", "hidden_states"):
            if key in names:
                yield {**text, key: flat, grid: torch.tensor([[1, 4, 4]])}
    cells = _noise(1, 16, channels * side * side)
    if "flattened_patches" in names:
        # Each begins with its row and column.
        yield {**text, "flattened_patches": torch.cat((torch.ones(1, 16, 2), cells), 2)}
    for key in PICTURES:
        if key in names:
            for shaped in (image, image[:, None], image[:, None].repeat(1, 8, 1, 1, 1), cells):
                yield {**text, key: shaped}
            if "aspect_ratio_ids" in names:
                tiles = number(config, ("max_num_tiles",), 4)
                yield {**text, key: image[:, None, None].repeat(1, 1, tiles, 1, 1, 1)}
            if text:
                yield {key: image}
                yield {key: image[:, None].repeat(1, 8, 1, 1, 1)}


def _sounds(names: set[str], config: Any) -> Iterator[Inputs]:
    text = _text(names, config)
    frames = min(2 * number(config, ("max_source_positions", "n_window"), 50), LONGEST_SOUND)
    if "input_features" in names:
        wave = _noise(1, number(config, BINS, 80), frames)
        for shaped in (wave, wave.transpose(1, 2), wave[0]):
            if text:
                yield {**text, "input_features": shaped}
            yield {"input_features": shaped}
        yield {**text, "input_features": _noise(1, 1, 1024, number(config, BINS, 64))}
        for bins in dict.fromkeys(number(config, (name,), 80) for name in BINS):
            yield {"input_features": _noise(1, frames, bins)}
        lengths = {"feature_lens": torch.tensor([frames])}
        yield {"input_features": wave, **lengths}
        after = {"aftercnn_lens": torch.tensor([frames // 2])}
        yield {"input_features": wave[0], **lengths, **after}
    for key in WAVES:
        if key in names:
            yield {key: _noise(1, 4000)}
            yield {key: _noise(1, 1, 4000)}
            yield {key: _noise(1, frames, number(config, BINS, 80))}
            yield {key: _noise(1, number(config, ("max_length",), 1024), number(config, BINS, 128))}
            if text:
                yield {**text, key: _noise(1, 4000)}


def _series(names: set[str], config: Any) -> Iterator[Inputs]:
    if "past_values" not in names:
        return
    length = number(config, ("context_length",), 32)
    channels = number(config, ("num_input_channels", "input_size"), 1)
    lags = setting(config, ("lags_sequence",), [])
    past = length + max(lags, default=0)
    if "past_time_features" in names:
        ahead = number(config, ("prediction_length",), 4)
        times = max(1, number(config, ("num_time_features",), 0))
        yield {
            "past_values": _noise(1, past),
            "past_time_features": _noise(1, past, times),
            "past_observed_mask": torch.ones(1, past),
            "future_values": _noise(1, ahead),
            "future_time_features": _noise(1, ahead, times),
        }
    yield {"past_values": _noise(1, length, channels)}
    yield {"past_values": _noise(1, length)}


def _states(names: set[str], config: Any) -> Iterator[Inputs]:
    for key in ("inputs_embeds", "hidden_states"):
        if key in names and "input_ids" not in names:
            width = number(config, WIDTHS, 64)
            yield {key: _noise(1, TOKENS, width)}
            yield {key: _noise(TOKENS, width)}


def _companions(names: set[str], config: Any, have: Inputs) -> Inputs:
    """Return arguments that some forwards want beside others."""
    found: Inputs = {}
    if "input_features" in have:
        long = max(have["input_features"].shape[-2:])
        for mask in ("input_features_mask", "feature_attention_mask"):
            if mask in names:
                found[mask] = torch.ones(1, long, dtype=torch.long)
    if "pixel_values" in have and "spatial_shapes" in names:
        found["spatial_shapes"] = torch.tensor([[4, 4]])
        found["pixel_attention_mask"] = torch.ones(1, 16, dtype=torch.long)
    if "pixel_values" in have and "aspect_ratio_ids" in names:
        tiles = have["pixel_values"].shape[-4] if have["pixel_values"].dim() > 4 else 1
        found["aspect_ratio_ids"] = torch.ones(1, 1, dtype=torch.long)
        found["aspect_ratio_mask"] = torch.ones(1, 1, tiles, dtype=torch.long)
    if "past_values" in have and "past_values_padding" in names:
        found["past_values_padding"] = torch.zeros(have["past_values"].shape[:2], dtype=torch.long)
        found["freq"] = torch.zeros(1, 1, dtype=torch.long)
    if "input_ids" in have and "state" in names:
        found["state"] = _noise(1, 4)
    return found


def _with_placeholders(guess: Inputs, config: Any, complaints: Sequence[str]) -> Inputs | None:
    """Return a guess with as many placeholders in its text as the last complaint asks for."""
    said = complaints[-1]
    counted = re.search(r"features\D{0,20}(\d+)[^\d]*$", said)
    if "input_ids" not in guess or "token" not in said or not counted:
        return None
    kind = "audio" if "udio" in said else "video" if "pixel_values_videos" in guess else "image"
    token = number(config, PLACEHOLDERS[kind], -1)
    count = int(counted.group(1))
    if token < 0 or not 0 < count < 2000:
        return None
    ids = guess["input_ids"]
    middle = torch.full((1, count), token)
    half = ids.shape[1] // 2
    ids = torch.cat((ids[:, :half], middle, ids[:, half:]), 1)
    found = {**guess, "input_ids": ids}
    if "attention_mask" in guess:
        found["attention_mask"] = torch.ones_like(ids)
    return found


def _noise(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator)


def two_rows(inputs: Inputs) -> Inputs | None:
    """Return a batch of the row and of another one; None where an input has no axis of rows."""
    tensors = [v for v in inputs.values() if isinstance(v, Tensor)]
    if any(v.dim() < 1 or v.shape[0] != 1 for v in tensors):
        return None
    return {
        name: torch.cat((value, _other(value))) if isinstance(value, Tensor) else value
        for name, value in inputs.items()
    }


def _other(value: Tensor) -> Tensor:
    """Return another row like this one; ids and masks are the same."""
    if value.is_floating_point():
        return value.roll(7, -1) * 0.9
    return value.clone()


def padded(inputs: Inputs, side: str, count: int) -> Inputs | None:
    """Return two rows of text, the second with `count` tokens of padding on a side.

    None for inputs without a text and its mask, or that hold no axis of rows.
    """
    rows = two_rows(inputs)
    if rows is None or not {"input_ids", "attention_mask"} <= set(rows):
        return None
    ids, mask = rows["input_ids"].clone(), rows["attention_mask"].clone()
    real = ids[1].clone()
    # The second row's own text: the first's, with its plain ends turned about.
    real[: 2 * PLAIN] = real[: 2 * PLAIN].flip(0)
    kept = real[count:]
    filling = torch.full((count,), int(real[0]))
    ids[1] = torch.cat((filling, kept) if side == "left" else (kept, filling))
    mask[1] = 1
    mask[1, :count] = 0
    if side == "right":
        mask[1] = mask[1].flip(0)
    return {**rows, "input_ids": ids, "attention_mask": mask}
