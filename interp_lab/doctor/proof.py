"""Capture proves itself before it measures: once for each combination of versions and device.

The proof takes about two seconds: the kernels of a device and dtype in small, and a tiny random
Qwen2 watched in a padded prompt and while it writes four tokens. What is captured is compared with
float64 arithmetic from the queries and keys that the model handed to its attention function, with
visibility written out here: a token sees what stands before it, padding is seen by nobody. How
capture finds out where a token stands is not used, so a version that breaks it cannot pass.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2 import modeling_qwen2

from interp_lab.capture.attention import watch_attention
from interp_lab.capture.generate import generate_watched
from interp_lab.capture.plans import AttentionPlan
from interp_lab.capture.reduce import Keep
from interp_lab.doctor import proof_memory
from interp_lab.doctor.devices import device_name
from interp_lab.doctor.exact import exact_pattern, largest_difference, seen_keys
from interp_lab.doctor.kernels import kernel_cases
from interp_lab.doctor.versions import tested_range
from interp_lab.errors import ConfigError, DeviceError, UnsupportedModelError
from interp_lab.libraries.huggingface import overlay, registered

log = logging.getLogger(__name__)
TOKENS, PADDING, NEW_TOKENS = 12, (3, 0), 4
LAYERS, HEADS, KEY_HEADS, WIDTH = 2, 4, 2, 16


@dataclass
class Proof:
    """What a proof found.

    Attributes:
        checks: what was compared -> (largest difference, bound).
        wrong: what does not hold, one short text each; empty if all is well.
    """

    checks: dict[str, tuple[float, float]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def compare(self, name: str, difference: float, bound: float) -> None:
        """Keep the comparison nearest to its bound; note one that does not hold."""
        before = self.checks.get(name)
        if before is None or not difference / bound <= before[0] / before[1]:
            self.checks[name] = (difference, bound)
        if not difference <= bound:
            self._say(f"{name} differs by {difference:.2g} from float64 (bound {bound:.2g})")

    def expect(self, name: str, found: Any, wanted: Any) -> bool:
        """Note it if two plain values differ; return whether they are equal."""
        if found != wanted:
            self._say(f"{name}: {found} instead of {wanted}")
        return found == wanted

    def _say(self, what: str) -> None:
        if what not in self.wrong:
            self.wrong.append(what)


def prove_once(
    device: torch.device | str,
    dtype: torch.dtype,
    attn_implementation: str,
    cache_folder: Path | None = None,
) -> Proof | None:
    """Prove capture on this combination of versions, device, dtype and implementation.

    A proof that succeeded is remembered; one that failed is made anew the next time. A folder that
    cannot be written costs the two seconds each time, and the log says so.

    Args:
        device: where the model will run.
        dtype: of its weights.
        attn_implementation: as transformers names it ("sdpa", "flash_attention_2", "eager").
        cache_folder: where proofs are remembered; None for the user's cache folder.

    Returns:
        The proof, or None if it was made before.

    Raises:
        UnsupportedModelError: if captured numbers are wrong here.
        ConfigError, DeviceError: see `prove`.
    """
    device = torch.device(device)
    combination = proof_memory.combination(device_name(device), dtype, attn_implementation)
    folder = cache_folder or proof_memory.default_folder()
    if proof_memory.remembered(folder, combination):
        return None
    log.info("proving capture on %s in %s, once for these versions", device, combination["dtype"])
    proof = prove(device, dtype, attn_implementation)
    if proof.wrong:
        raise UnsupportedModelError(complaint(combination, proof))
    note = proof_memory.remember(folder, combination, proof.checks)
    if note:
        log.info(note)
    return proof


def complaint(combination: dict[str, str], proof: Proof) -> str:
    """Return one line: which versions, what differs, what to do."""
    versions = ", ".join(f"{n} {combination[n]}" for n in ("transformers", "torch", "interp_lab"))
    where = f"{combination['device']}, {combination['dtype']}, {combination['implementation']}"
    more = f" and {len(proof.wrong) - 1} more" if len(proof.wrong) > 1 else ""
    wanted = " ".join(f"'{tested_range(name)}'" for name in ("transformers", "torch"))
    return (
        f"capture is wrong with {versions} on {where}: {proof.wrong[0]}{more}; "
        f"pip install {wanted} (the newest that was tested, where a newer one fails), or see "
        "mode=doctor"
    )


def prove(device: torch.device, dtype: torch.dtype, attn_implementation: str) -> Proof:
    """Make the proof and return what it found; the state of random numbers is left as it was.

    Raises:
        ConfigError: if transformers has no such implementation here.
        DeviceError: if the device has no memory left.
    """
    proof = Proof()
    cards = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cards):
        torch.manual_seed(0)
        if attn_implementation == "sdpa":
            _prove_kernels(proof, device, dtype)
        model = tiny_model(device, dtype, attn_implementation)
        try:
            _prove_model(proof, model, attn_implementation)
        except torch.cuda.OutOfMemoryError as error:
            raise DeviceError(f"{device}: no memory is left on it for a tiny model") from error
        except Exception as error:
            # Whatever a changed library breaks must be told as a proof that failed, in one line.
            text = " ".join(str(error).split())[:300]
            proof.wrong.append(f"watching a tiny Qwen2 ended in {type(error).__name__}: {text}")
    return proof


def _prove_kernels(proof: Proof, device: torch.device, dtype: torch.dtype) -> None:
    for result in kernel_cases(device, dtype, kernels=("own choice",), tokens=29):
        name = f"kernel {result.kernel}, {result.case}"
        if result.refused:
            proof.wrong.append(f"sdpa, {result.case}: {result.refused}")
            continue
        proof.compare(name, result.difference, result.bound)
        proof.expect(f"{name}: output equal to the unwatched one", result.output_equal, True)


def _prove_model(proof: Proof, model: Qwen2ForCausalLM, implementation: str) -> None:
    ids = torch.randint(3, 90, (2, TOKENS), device=model.device)
    mask = torch.ones_like(ids)
    for row, padding in enumerate(PADDING):
        mask[row, :padding] = 0
    everything = AttentionPlan(None, None, Keep())
    newest = AttentionPlan("last", None, Keep())
    with _recorded(implementation) as calls, torch.no_grad():
        with watch_attention(model, [{"all": everything}] * 2) as watched:
            model(input_ids=ids, attention_mask=mask, use_cache=False)
        got = [row["all"].steps for row in watched.results]
        _compare_prompt(proof, "prompt with left padding", got, calls)
        calls.clear()
        made = generate_watched(
            model,
            {"input_ids": ids, "attention_mask": mask},
            [{"all": everything}] * 2,
            [{"row": newest}] * 2,
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            do_sample=False,
        )
    _compare_prompt(proof, "prompt of a generation", [r.prefill["all"].steps for r in made], calls)
    _compare_steps(proof, [r.decode["row"].steps for r in made], calls[LAYERS:])


def tiny_model(device: torch.device, dtype: torch.dtype, implementation: str) -> Qwen2ForCausalLM:
    """Return a random Qwen2 of two layers, 4 query heads on 2 key heads.

    Raises:
        ConfigError: if transformers cannot use the implementation on this machine.
    """
    config = Qwen2Config(
        vocab_size=99,
        hidden_size=HEADS * WIDTH,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    network: Any = Qwen2ForCausalLM
    # One of the hub (org/kernel) was allowed before: `loading.check_attention`.
    given = {"allow_all_kernels": True} if "/" in implementation else {}
    try:
        model = network._from_config(config, attn_implementation=implementation, **given)
    except (ImportError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"model.attn_implementation={implementation}: cannot be used here ({why}); take sdpa"
        ) from error
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)  # else the pattern is near uniform, and faults do not show
    return model.to(device, dtype).eval()


@dataclass(frozen=True)
class _Recorded:
    """Queries (row, head, query, dim) and keys (row, kv_head, key, dim) of one attention call."""

    query: Tensor
    key: Tensor
    scaling: float


@contextmanager
def _recorded(implementation: str) -> Iterator[list[_Recorded]]:
    """Record what the model hands to its attention function; the function itself stays.

    The name of the function stays too, since masks are made by it.
    """
    calls: list[_Recorded] = []
    run = registered(implementation) or modeling_qwen2.eager_attention_forward

    def attend(module: nn.Module, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> Any:
        scaling = float(kwargs.get("scaling") or query.shape[-1] ** -0.5)
        # Cloned: some caches write the next tokens into the same memory.
        calls.append(_Recorded(query.detach().clone(), key.detach().clone(), scaling))
        return run(module, query, key, *args, **kwargs)

    with overlay(implementation, attend):
        yield calls


def _compare_prompt(
    proof: Proof, name: str, got: list[tuple[Tensor, ...]], calls: list[_Recorded]
) -> None:
    """Compare a padded prompt's whole pattern, one step of (layer, head, query, key) a row."""
    proof.expect(f"{name}: attention calls", len(calls[:LAYERS]), LAYERS)
    for row, padding in enumerate(PADDING):
        wanted = [(LAYERS, HEADS, TOKENS - padding, TOKENS - padding)]
        shapes = [tuple(step.shape) for step in got[row]]
        if not proof.expect(f"{name}: shapes of the patterns", shapes, wanted):
            continue
        for layer, call in enumerate(calls[:LAYERS]):
            _compare(proof, name, got[row][0][layer], call, row, padding, TOKENS, TOKENS)


def _compare_steps(proof: Proof, got: list[tuple[Tensor, ...]], calls: list[_Recorded]) -> None:
    """Compare each generated token's row; step i has one key more than step i - 1."""
    name = "generated tokens"
    steps = NEW_TOKENS - 1
    if not proof.expect(f"{name}: attention calls", len(calls), LAYERS * steps):
        return
    for row, padding in enumerate(PADDING):
        if not proof.expect(f"{name}: steps captured", len(got[row]), steps):
            continue
        wanted = [TOKENS - padding + i + 1 for i in range(steps)]
        keys = [step.shape[-1] for step in got[row]]
        if not proof.expect(f"{name}: keys of each step", keys, wanted):
            continue
        for i, step in enumerate(got[row]):
            for layer in range(LAYERS):
                call, end = calls[i * LAYERS + layer], TOKENS + i + 1
                _compare(proof, name, step[layer], call, row, padding, 1, end)


def _compare(
    proof: Proof,
    name: str,
    got: Tensor,
    call: _Recorded,
    row: int,
    padding: int,
    queries: int,
    keys: int,
) -> None:
    """Compare one layer and row with float64, from the queries and keys that were recorded."""
    given = (call.query.shape[2], call.key.shape[2])
    if not proof.expect(f"{name}: queries and keys of a call", given, (queries, keys)):
        return
    first = padding if queries > 1 else 0
    visible = seen_keys(queries, keys, padding=padding)[first:]
    want = exact_pattern(call.query[row, :, first:], call.key[row], call.scaling, visible)
    difference = (got.detach().cpu().double() - want.pattern[:, :, padding:]).abs().max()
    half = call.query.dtype != torch.float32
    proof.compare(name, float(difference), largest_difference(want.largest, half_lse=half))
