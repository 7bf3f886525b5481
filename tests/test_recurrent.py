import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mockingjay.core.config import validate
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames, pad, valid_steps
from mockingjay.encoders.contexts import OneWayPair, Recurrent
from mockingjay.encoders.contexts.one_way_pair import reverse
from mockingjay.encoders.contexts.recurrent import Stack

LENGTHS = (12, 7, 1)
TOYS = {
    "gru": (Recurrent, Recurrent.Config(layers=3, dim=10)),
    "lstm": (Recurrent, Recurrent.Config(cell="lstm", layers=2, dim=10, residual=False)),
    "pair of lstms": (OneWayPair, OneWayPair.Config(layers=2, dim=20)),
    "pair of grus": (OneWayPair, OneWayPair.Config(cell="gru", layers=1, dim=20)),
}


def frames_of(lengths=LENGTHS, dim=6):
    return Frames(*pad([torch.randn(length, dim) for length in lengths]))


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture(params=list(TOYS))
def context(request):
    kind, config = TOYS[request.param]
    return kind(config, 6).eval()


def test_published_sizes():
    assert size(Recurrent(Recurrent.Config(), 80)) == 4_064_256
    with torch.device("meta"):
        assert size(OneWayPair(OneWayPair.Config(), 80)) == 67_257_344


def test_every_layer_is_there_and_as_wide_as_declared(context):
    hidden = context(frames_of())
    assert len(hidden.layers) == context.depth
    assert all(layer.shape == (3, 12, context.dim) for layer in hidden.layers)
    assert hidden.lengths.tolist() == list(LENGTHS) and context.stride == 1


def test_what_is_padded_and_what_stands_there_change_no_valid_step(context):
    frames = frames_of()
    noisy = frames.values.where(frames.valid[..., None], 9.0)
    longer = Frames(torch.cat([noisy, torch.full((3, 5, 6), -9.0)], 1), frames.lengths)
    for layer, same in zip(context(frames).layers, context(longer).layers):
        torch.testing.assert_close(layer[frames.valid], same[:, :12][frames.valid], atol=1e-6, rtol=0)


def test_an_utterance_is_read_alone_as_among_others(context):
    frames = frames_of()
    together = context(frames)
    for row, length in enumerate(LENGTHS):
        alone = context(Frames(frames.values[row : row + 1, :length], frames.lengths[row : row + 1]))
        for layer, same in zip(alone.layers, together.layers):
            torch.testing.assert_close(layer[0], same[row, :length], atol=1e-6, rtol=0)


def test_a_layer_adds_what_it_read_where_the_widths_match():
    stack = Stack("gru", 6, 10, 3, residual=True)
    values = torch.randn(2, 9, 6)
    one, two, three = stack(values)
    assert torch.equal(one, stack.cells[0](values)[0])
    assert torch.equal(two, stack.cells[1](one)[0] + one)
    assert torch.equal(three, stack.cells[2](two)[0] + two)
    square = Stack("gru", 10, 10, 1, residual=True)
    assert torch.equal(square(one)[0], square.cells[0](one)[0] + one)


@pytest.mark.parametrize(("cell", "reference"), [("gru", nn.GRU), ("lstm", nn.LSTM)])
def test_without_residuals_it_is_torch_s_network_of_many_layers(cell, reference):
    stack, whole = Stack(cell, 6, 10, 3), reference(6, 10, 3, batch_first=True)
    for layer, own in enumerate(stack.cells):
        for name, weight in own.named_parameters():
            getattr(whole, name.removesuffix("0") + str(layer)).data.copy_(weight.data)
    values = torch.randn(2, 9, 6)
    torch.testing.assert_close(stack(values)[-1], whole(values)[0])


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_autocast_leaves_recurrent_layers_in_their_own_precision(cell, device):
    """On CUDA it would hand them float16, where the gradient of a sum over many cells is infinite."""
    stack, values = Stack(cell, 6, 10, 2).to(device), torch.randn(2, 9, 6, device=device)
    with torch.autocast(device, torch.bfloat16):
        layers = stack(values.bfloat16())
        assert torch.is_autocast_enabled(device)  # the caller's goes on
    for layer, expected in zip(layers, stack(values.bfloat16().float())):
        assert layer.dtype is torch.float32
        torch.testing.assert_close(layer, expected, atol=0, rtol=0)
    (1e6 * layers[-1].sum()).backward()
    assert all(weight.grad.isfinite().all() for weight in stack.parameters())
    assert stack.double()(values.double())[-1].dtype is torch.float64


def test_dropout_spares_the_top_layer_and_evaluation():
    context = Recurrent(Recurrent.Config(layers=2, dim=64, dropout=0.5, residual=False), 6)
    frames = frames_of((20,))
    lower, top = context(frames).layers
    assert 0.4 < (lower == 0).float().mean() < 0.6 and (top != 0).all()
    context.eval()
    assert (context(frames).layers[0] != 0).all()


@pytest.mark.parametrize("toy", ["gru", "lstm"])
def test_what_is_recurrent_never_sees_the_future(toy):
    kind, config = TOYS[toy]
    context = kind(config, 6)
    assert context.causal
    frames = frames_of((12,))
    changed = frames.values.clone()
    changed[:, 8:] += 1.0
    for layer, other in zip(context(frames).layers, context(Frames(changed, frames.lengths)).layers):
        assert torch.equal(layer[:, :8], other[:, :8]) and not torch.equal(layer[:, 8:], other[:, 8:])


@pytest.mark.parametrize("toy", ["pair of lstms", "pair of grus"])
def test_the_directions_of_a_pair_never_mix(toy):
    kind, config = TOYS[toy]
    context = kind(config, 6)
    assert not context.causal
    frames = frames_of((12,))
    changed = frames.values.clone()
    changed[:, 5] += 1.0
    before, after = context(frames).layers, context(Frames(changed, frames.lengths)).layers
    for layer, other in zip(before[1:], after[1:]):
        touched = (layer != other)[0]
        onward, backward = touched[:, :10].any(-1), touched[:, 10:].any(-1)
        assert onward.tolist() == [False] * 5 + [True] * 7
        assert backward.tolist() == [True] * 6 + [False] * 6


def test_the_backward_stack_reads_the_utterance_turned_around():
    context = OneWayPair(OneWayPair.Config(layers=2, dim=20), 6)
    frames = frames_of()
    projected = context.project(frames.values)
    for row, length in enumerate(LENGTHS):
        turned = projected[row : row + 1, :length].flip(1)
        for layer, expected in zip(context(frames).layers[1:], context.backward(turned)):
            torch.testing.assert_close(layer[row, :length, 10:], expected[0].flip(0))
    assert torch.equal(context(frames).layers[0], torch.cat([projected, projected], -1))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_reversal_is_by_length_and_its_own_inverse(lengths):
    lengths = torch.tensor(lengths)
    values = torch.randn(len(lengths), 9, 2)
    turned = reverse(values, lengths)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(turned[row, :length], values[row, :length].flip(0))
    padding = ~valid_steps(lengths, 9)
    assert torch.equal(turned[padding], values[padding])
    assert torch.equal(reverse(turned, lengths), values)


def test_gradients_come_back_through_a_reversal():
    values = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: reverse(values, torch.tensor([5, 2])), values)


def test_a_pair_needs_two_halves():
    with pytest.raises(ConfigError, match=r"dim: input should be a multiple of 2 \(5\)"):
        validate(OneWayPair.Config, {"dim": 5})
