import pytest
import torch
import torch.nn.functional as F
from speech_like import batch_of

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames
from mockingjay.encoders.contexts.quantised_recurrent import QuantisedRecurrent
from mockingjay.encoders.contexts.recurrent import Recurrent, carrying
from mockingjay.encoders.gumbel import GumbelQuantiser
from mockingjay.encoders.noise import gumbel
from mockingjay.encoders.quantise import Chosen
from mockingjay.objectives import build_objective
from mockingjay.settings import settings

IDS = ("one", "two")


def quantiser(dim=8, **settings):
    return GumbelQuantiser(GumbelQuantiser.Config(**settings), dim)


def test_the_published_size():
    objective = build_objective(settings("vq-apc").objective)
    assert round(sum(each.numel() for each in objective.parameters()) / 1e6, 2) == 4.63


def test_without_its_quantiser_it_is_apc():
    shape = ["objective.encoder.context.dim=16", "objective.encoder.context.layers=2", "objective.ahead=3"]
    apc = build_objective(settings("apc", changes=shape).objective)
    other = build_objective(settings("vq-apc", changes=["objective.encoder.context.kind=recurrent", *shape]).objective)
    other.load_state_dict(apc.state_dict())
    for training in (True, False):
        ours, theirs = (each.train(training)(batch_of(), 0.0, Draw(0)) for each in (other, apc))
        assert torch.equal(ours.sum, theirs.sum) and torch.equal(ours.weight, theirs.weight)
        assert ours.parts == theirs.parts


@pytest.mark.parametrize("after", [1, 2, 3])
def test_quantised_by_the_identity_the_context_is_the_plain_one(after, monkeypatch):
    plain = Recurrent(Recurrent.Config(dim=6), 5)
    quantised = QuantisedRecurrent(QuantisedRecurrent.Config(dim=6, after=after), 5)
    weights = {}
    for name, value in plain.state_dict().items():
        _, _, number, rest = name.split(".", 3)
        side, place = ("lower", int(number)) if int(number) < after else ("upper", int(number) - after)
        weights[f"{side}.cells.{place}.{rest}"] = value
    quantised.load_state_dict(weights, strict=False)
    rest = torch.zeros(2, 9, 1, dtype=torch.long), torch.ones(2, 9, 1, 1), torch.zeros(2, 9)
    monkeypatch.setattr(GumbelQuantiser, "forward", lambda self, vectors, draw, ids: Chosen(vectors, *rest))
    frames = Frames(torch.randn(2, 9, 5), torch.tensor([9, 7]))
    for mine, theirs in zip(quantised(frames).layers, plain(frames).layers, strict=True):
        assert torch.equal(mine, theirs)


def test_what_follows_the_quantiser_reads_codes_alone():
    context = QuantisedRecurrent(QuantisedRecurrent.Config(dim=6, after=1, quantiser={"codes": 4}), 5).eval()
    frames = Frames(torch.randn(2, 9, 5), torch.tensor([9, 7]))
    hidden, top, chosen = context.read(frames, Draw(0), IDS)
    assert len(hidden.layers) == context.depth == 3 and torch.equal(top, hidden.last)
    torch.testing.assert_close(hidden.last, context.upper(chosen.values)[-1])
    with carrying(context):  # a recording in stretches is read as one
        parts = [context(Frames(part, torch.tensor([part.shape[1]] * 2))).last for part in frames.values.split(4, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), hidden.last)


@pytest.mark.parametrize("after", [1, 3])
def test_training_that_draws_nothing_reads_the_likeliest_codes(after):
    """As fine-tuning does, which knows neither noise nor whose codes are drawn."""
    context = QuantisedRecurrent(QuantisedRecurrent.Config(dim=6, after=after, quantiser={"codes": 4}), 5)
    frames = Frames(torch.randn(2, 9, 5), torch.tensor([9, 7]))
    expected, found = context.eval()(frames), context.train()(frames)
    for one, other in zip(found.layers, expected.layers, strict=True):
        torch.testing.assert_close(one, other)
    found.last.square().sum().backward()
    assert all(each.grad.abs().sum() > 0 for each in context.lower.parameters())


def test_forward_is_a_code_and_backward_the_softmax():
    found, vectors = quantiser(groups=2, codes=5, temperature=0.7), torch.randn(2, 3, 8)
    logits = torch.einsum("btgp,gpc->btgc", vectors.unflatten(2, (2, 4)), found.weight)
    noise = gumbel(Draw(0), IDS, "gumbel", 3 * 2 * 5, vectors.device).view(logits.shape)
    wanted = torch.randn(2, 3, 8)
    vectors.requires_grad_()
    said = found(vectors, Draw(0), IDS)
    assert torch.equal(said.codes, (logits + noise).argmax(-1))
    hard = torch.stack([found.codebook[group, said.codes[:, :, group]] for group in range(2)], 2).flatten(2)
    assert torch.equal(said.values, hard)
    own, book = torch.autograd.grad((said.values * wanted).sum(), [vectors, found.codebook])
    # The same by a soft choice for the vectors, by the hard one for the codebook.
    other = vectors.detach().clone().requires_grad_()
    logits = torch.einsum("btgp,gpc->btgc", other.unflatten(2, (2, 4)), found.weight)
    soft = ((logits + noise) / 0.7).softmax(-1)
    mixed = torch.einsum("btgc,gcp->btgp", soft, found.codebook.detach()).flatten(2)
    torch.testing.assert_close(own, torch.autograd.grad((mixed * wanted).sum(), other)[0])
    by_hand = torch.zeros_like(found.codebook)
    for group in range(2):
        rows = wanted.unflatten(2, (2, 4))[:, :, group].reshape(-1, 4)
        by_hand[group].index_add_(0, said.codes[:, :, group].flatten(), rows)
    torch.testing.assert_close(book, by_hand)


def test_codes_are_drawn_by_their_logits_and_not_at_all_in_evaluation():
    found = quantiser(dim=2, codes=4)
    with torch.no_grad():
        found.bias.copy_(torch.tensor([[0.0, 1.0, -1.0, 0.5]]))
    vectors = torch.zeros(2, 5000, 2)
    counts = torch.bincount(found(vectors, Draw(1), IDS).codes.flatten(), minlength=4).numpy()
    expected = 10_000 * found.bias[0].detach().softmax(-1).numpy()
    assert ((counts - expected) ** 2 / expected).sum() < 16.3  # χ² of 3, p > 1e-3
    found.eval()
    assert (found(vectors, Draw(1), IDS).codes == 1).all() and torch.equal(
        found(vectors, Draw(1), IDS).values, found(vectors, Draw(2), ()).values
    )


def test_perplexity_is_a_mean_over_groups():
    codes = torch.stack([torch.arange(8) % 4, torch.zeros(8, dtype=torch.long)], 1)[None]
    drawn = torch.randint(16, (1, 8, 2))  # which noise has made of them
    chosen = Chosen(torch.zeros(1, 8, 2), drawn, F.one_hot(codes, 16).float(), torch.zeros(1, 8))
    assert torch.equal(chosen.likeliest, codes)
    assert chosen.perplexity(torch.ones(1, 8, dtype=torch.bool)).item() == pytest.approx(2.5)
    assert chosen.perplexity(torch.arange(8)[None] < 2).item() == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("objective.encoder.context.kind=transformer", "'transformer' has no codes, expected 'quantised-recurrent'"),
        ("objective.encoder.context.after=4", "after 4 is above the top, expected at most layers 3"),
        ("objective.encoder.context.quantiser.groups=3", "dim 512 must be a multiple of quantiser.groups 3"),
    ],
)
def test_contexts_without_codes(change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        settings("vq-apc", changes=[change])
