import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mockingjay.encoders import dropout as module
from mockingjay.encoders.dropout import attention, dropout


def heads(batch, count, time, part=8):
    return [torch.randn(batch, count, time, part, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_its_share_is_dropped_and_the_mean_kept(share):
    values = dropout(torch.ones(1000, 1001), share, training=True)
    assert (values == 0).float().mean().item() == pytest.approx(share, abs=2e-3)
    assert values.mean().item() == pytest.approx(1, abs=3e-3)
    assert values.unique().numel() == 2


def test_neighbours_are_dropped_independently():
    dropped = (dropout(torch.ones(400_000), 0.5, training=True) == 0).float() - 0.5
    for lag in (1, 2, 3, 4, 8):
        assert (dropped[lag:] * dropped[:-lag]).mean().abs() < 2e-3


def test_nothing_is_dropped_in_evaluation():
    values = torch.randn(3, 4)
    assert dropout(values, 0.3, training=False) is values
    assert dropout(values, 0.0, training=True) is values


def test_the_gradient_goes_where_the_values_went():
    values = torch.ones(50, 50, requires_grad=True)
    kept = dropout(values, 0.2, training=True)
    kept.sum().backward()
    assert torch.equal(values.grad, kept.detach())


def test_it_follows_the_global_generator():
    torch.manual_seed(7)
    once = dropout(torch.ones(999), 0.1, training=True)
    torch.manual_seed(7)
    assert torch.equal(once, dropout(torch.ones(999), 0.1, training=True))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 270), st.booleans(), st.sampled_from([2**12, 2**18]))
def test_attention_is_what_its_formula_says(batch, count, time, padded, block):
    query, key, value = heads(batch, count, time)
    lengths = torch.randint(1, time + 1, (batch,))
    allowed = (torch.arange(time) < lengths[:, None])[:, None, None, :] if padded else None
    above = torch.randn(batch, count, time, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SCORES", block)
        torch.manual_seed(1)
        mixed = attention(query, key, value, allowed, 0.25)
        gradients = torch.autograd.grad(mixed, (query, key, value), above)
    torch.manual_seed(1)
    kept = module._kept((batch, count, time, time), 0.25)
    scores = query @ key.transpose(-1, -2) / 8**0.5
    scores = scores if allowed is None else scores.masked_fill(~allowed, -torch.inf)
    expected = (scores.softmax(-1) * kept / 0.75) @ value
    assert torch.allclose(mixed, expected, atol=1e-5)
    for one, other in zip(gradients, torch.autograd.grad(expected, (query, key, value), above)):
        assert torch.allclose(one, other, atol=1e-5)


def test_without_dropout_it_is_torchs_own():
    query, key, value = heads(2, 2, 9)
    assert torch.equal(attention(query, key, value, None, 0.0), F.scaled_dot_product_attention(query, key, value))


def test_added_scores_and_other_precisions_go_to_torch():
    query, key, value = heads(1, 2, 40)
    assert attention(query, key, value, torch.zeros(1, 2, 40, 40), 0.5).dtype == torch.float32
    assert attention(query.bfloat16(), key.bfloat16(), value.bfloat16(), None, 0.5).dtype == torch.bfloat16
