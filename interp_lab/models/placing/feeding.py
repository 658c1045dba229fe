"""Which token each number of a picture feeds, from one forward of the towers.

The tokens are weighted by codes, and the gradient of their weighted sum at a number that feeds one
token alone is that token's code times the gradient without codes: the ratio names the token. A
second, random code must agree, or the number feeds several. Three backwards place all tokens.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp_lab.models.files import is_out_of_memory
from interp_lab.models.placing.local import decoder_inputs, position_wise

log = logging.getLogger(__name__)
# More tokens than this are named by the bits of their number at once: a ratio in float32 cannot
# tell them. Of fewer it may not either: the bits are asked before anything is called shared.
MOST_BY_RATIO = 4096
# Of fewer tokens float32 tells every ratio.
LEAST_BY_BITS = 256
# Of the largest gradient: what has less is rounding.
LEAST = {torch.float64: 1e-9, torch.float32: 1e-6}
LEAST_HALF = 1e-3
# With a larger share of shared numbers the few that agree do so by chance.
BY_CHANCE = 0.9
# Above this share of the gradient's weight, tokens are looked at one by one.
SHARED = 1e-3
# Of shared tokens so many are looked at before it is said that all mix the picture.
PROBES = 8


@dataclass(frozen=True)
class Feeding:
    """What each image token is made of.

    Args:
        owners: (number,) the token that it feeds alone, from 0; -1 where there is none.
        shared: the share of the gradient's weight on numbers that feed several tokens.
        weights: where that is not 0, token -> (numbers, weights) of all that it is made of.
        reached: whether any token follows the picture at all.
    """

    owners: np.ndarray
    shared: float
    weights: Mapping[int, tuple[np.ndarray, np.ndarray]]
    reached: bool

    def numbers(self, n_tokens: int) -> list[np.ndarray]:
        """Return the numbers that feed each token alone."""
        alone = np.flatnonzero(self.owners >= 0)
        order = alone[np.argsort(self.owners[alone], kind="stable")]
        starts = np.searchsorted(self.owners[order], np.arange(n_tokens + 1))
        return [order[a:b] for a, b in pairwise(starts)]


def fed_tokens(
    module: Any, inputs: Mapping[str, Any], keys: Sequence[str], at: Tensor, seed: int = 0
) -> Feeding:
    """Return which image token each number of the pixels feeds.

    Args:
        module: a transformers model.
        inputs: of one row, on the model's device and in its dtype.
        keys: the inputs that hold pixels.
        at: (token,) the positions of the image tokens.
    """
    inputs = dict(inputs)
    for key in keys:
        inputs[key] = inputs[key].detach().clone().requires_grad_(True)
    states = _followed(module, inputs)[at.to(module.device)]
    return feeding(states, [inputs[key] for key in keys], seed)


def feeding(states: Tensor, pixels: Sequence[Tensor], seed: int = 0) -> Feeding:
    """Return which token each number of the pixels feeds.

    Args:
        states: (token, width), as they follow from the pixels.
        pixels: what they follow from, with gradients.
    """
    code = _Codes(len(states), states, seed)
    grads = _Gradients(states, pixels, code.direction)
    if not states.requires_grad:
        return Feeding(np.full(grads.size, -1), 0.0, {}, False)
    token, alone, shared = _read(code, grads)
    if shared > SHARED and not code.by_bits and len(states) > LEAST_BY_BITS:
        token, alone, shared = _read(_Codes(len(states), states, seed, by_bits=True), grads)
    if shared != shared:  # no number was used
        return Feeding(np.full(grads.size, -1), 0.0, {}, False)
    owners = np.where(alone & (shared <= BY_CHANCE), token, -1).astype(np.int32)
    weights = grads.by_token(len(states)) if shared > SHARED else {}
    return Feeding(owners, shared if weights else 0.0, weights, True)


def _read(code: "_Codes", grads: "_Gradients") -> tuple[np.ndarray, np.ndarray, float]:
    """Return the token of each number, whether it feeds that alone, and the share of the others.

    The share is NaN where no number feeds any token.
    """
    one, *rest = (grads.of(weights) for weights in code.weights)
    token, alone, used = code.read(one, rest)
    weight = np.abs(one)
    if not used.any():
        return token, alone, float("nan")
    return token, alone, float(weight[used & ~alone].sum() / weight[used].sum())


def _followed(module: Any, inputs: dict[str, Any]) -> Tensor:
    """Return the decoder's inputs with what their gradients need.

    That is held on the host where the device has no room for it: many tiles, a large tower.
    """
    with torch.enable_grad(), position_wise(module, module.get_decoder()):
        try:
            return decoder_inputs(module, inputs)
        except Exception as error:  # whatever a device raises for memory
            if module.device.type == "cpu" or not is_out_of_memory(error):
                raise
        log.info("the gradients of the vision tower are held on the host: the device has no room")
        with torch.autograd.graph.save_on_cpu():
            return decoder_inputs(module, inputs)


class _Codes:
    """The weights of the tokens in each backward, and how their gradients are read."""

    def __init__(self, n: int, states: Tensor, seed: int, by_bits: bool = False) -> None:
        dtype = states.dtype
        draw = torch.Generator().manual_seed(seed)
        self.n, self.dtype = n, dtype
        self.direction = torch.randn(states.shape[-1], generator=draw).to(states)
        half = dtype in (torch.float16, torch.bfloat16)
        self.by_bits = by_bits or half or (n > MOST_BY_RATIO and dtype != torch.float64)
        number = torch.arange(n)
        if self.by_bits:
            bits = [(number >> b & 1) for b in range(max(1, (n - 1).bit_length()))]
            parity = (sum(bits) + torch.randint(0, 2, (n,), generator=draw)) % 2
            codes = [torch.ones(n), *(b * 2.0 - 1 for b in bits), parity * 2.0 - 1]
        else:
            codes = [torch.ones(n), (number + 1) / n, torch.rand(n, generator=draw) + 0.5]
        self.weights = [c.to(states) for c in codes]

    def read(
        self, one: np.ndarray, rest: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the token of each number, whether it feeds that alone, whether any at all."""
        least = LEAST.get(self.dtype, LEAST_HALF)
        used = np.abs(one) > least * max(np.abs(one).max(), np.finfo(np.float64).tiny)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = [r / one for r in rest]
        if self.by_bits:
            token = sum((r > 0).astype(np.int64) << b for b, r in enumerate(ratios[:-1]))
            exact = np.all([np.abs(np.abs(r) - 1) < 0.2 for r in ratios], axis=0)
            near = 0.2
        else:
            place = ratios[0] * self.n - 1
            token = np.nan_to_num(place.round(), nan=-1, posinf=-1, neginf=-1).astype(np.int64)
            exact = np.abs(place - token) < (1e-3 if self.dtype == torch.float64 else 0.1)
            near = 1e-4 if self.dtype == torch.float64 else 1e-2
        inside = used & exact & (token >= 0) & (token < self.n)
        token = np.where(inside, token, 0)
        check = self.weights[-1].double().cpu().numpy()[token]
        return token, inside & (np.abs(ratios[-1] - check) < near), used


class _Gradients:
    """Gradients of sums over tokens at all pixels, flattened, in float64."""

    def __init__(self, states: Tensor, pixels: Sequence[Tensor], direction: Tensor) -> None:
        self._sums = states @ direction
        self._pixels = list(pixels)
        self.size = sum(p.numel() for p in pixels)

    def of(self, weights: Tensor) -> np.ndarray:
        """Return the gradient of the weighted sum over tokens, (number,)."""
        found = torch.autograd.grad(
            (self._sums * weights).sum(), self._pixels, retain_graph=True, allow_unused=True
        )
        zeros = (torch.zeros_like(p) for p in self._pixels)
        parts = [z if g is None else g for g, z in zip(found, zeros, strict=True)]
        return np.concatenate([p.detach().double().flatten().cpu().numpy() for p in parts])

    def by_token(self, n: int) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Return what each token is made of; of a few only, if those are made of everything."""
        few = np.unique(np.linspace(0, n - 1, PROBES).round().astype(int)).tolist()
        found = {t: self._support(t, n) for t in few}
        if all(len(numbers) > self.size / 2 for numbers, _ in found.values()):
            return found
        return found | {t: self._support(t, n) for t in range(n) if t not in found}

    def _support(self, token: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        one = torch.zeros(n).to(self._sums)
        one[token] = 1
        weight = np.abs(self.of(one))
        least = LEAST.get(self._sums.dtype, LEAST_HALF) * weight.max()
        numbers = np.flatnonzero(weight > least) if weight.any() else np.zeros(0, int)
        return numbers, weight[numbers]
