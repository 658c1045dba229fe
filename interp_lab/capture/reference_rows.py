"""Full rows of one attention call's pattern in float64, from its queries, keys and mask alone."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from interp_lab.capture.sites import Site
from interp_lab.errors import UnsupportedModelError

_BATCHED = ("query", "key", "value", "output")
# Numbers of a chunk of float64 rows: 32 MiB.
CHUNK = 2**22
# Of a score: the rounding of a sum of fp32 products, in units of scaling x |q| x |k|. Kernels were
# seen to need 17 where queries and keys point the same way.
SCORE_ROUNDING = 32 * 2.0**-24
# Of the kernel's output, in units of the largest value: it rounds the pattern and the output.
OUTPUT_ROUNDING = {torch.float32: 1e-5, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}


@dataclass(frozen=True)
class ReferenceCall:
    """One attention call as the kernel got it, and what came out.

    Args:
        site: the layer.
        implementation: the registered name of the attention function.
        query, key, value: (batch, head or kv_head, token, dim).
        mask, kwargs: the other arguments.
        output: (batch, query, head, dim).
    """

    site: Site
    implementation: str
    query: Tensor
    key: Tensor
    value: Tensor
    mask: Any
    kwargs: Mapping[str, Any]
    output: Tensor

    def tiles(self, n_rows: int) -> list["ReferenceCall"]:
        """Return the call as one for each tile, where its batch axis holds one row's tiles."""
        count = len(self.query)
        if n_rows != 1 or count == 1:
            return [self]
        return [
            replace(self, **{n: getattr(self, n)[i : i + 1] for n in _BATCHED}, mask=self._of(i))
            for i in range(count)
        ]

    def _of(self, tile: int) -> Any:
        several = isinstance(self.mask, Tensor) and self.mask.dim() == 4 and len(self.mask) > 1
        return self.mask[tile : tile + 1] if several else self.mask

    @property
    def written(self) -> bool:
        """Whether it is of a text's tower, whose sequence may be padded and grow."""
        return self.site.padded

    @property
    def _causal(self) -> bool:
        return bool(getattr(self.site.module, "is_causal", True))

    def rows(self, row: int, places: Sequence[int]) -> Iterator[tuple[Tensor, float, float, float]]:
        """Yield full rows of the log pattern, (head, query, key), in float64, in chunks of queries.

        Beside them: the size of the scores (scaling x |q| x |k|, the largest), by how much the
        kernel's output differs from the pattern times the values, and what its dtype explains.
        """
        keys, values = self.key[row].double(), self.value[row].double()
        n_heads, n_keys = self.query.shape[1], keys.shape[1]
        size = max(1, CHUNK // (n_heads * n_keys))
        largest = max(float(values.abs().max()), 1e-30)
        for first in range(0, len(places), size):
            chunk = torch.tensor(places[first : first + size], device=keys.device)
            queries = self.query[row].index_select(1, chunk).double()
            grouped = queries.view(keys.shape[0], -1, queries.shape[-1])
            scores = (grouped @ keys.transpose(1, 2)).view(n_heads, len(chunk), n_keys)
            scores = self._shaped(scores * self._scaling)
            scores = scores + self._added(row, chunk, n_keys)
            log_rows = scores - self._log_sum(scores)[:, :, None]
            pattern = log_rows.exp().view(values.shape[0], -1, n_keys)
            output = (pattern @ values).view(n_heads, len(chunk), -1).transpose(0, 1)
            theirs = self.output[row].index_select(0, chunk.to(self.output.device)).double()
            gap = (output - theirs.to(output.device)).abs() / largest
            # A number that is none is infinitely far off, not the smaller of two.
            off = float(torch.nan_to_num(gap, nan=math.inf).max())
            norms = queries.norm(dim=-1).max() * keys.norm(dim=-1).max()
            reach = float(norms) * abs(self._scaling)
            bound = OUTPUT_ROUNDING.get(self.query.dtype, 2.0**-6) + 2 * SCORE_ROUNDING * reach
            yield log_rows, reach, off, bound

    @property
    def _scaling(self) -> float:
        given = self.kwargs.get("scaling")
        return 1 / math.sqrt(self.query.shape[-1]) if given is None else float(given)

    def _shaped(self, scores: Tensor) -> Tensor:
        cap = self.kwargs.get("softcap")
        return scores if cap is None else cap * (scores / cap).tanh()

    def _log_sum(self, scores: Tensor) -> Tensor:
        """Return the log of each row's sum, attention sinks taking part in it."""
        sinks = self.kwargs.get("s_aux", self.kwargs.get("sinks"))
        if sinks is None:
            return scores.logsumexp(-1)
        one = sinks.double().view(-1, 1, 1).expand(-1, scores.shape[1], 1).to(scores.device)
        return torch.cat([scores, one], -1).logsumexp(-1)

    def _added(self, row: int, chunk: Tensor, n_keys: int) -> Tensor:
        """Return what the mask adds to the scores of some query rows, (head or 1, query, key)."""
        added = torch.zeros(1, len(chunk), n_keys, dtype=torch.float64, device=chunk.device)
        bias = self.kwargs.get("position_bias")
        if bias is not None:
            added = added + bias[min(row, len(bias) - 1)].index_select(1, chunk).double()
        if isinstance(self.mask, Tensor) and self.mask.dim() == 4:
            mask = self.mask[row if len(self.mask) > 1 else 0]
            mask = mask if mask.shape[1] == 1 else mask.index_select(1, chunk)
            mask = mask[:, :, :n_keys]
            if mask.dtype == torch.bool:
                return added.masked_fill(~mask, -math.inf)
            return added + mask.double()
        return added.masked_fill(self._unseen(row, chunk, n_keys), -math.inf)

    def _unseen(self, row: int, chunk: Tensor, n_keys: int) -> Tensor:
        """Return which keys a query does not see where no 4D mask says it, (1, query, key)."""
        at = torch.arange(n_keys, device=chunk.device)[None]
        flag = self.kwargs.get("is_causal")
        causal = self._causal if flag is None else bool(flag)
        if self.implementation == "sdpa":
            ahead = at > chunk[:, None] if causal and self.query.shape[2] > 1 else at < 0
            return ahead.expand(len(chunk), -1)[None]
        if "flash" in self.implementation and self.kwargs.get("cu_seq_lens_q") is None:
            # Flash attention counts causality and windows from the newest key.
            mine = chunk[:, None] + n_keys - self.query.shape[2]
            hidden = at > mine if causal else (at < 0).expand(len(chunk), -1)
            if self.kwargs.get("sliding_window") is not None:
                hidden = hidden | (at <= mine - self.kwargs["sliding_window"])
            if self.mask is not None:
                hidden = hidden | ~self.mask[row, -n_keys:].bool()[None]
            return hidden[None]
        mask_mod = getattr(self.mask, "mask_mod", None)
        if self.implementation == "flex_attention" and mask_mod is not None:
            zero = torch.zeros((), dtype=torch.long, device=chunk.device)
            return ~mask_mod(zero + row, zero, chunk[:, None], at)[None]
        raise UnsupportedModelError(
            f"capture.verify: {self.site.path} calls {self.implementation} in a way that the check "
            "does not know; load the model with attn_implementation=sdpa, or set capture.verify=off"
        )
