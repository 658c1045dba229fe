"""Making any configuration small: every width by one divisor, one layer of each kind.

Dividing all widths by the same number keeps every equality between them (a projector's two ends,
heads times head size, latent ranks), so that what fitted together still does. The configuration is
changed in place: building it anew would run validators that know the full sizes only.
"""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

VOCABULARY = 512
EXPERTS = 8
POSITIONS = 2048
SMALLEST_WIDTH = 32
CELLS_A_SIDE = 4
# Stages halve the picture until little is left of it.
STAGED_PICTURE = 64
SOUND_POSITIONS = 50
SOUND_FRAMES = 128

# Words that a name of a width holds, and words whose presence says that it is none.
WIDTH = set(
    "hidden dim dims width model ff kv inner embd embed embedding rank ffn intermediate features "
    "channels proj projection projector mlp lora state bottleneck filter rnn out ngram".split()
)
NO_WIDTH = set(
    "vocab image patch window kernel stride num layers layer mel bins context max id ids position "
    "positions sample sampling dropout prob eps act activation std init initializer ratio factor "
    "scale scaling expansion groups partial grid shape types type axes theta "
    "base chunk duration rate fps length".split()
)
LAST_NO_WIDTH = {"heads", "head", "kernels", "strides", "layers", "n"}
DEPTH = set("layers layer depth blocks groups stages".split())
NO_DEPTH = set(
    "first dense skip deepstack window mtp nextn feature out shared conv feat aligned drop fpn max "
    "pool post attn dim size type types act norm heads experts group interval freq per share id "
    "idx index stride kernel every step start n_group with".split()
)
INDEX_LISTS = {"deepstack_visual_indexes", "fullatt_block_indexes", "global_attn_indexes"}
MOST_FIRST = {"first_k_dense_replace": 1, "num_dense_layers": 1, "max_window_layers": 1}
NO_EXTRA = ("num_kv_shared_layers", "num_nextn_predict_layers", "mtp_num_hidden_layers")
ROUTED = set("num_experts_per_tok moe_topk moe_k top_k_experts moe_top_k".split())
LONG = set("max_position_embeddings n_positions n_ctx seq_length max_seq_len".split())


def parts_of(config: PreTrainedConfig) -> list[PreTrainedConfig]:
    """Return a configuration and all that are nested in it, each once, the outermost first."""
    found: dict[int, PreTrainedConfig] = {}
    waiting = [config]
    while waiting:
        part = waiting.pop(0)
        if id(part) not in found:
            found[id(part)] = part
            waiting += [v for v in vars(part).values() if isinstance(v, PreTrainedConfig)]
    return list(found.values())


def shrink(config: PreTrainedConfig, divisor: int, depth: bool = True) -> PreTrainedConfig:
    """Make a configuration and its nested ones small, in place.

    Args:
        config: as its class makes it without arguments.
        divisor: of every width.
        depth: False keeps all layers, for models whose layers are tied or staged.
    """
    # Token ids above the vocabulary stay distinct: image, audio and padding must not be one.
    spare = iter(range(VOCABULARY - 2, 40, -1))
    for part in parts_of(config):
        if depth:
            _cut_depth(part)
        for name, value in list(vars(part).items()):
            if not name.startswith("_"):
                _write(part, name, _smaller(name, value, divisor, spare))
        if "num_mel_bins" in vars(part) and _whole(vars(part).get("max_length")):
            vars(part)["max_length"] = min(vars(part)["max_length"], SOUND_FRAMES)
        _even_heads(part)
        _small_picture(part)
        _state_sections(part)
    return config


def _write(config: Any, name: str, value: Any) -> None:
    if vars(config).get(name) is not value:
        vars(config)[name] = value


def _smaller(name: str, value: Any, divisor: int, spare: Iterator[int]) -> Any:
    """Return what an attribute becomes."""
    if isinstance(value, dict):
        return {k: _rope_value(k, v, divisor) for k, v in value.items()}
    if name == "rope_theta" and value is None:
        return 10000.0
    if isinstance(value, list | tuple):
        return _smaller_list(name, value, divisor, spare)
    if value is None:
        return _filled(name)
    if not _whole(value):
        return value
    words = set(name.split("_"))
    if "vocab" in words:
        return min(value, VOCABULARY)
    if _is_token(name):
        return value if value < VOCABULARY else next(spare)
    if "experts" in words and name.endswith("experts"):
        return min(value, EXPERTS)
    if name in ROUTED:
        return min(value, 2)
    if name in ("n_group", "topk_group"):
        return 2 if name == "n_group" else 1
    if name in LONG:
        return min(value, POSITIONS)
    if name == "max_source_positions":
        return min(value, SOUND_POSITIONS)
    return value // divisor if _is_width(name, value, divisor) else value


def _filled(name: str) -> int | None:
    """Return a size that a class needs although its configuration leaves it open."""
    if name in ROUTED:
        return 2
    if name.endswith("experts") and "shared" not in name:
        return EXPERTS
    return {"vocab_size": VOCABULARY, "moe_intermediate_size": 2 * SMALLEST_WIDTH}.get(name)


def _smaller_list(name: str, value: Any, divisor: int, spare: Iterator[int]) -> Any:
    if not value or not all(map(_whole, value)):
        return value
    if _is_token(name):
        return type(value)(v if v < VOCABULARY else next(spare) for v in value)
    if all(_is_width(name, v, divisor) for v in value):
        return type(value)(v // divisor for v in value)
    return value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_token(name: str) -> bool:
    return name.endswith(("_token_id", "_token_index", "_token", "_id", "_ids", "_idx", "_index"))


def _is_width(name: str, value: int, divisor: int) -> bool:
    words = name.split("_")
    return (
        value >= SMALLEST_WIDTH
        and name not in ("input_dim", "in_dim")
        and value % divisor == 0
        and bool(WIDTH & set(words))
        and not NO_WIDTH & set(words)
        and words[-1] not in LAST_NO_WIDTH
    )


def _rope_value(name: str, value: Any, divisor: int) -> Any:
    """Return an entry of the rotary settings; its lists follow the head's width."""
    if isinstance(value, dict):
        return {k: _rope_value(k, v, divisor) for k, v in value.items()}
    if name == "rope_theta" and value is None:
        return 10000.0
    if name == "mrope_section":
        parts = [max(1, v // divisor) for v in value]
        parts[0] += max(sum(value) // divisor, len(value)) - sum(parts)
        return parts
    if name in ("long_factor", "short_factor"):
        return value[: max(1, len(value) // divisor)]
    return value


def _even_heads(config: Any) -> None:
    """Take fewer heads where a head's width would not divide by 4, as rotary halves must."""
    values = vars(config)
    width = next((values[n] for n in ("hidden_size", "d_model", "embed_dim") if n in values), None)
    names = [n for n in ("num_attention_heads", "num_heads", "num_key_value_heads") if n in values]
    if values.get("num_key_value_heads", 0) is None:
        values["num_key_value_heads"] = values.get("num_attention_heads")
    heads = [values[n] for n in names]
    if not _whole(width) or not heads or not all(_whole(h) and h > 0 for h in heads):
        return
    count = heads[0]
    if len(set(heads)) == 1 and values.get("head_dim") is None:
        while width % count:
            count -= 1
        while count % 2 == 0 and (width // count) % 4:
            count //= 2
        values.update(dict.fromkeys(names, count))
    if "head_dim" in values and values["head_dim"] is None and width % count == 0:
        values["head_dim"] = width // count


def _small_picture(config: Any) -> None:
    """Give a picture of few cells to a tower that names its picture's and its cells' size."""
    size, cell = (vars(config).get(n) for n in ("image_size", "patch_size"))
    if isinstance(vars(config).get("depths"), list | tuple):
        if _whole(size):
            vars(config)["image_size"] = min(size, STAGED_PICTURE)
        return
    if _whole(size) and _whole(cell):
        vars(config)["image_size"] = min(size, CELLS_A_SIDE * cell)
    elif isinstance(size, list | tuple) and cell is not None:
        cells = cell if isinstance(cell, list | tuple) else [cell] * len(size)
        small = [min(s, CELLS_A_SIDE * c) for s, c in zip(size, cells, strict=False)]
        vars(config)["image_size"] = type(size)(small)


def _state_sections(config: Any) -> None:
    """State multimodal rotary sections where the model's file has full-sized ones as default."""
    rope = vars(config).get("rope_parameters")
    heads, width = (vars(config).get(n) for n in ("num_attention_heads", "hidden_size"))
    if not isinstance(rope, dict) or "mrope_section" in rope or not (heads and width):
        return
    source = inspect.getsourcefile(type(config)) or ""
    file = Path(source.replace("configuration_", "modeling_"))
    if not file.is_file() or "mrope_section" not in file.read_text(encoding="utf-8"):
        return
    half = (vars(config).get("head_dim") or width // heads) // 2
    half = int(half * rope.get("partial_rotary_factor", 1.0))
    third = 3 * half // 8
    rope["mrope_section"] = [half - 2 * third, third, third]


def _cut_depth(config: Any) -> None:
    """Leave one layer of each kind, at least two; every list with an entry a layer is cut alike."""
    values = vars(config)
    depths = [n for n, v in values.items() if _whole(v) and _is_depth(n)]
    kinds = next(
        (
            list(values[n])
            for n in ("layer_types", "layers_block_type", "block_types", "hybrid_layer_pattern")
            if isinstance(values.get(n), list | tuple)
        ),
        [],
    )
    total = len(kinds) or max((values[n] for n in depths), default=0)
    kept = sorted({kinds.index(kind) for kind in kinds})
    kept = sorted([*kept, *[i for i in range(total) if i not in kept][: max(0, 2 - len(kept))]])
    for name in depths:
        if values[name] == total:
            values[name] = len(kept)
        elif values[name] > 2:
            values[name] = 2
    for name, value in list(values.items()):
        if isinstance(value, list | tuple) and total > 2 and len(value) == total:
            values[name] = type(value)(value[i] for i in kept)
        elif name == "depths" and isinstance(value, list | tuple):
            values[name] = type(value)(min(2, v) for v in value)
        elif name in INDEX_LISTS and isinstance(value, list | tuple):
            values[name] = type(value)([0])
        elif name == "intermediate_layers_indices" and isinstance(value, list | tuple):
            values[name] = type(value)([0] * len(value))
        elif name in MOST_FIRST and _whole(value):
            values[name] = min(value, MOST_FIRST[name])
        elif name in NO_EXTRA and _whole(value):
            values[name] = 0


def _is_depth(name: str) -> bool:
    words = set(name.split("_"))
    return bool(DEPTH & words) and not NO_DEPTH & words
