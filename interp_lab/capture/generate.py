"""Generation under capture: plans for the prompt and plans for each generated token.

Memory grows by the reduced row of each step only; the pattern of the whole sequence never exists.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from interp_lab.capture.attention import Watched, watch_attention
from interp_lab.capture.plans import AttentionChange, AttentionPlan
from interp_lab.capture.tally import Captured
from interp_lab.errors import ConfigError, UnsupportedModelError
from interp_lab.libraries.huggingface import encoder_and_decoder

# Options that write several sequences a row, or take tokens back; with the value that does not.
_REFUSED = {
    "num_beams": 1,
    "num_return_sequences": 1,
    "assistant_model": None,
    "prompt_lookup_num_tokens": None,
    "assistant_early_exit": None,
    "use_mtp": None,
    "custom_generate": None,
}


@dataclass(frozen=True)
class Generated:
    """What was generated for one batch row and what was captured meanwhile.

    Args:
        tokens: the generated ids (step,), the end token included, padding after it left out.
        prefill: plan name -> numbers of the prompt.
        decode: plan name -> numbers of the decode steps. Step i is the query row of generated
            token i, which the model read to predict token i + 1; the row that predicted token 0 is
            the prompt's last one. There is one step less than there are tokens.
        how: method, paths, kernels and interventions, as plain values.
    """

    tokens: Tensor
    prefill: dict[str, Captured]
    decode: dict[str, Captured]
    how: dict[str, Any]


def generate_watched(
    model: Any,
    inputs: Mapping[str, Any],
    prefill: Sequence[Mapping[str, AttentionPlan]],
    decode: Sequence[Mapping[str, AttentionPlan]],
    interventions: Sequence[Sequence[AttentionChange]] = (),
    *,
    seed: int | None = None,
    **options: Any,
) -> list[Generated]:
    """Generate with `model.generate` while attention is watched.

    Args:
        model: a transformers model with `generate`.
        inputs: what the processor gave, with `input_ids` (batch, token), padded on the left; of an
            encoder-decoder the encoder's, and `decoder_input_ids` where the answer has a beginning.
        prefill: per batch row, plans for the prompt; their `when` is set here.
        decode: per batch row, plans for each generated token; their `when` is set here.
        interventions: per batch row, what to change during all of it.
        seed: seed for sampling; the random state outside is left as it was. None samples from it.
        **options: for `generate` (`max_new_tokens`, `do_sample`, ...) or, as `capture_method`, for
            `watch_attention`.

    Returns:
        One `Generated` a batch row.

    Raises:
        ConfigError: for beams or several sequences a row, or if the plans do not fit.
        UnsupportedModelError: if the model generates without a cache and decode plans are given.
    """
    for name, plain in _REFUSED.items():
        value = options.get(name, getattr(model.generation_config, name, None) or plain)
        if value not in (plain, None):
            raise ConfigError(
                f"generate option {name}={value!r} cannot be captured; set {name}={plain}"
            )
    ids, mask = _prompt(model, inputs), inputs.get("attention_mask")
    if mask is None and ids is inputs.get("input_ids"):
        mask = torch.ones_like(ids)
    masked = {} if mask is None else {"attention_mask": mask}
    plans = [
        {**_named("prefill", before, "prefill"), **_named("decode", after, "decode")}
        for before, after in zip(prefill, decode, strict=True)
    ]
    method = options.pop("capture_method", "fused")
    with (
        _seeded(seed, ids.device),
        watch_attention(model, plans, interventions, method=method, attention_mask=mask) as seen,
    ):
        generated = model.generate(**{**inputs, **masked}, **options)
    ends = options.get("eos_token_id", model.generation_config.eos_token_id)
    return _rows(seen, _new_tokens(model, generated, ids), ends)


def _prompt(model: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Return the tokens that the generated ones follow, (batch, token).

    Raises:
        ConfigError: if there are none, and the model does not begin by itself.
    """
    if encoder_and_decoder(model) is None and "input_ids" in inputs:
        return cast(Tensor, inputs["input_ids"])
    if "decoder_input_ids" in inputs:
        return cast(Tensor, inputs["decoder_input_ids"])
    states = next((v for v in inputs.values() if isinstance(v, Tensor)), None)
    start = getattr(model.generation_config, "decoder_start_token_id", None)
    if states is None or start is None:
        raise ConfigError("generate: the inputs hold neither input_ids nor decoder_input_ids")
    return torch.full((len(states), 1), int(start), device=states.device)


def _new_tokens(model: Any, generated: Any, ids: Tensor) -> Tensor:
    """Return what was generated after the prompt, (batch, token).

    Raises:
        UnsupportedModelError: if the model generates no tokens, or does not continue the prompt.
    """
    sequences = getattr(generated, "sequences", generated)
    if sequences.dim() != 2:
        raise UnsupportedModelError(
            f"{type(model).__name__} generates {tuple(sequences.shape)}, not one token a step; "
            "watch forwards of its own with watch_attention"
        )
    prompt = ids.to(sequences.device)
    if not sequences[:, : ids.shape[1]].equal(prompt):
        raise UnsupportedModelError(
            f"{type(model).__name__}.generate does not continue the tokens that it is given, so "
            "which of its tokens are new is not known; generate with its language model alone"
        )
    return cast(Tensor, sequences[:, ids.shape[1] :])


def _rows(seen: Watched, tokens: Tensor, ends: Any) -> list[Generated]:
    """Split results by batch row and leave out what came after the row's end token."""
    ends = set() if ends is None else {ends} if isinstance(ends, int) else set(ends)
    how = seen.describe()
    rows = []
    for row, result in zip(tokens, seen.results, strict=True):
        stop = next((i + 1 for i, t in enumerate(row.tolist()) if t in ends), len(row))
        _refuse_other_steps(_unnamed("decode", result), stop - 1, len(row) - 1)
        decode = {
            name: replace(captured, steps=captured.steps[: stop - 1])
            for name, captured in _unnamed("decode", result).items()
        }
        rows.append(Generated(row[:stop], _unnamed("prefill", result), decode, how))
    return rows


def _refuse_other_steps(decode: Mapping[str, Captured], least: int, most: int) -> None:
    """Refuse a generation whose decode steps are not one for each token's own row.

    Args:
        decode: plan name -> numbers of one row.
        least: how many tokens the row read after the prompt, up to its end token.
        most: the same of the batch's longest row.

    Raises:
        UnsupportedModelError: if the model reads its prompt again for every token, or generates
            otherwise than token after token.
    """
    for name, captured in decode.items():
        if not least <= len(captured.steps) <= most:
            raise UnsupportedModelError(
                f"plan {name!r}: {least} tokens were read after the prompt, but "
                f"{len(captured.steps)} decode steps were seen; generate with use_cache=true and "
                "one token at a time"
            )


def _named(kind: str, plans: Mapping[str, AttentionPlan], when: Any) -> dict[str, AttentionPlan]:
    return {f"{kind}/{name}": replace(plan, when=when) for name, plan in plans.items()}


def _unnamed(kind: str, result: Mapping[str, Captured]) -> dict[str, Captured]:
    return {k.split("/", 1)[1]: v for k, v in result.items() if k.startswith(f"{kind}/")}


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Let torch's random numbers start from the seed inside; leave them alone without one."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
