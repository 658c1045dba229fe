"""Reducers equal plain torch on the whole block, however it is cut into chunks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_lab.capture.reduce import ArgMax, Entropy, Keep, Max, Mean, Sum, TopK
from interp_lab.errors import ConfigError

P = torch.distributions


def entropy(a):
    return P.Categorical(probs=a).entropy()


CASES = [
    (Keep(), lambda a: a),
    (Sum(), lambda a: a.sum(2)),
    (Sum(("query", "key")), lambda a: a.sum((1, 2))),
    (Sum(("head",)), lambda a: a.sum(0)),
    (Mean(), lambda a: a.mean(1)),
    (Mean(("head", "query")), lambda a: a.mean((0, 1))),
    (Mean(("key",)), lambda a: a.mean(2)),
    (Max(), lambda a: a.amax((1, 2))),
    (Max(("head",)), lambda a: a.amax(0)),
    (Max(("key",)), lambda a: a.amax(2)),
    (ArgMax("head"), lambda a: a.argmax(0)),
    (ArgMax("query"), lambda a: a.argmax(1)),
    (ArgMax("key"), lambda a: a.argmax(2)),
    (Entropy(), entropy),
    (TopK(3, "value"), lambda a: a.topk(3).values),
    (TopK(3), lambda a: a.topk(3).indices),
]


def stream(reducer, pattern, cuts):
    """Reduce a pattern in chunks whose memory is spoiled after use, as the capture does."""
    state = None
    for chunk in pattern.split(cuts, 1):
        block = chunk.log() if reducer.in_log_space else chunk.clone()
        part = reducer.partial(block)
        block.fill_(9.0)
        state = part if state is None else reducer.combine(state, part)
    return reducer.finish(state)


@pytest.mark.parametrize(
    ("reducer", "whole"), CASES, ids=lambda v: repr(v)[:40] if not callable(v) else "whole"
)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_streaming_equals_the_whole(reducer, whole, data):
    queries = data.draw(st.integers(1, 9))
    cuts, left = [], queries
    while left:
        cuts.append(data.draw(st.integers(1, left)))
        left -= cuts[-1]
    seed = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    pattern = torch.rand(4, queries, 6, generator=seed).softmax(-1)
    torch.testing.assert_close(stream(reducer, pattern, cuts), whole(pattern))


def test_entropy_is_of_the_span_and_ignores_hidden_keys():
    pattern = torch.tensor([[[0.0, 0.1, 0.1], [0.0, 0.0, 0.3]]])
    log2 = torch.tensor(2.0).log()
    torch.testing.assert_close(
        Entropy().partial(pattern.log()), torch.tensor([[log2, 0.0]]), atol=1e-6, rtol=0
    )


def test_entropy_without_mass_is_nan():
    assert Entropy().partial(torch.full((1, 1, 3), -torch.inf)).isnan().all()


@pytest.mark.parametrize("over", [(), ("row",), ("key", "key")])
def test_axes_are_checked(over):
    with pytest.raises(ConfigError, match="axes"):
        Max(over)


def test_more_keys_than_there_are():
    with pytest.raises(ConfigError, match="TopK.k is 5, but the plan has 2 keys"):
        TopK(5).partial(torch.zeros(1, 1, 2))
