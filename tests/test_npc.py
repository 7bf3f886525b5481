import pytest
import torch
import torch.nn.functional as F
from speech_like import batch_of

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames
from mockingjay.encoders.contexts.masked_convolution import MaskedConvolution, _Around
from mockingjay.encoders.noise import gumbel, normal, uniform
from mockingjay.objectives import build_objective
from mockingjay.settings import settings

IDS = ("one", "two")
CPU = torch.device("cpu")


def context(**changes):
    return MaskedConvolution(MaskedConvolution.Config(dim=32, dropout=0.0, **changes), 5).eval()


def test_the_published_size():
    """19.38M with the blind taps, which are left out here, and with the biases that the norms make idle."""
    objective = build_objective(settings("npc").objective)
    count = sum(each.numel() for each in objective.parameters())
    blind, idle = 512 * 512 * (7 + 9 + 11 + 13), 8 * 512
    assert round((count + blind + idle) / 1e6, 2) == 19.38


@pytest.mark.parametrize(("blocks", "kernel", "mask"), [(4, 15, 5), (1, 9, 3), (2, 15, 1), (3, 21, 11)])
def test_no_frame_ever_sees_itself_or_its_neighbours(blocks, kernel, mask):
    network, time = context(blocks=blocks, kernel=kernel, mask=mask), 41
    values = torch.randn(1, time, 5)
    before = network(Frames(values, torch.tensor([time]))).last[0]
    for at in (0, 7, 20, time - 1):
        changed = values.clone()
        changed[0, at] += 10.0
        after = network(Frames(changed, torch.tensor([time]))).last[0]
        moved = (after - before).abs().sum(-1) > 1e-6
        far = (torch.arange(time) - at).abs()
        assert not moved[far <= mask // 2].any() and network.reach == mask // 2 + 1
        # At the ends, what is nearest would have come by way of a step that is not there.
        assert moved[far == network.reach].all() or at in (0, time - 1)
        assert not moved[far > kernel // 2 + blocks].any()  # the receptive field


def test_no_gradient_either():
    network, values = context(), torch.randn(1, 31, 5, requires_grad=True)
    network(Frames(values, torch.tensor([31]))).last[0, 15].square().sum().backward()
    assert values.grad is not None
    seen = (values.grad[0].abs().sum(-1) > 0).nonzero()[:, 0].tolist()
    assert seen == [*range(4, 13), *range(18, 27)]


def test_what_is_around_is_a_convolution_with_a_blind_middle():
    around, values = _Around(6, 15, 9), torch.randn(2, 20, 6)
    sides = [side.weight.view(6, -1, 6).transpose(1, 2) for side in (around.before, around.after)]
    whole = torch.cat([sides[0], torch.zeros(6, 6, 9), sides[1]], 2)
    windows = F.pad(values, (0, 0, 7, 7)).unfold(1, 15, 1)
    said = torch.tanh(torch.einsum("btik,oik->bto", windows, whole) + around.before.bias)
    torch.testing.assert_close(around(values), said, atol=1e-5, rtol=1e-5)


def test_the_dumb_predictors_know_what_the_network_knows():
    objective = build_objective(settings("npc", "nano").objective).eval()
    frames, lengths = torch.randn(2, 12, 3), (12, 9)
    found = objective._trivial(Frames(frames, torch.tensor(lengths)))
    copied = straight = 0.0
    for row, length in zip(frames, lengths):
        for at in range(length):
            left, right = at - 3 if at >= 3 else at + 3, at + 3 if at + 3 < length else at - 3
            copied += (row[left] - row[at]).abs().sum()
            straight += ((row[left] + row[right]) / 2 - row[at]).abs().sum()
    torch.testing.assert_close(found["copy last"], copied)
    torch.testing.assert_close(found["interpolation"], straight)
    parts = objective(batch_of(), 0.0, Draw(0)).parts
    assert set(parts) == {"utterance mean", "copy last", "interpolation"}


def test_without_codes_it_is_a_regression():
    objective = build_objective(settings("npc", "nano", ["objective.quantised=false"]).objective)
    loss = objective.train()(batch_of(), 0.0, Draw(0))
    assert not loss.parts and not any("quantiser" in name for name, _ in objective.named_parameters())
    assert build_objective(settings("npc", "nano").objective).train()(batch_of(), 0.0, Draw(0)).parts["perplexity"] > 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("objective.encoder.context.kind=recurrent", "sees what it says, expected 'masked-convolution'"),
        ("objective.encoder.context.blocks=5", r"blind in the top of 5 blocks, expected more than mask \+ 2"),
        ("objective.encoder.context.mask=4", "kernel 15 and mask 4 must be odd"),
        ("objective.quantiser.groups=3", "groups 3 must divide encoder.context.dim 512"),
    ],
)
def test_contexts_that_would_see_it(change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        settings("npc", changes=[change])


def test_noise_is_the_draw_s_and_of_its_kind():
    draw = Draw(3, 5)
    assert torch.equal(uniform(draw, IDS, "x", 1000, CPU), draw.uniform(IDS, "x", 1000))
    assert torch.equal(gumbel(draw, IDS, "x", 900, CPU), gumbel(draw, IDS, "x", 1000, CPU)[:, :900])
    many = gumbel(draw, IDS, "x", 100_000, CPU)
    assert many.isfinite().all() and many.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert many.var().item() == pytest.approx(torch.pi**2 / 6, abs=0.03)
    bell = normal(draw, IDS, "x", 100_000, CPU)
    assert bell.isfinite().all() and bell.mean().item() == pytest.approx(0, abs=0.01)
    assert bell.std().item() == pytest.approx(1, abs=0.01) and (bell.abs() > 1.96).float().mean() > 0.045
