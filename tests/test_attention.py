import pytest
import torch

from mockingjay.core.types import Frames
from mockingjay.encoders.attention import Attention, limit, prune, watch
from mockingjay.encoders.contexts.transformer import Transformer, positions

TOY = Transformer.Config(layers=2, dim=16, feedforward=32, heads=4)


def toy(**changes):
    return Transformer(TOY.model_copy(update=changes), inputs=5).eval()


def frames(lengths, time=None):
    time = time or max(lengths)
    return Frames(torch.randn(len(lengths), time, 5), torch.tensor(lengths))


@pytest.mark.parametrize(
    ("inputs", "layers", "parameters"),
    [(160, 3, 21_388_800), (480, 12, 85_425_408), (80, 3, 21_327_360), (40, 3, 21_296_640)],
)
def test_published_parameter_counts(inputs, layers, parameters):
    with torch.device("meta"):
        context = Transformer(Transformer.Config(layers=layers), inputs)
    assert sum(parameter.numel() for parameter in context.parameters()) == parameters


def test_positions_match_the_formula():
    table = positions(7, 6, torch.zeros(1))
    for position in range(7):
        for column in range(6):
            angle = torch.tensor(position / 10_000 ** (2 * (column // 2) / 6))
            expected = angle.sin() if column % 2 == 0 else angle.cos()
            assert table[position, column] == pytest.approx(expected.item(), abs=1e-6)


def test_it_is_bidirectional_at_every_reach():
    context = toy()
    inputs = frames([12])
    values = inputs.values.clone().requires_grad_()
    context(Frames(values, inputs.lengths)).last[0, 6].sum().backward()
    assert (values.grad[0].abs().sum(-1) > 0).all()


def test_ten_thousand_steps_run():
    assert toy(layers=1)(frames([10_000])).last.isfinite().all()


def test_padding_changes_nothing():
    context = toy()
    inputs = frames([9, 4, 12])
    noisy = Frames(
        torch.where(inputs.valid[:, :, None], inputs.values, torch.randn_like(inputs.values) * 100), inputs.lengths
    )
    together = context(noisy)
    for row, length in enumerate([9, 4, 12]):
        alone = context(Frames(inputs.values[row : row + 1, :length], torch.tensor([length])))
        for one, many in zip(alone.layers, together.layers):
            torch.testing.assert_close(one[0], many[row, :length], atol=1e-5, rtol=0)


def test_watching_sees_probabilities_and_changes_nothing():
    context, inputs = toy(), frames([9, 4])
    plain = context(inputs).last
    with watch(context) as seen:
        watched = context(inputs).last
    valid = inputs.valid
    torch.testing.assert_close(watched[valid], plain[valid])
    assert [part.shape for part in seen] == [(2, 4, 9, 9)] * 2
    torch.testing.assert_close(seen[0].sum(-1), torch.ones(2, 4, 9))
    assert (seen[0][1, :, :, 4:] == 0).all()
    context(inputs)
    assert len(seen) == 2


def test_pruning_a_head_removes_its_contribution():
    attention = Attention(8, 2, 0.0).eval()
    inputs = torch.randn(1, 5, 8)
    with prune(attention, {0: [0, 1]}):
        silent = attention(inputs, None)
    torch.testing.assert_close(silent, attention.out.bias.expand(1, 5, 8))
    with prune(attention, {0: [1]}):
        one = attention(inputs, None)
    with torch.no_grad():
        attention.out.weight[:, 4:] = 0
    torch.testing.assert_close(one, attention(inputs, None))


def test_limiting_the_span_hides_what_is_far():
    context, inputs = toy(layers=1), frames([12])
    changed = Frames(inputs.values.clone(), inputs.lengths)
    changed.values[0, 0] += 1
    with limit(context, 2):
        difference = (context(inputs).last - context(changed).last).abs().sum(-1)[0]
    assert (difference[:3] > 1e-6).all() and (difference[3:] < 1e-6).all()
    assert ((context(inputs).last - context(changed).last).abs().sum(-1)[0] > 0).all()


def test_padding_that_a_span_leaves_nothing_to_see_spoils_no_valid_step():
    context, inputs = toy(), frames([9, 4])
    with limit(context, 1):
        plain = context(inputs).last
        with watch(context) as seen:
            watched = context(inputs).last
    torch.testing.assert_close(watched[inputs.valid], plain[inputs.valid])
    assert all(part.isfinite().all() for part in seen)
