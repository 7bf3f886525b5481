import math

import pytest
import torch
from speech_like import batch_of

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames
from mockingjay.core.untrusted import Hollow
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.product import Nearest, Occasion
from mockingjay.encoders.quantise import Quantiser
from mockingjay.moves.contrast import binary_nce, compare, draw_negatives
from mockingjay.objectives import build_objective
from mockingjay.settings import settings

K_MEANS = ("objective.encoder.context.quantiser.kind=k-means", "objective.encoder.context.quantiser.quantiser.codes=8")


def nano(*changes, prepared=True):
    torch.manual_seed(1)
    objective = build_objective(settings("vq-wav2vec", "nano", changes).objective)
    if prepared:
        objective.prepare([batch_of()])
    return objective


def test_the_published_size():
    """34 million (section 5): 6 042 624 + quantiser 1 853 568 + context 23 611 392 + predictors 2 097 664."""
    with Hollow():
        objective = build_objective(settings("vq-wav2vec", "base").objective)
    sizes = {name: sum(each.numel() for each in part.parameters()) for name, part in objective.named_children()}
    assert sizes["encoder"] == 6_042_624 + 1_853_568 + 23_611_392
    assert round((sizes["encoder"] + sizes["predictors"] + objective.bias.numel()) / 1e6) == 34
    assert objective.first == 3 and objective.encoder.hop == 160


def test_the_loss_is_wav2vec_s_between_codes():
    objective, batch, draw = nano().eval(), batch_of(), Draw(0)
    frames = objective.encoder.frontend(batch.waves)
    chosen = objective.context.quantise(frames)
    books = objective.context.quantiser.codebook
    by_hand = torch.cat([books[0][chosen.codes[..., group]] for group in range(2)], -1)
    quantised = Frames(by_hand * frames.valid[..., None], frames.lengths)
    told = objective.predictors(objective.context.read(quantised).last) + objective.bias
    negatives = draw_negatives(objective.config.negatives, quantised, draw, batch.utterances)
    expected = binary_nce(compare(told, quantised, negatives, 3), trivial=True)
    loss = objective(batch, 0.0, draw)
    assert loss.sum.item() == pytest.approx(expected.sum.item(), rel=1e-5) and loss.weight == expected.weight
    assert set(loss.parts) == {"chance"}
    assert (loss.parts["chance"] / loss.weight).item() == pytest.approx(math.log(11) + 10 * math.log(1.1), rel=1e-5)
    parts = objective.train()(batch, 0.5, draw).parts
    assert 1 <= parts["perplexity"] / loss.weight <= 8 and "accuracy 4" in parts


def test_the_codes_are_what_is_kept(tmp_path):
    encoder, waves = nano().eval().encoder, batch_of().waves
    encoder.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    frames = encoder.frontend(waves)
    codes = encoder.context.codes(frames)
    assert codes.shape == (*frames.values.shape[:2], 2) and codes.max() < 8
    assert torch.equal(loaded.context.codes(loaded.frontend(waves))[frames.valid], codes[frames.valid])
    assert torch.equal(loaded(waves).layers[0], encoder.context.quantise(frames).values)
    assert loaded.depth == 4


def test_a_context_reads_codes_and_nothing_else():
    context = nano("objective.encoder.context.norm=layer").eval().context
    assert context.causal
    frames = Frames(torch.rand(1, 30, 16), torch.tensor([30]))
    changed = frames.values.clone()
    changed[:, 12] += 0.3 * torch.randn(16)
    one, other = context.codes(frames), context.codes(Frames(changed, frames.lengths))
    before, after = context(frames).last, context(Frames(changed, frames.lengths)).last
    assert torch.equal(before, after) == torch.equal(one, other)
    assert torch.equal(one[:, :12], other[:, :12]) and torch.equal(before[:, :12], after[:, :12])


def nearest():
    torch.manual_seed(0)
    return Nearest(Nearest.Config(quantiser=Quantiser.Config(codes=5)), 6, 6)


def test_the_nearest_codes_cost_both_distances():
    found, vectors = nearest(), torch.randn(2, 7, 6, requires_grad=True)
    chosen = found(vectors)
    books = [part.codebook for part in found.parts]
    cost = torch.zeros(2, 7)
    for group, piece in enumerate(vectors.detach().chunk(2, -1)):
        apart = (piece[:, :, None] - books[group]).norm(dim=-1)
        assert torch.equal(apart.argmin(-1), chosen.codes[..., group])
        cost = cost + 1.25 * apart.amin(-1).square()
    torch.testing.assert_close(chosen.cost, cost)
    wanted = torch.randn(2, 7, 6)
    own = torch.autograd.grad((chosen.values * wanted).sum(), vectors, retain_graph=True)[0]
    assert torch.equal(own, wanted)
    of_codes = torch.autograd.grad(chosen.cost.sum(), [vectors, *books])
    pulled = sum(each.sum(0) for each in of_codes[1:]) * 0.25 + of_codes[0].flatten(0, 1).sum(0).view(2, 3).sum(0)
    torch.testing.assert_close(pulled, torch.zeros(3), atol=1e-5, rtol=0)  # what draws codes draws vectors, at γ
    assert torch.equal(chosen.shares.argmax(-1), chosen.codes) and (chosen.shares.sum(-1) == 1).all()


def test_codes_of_the_nearest_begin_at_vectors():
    found, vectors = nearest(), torch.randn(2, 7, 6)
    valid = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    found.note(vectors, found(vectors), valid, Occasion(0.0, Draw(0), ("a", "b")))
    found.begin()
    for part, piece in zip(found.parts, vectors.chunk(2, -1)):
        offered = {tuple(each) for each in piece[valid].tolist()}
        assert {tuple(code) for code in part.codebook.tolist()} <= offered


def test_the_nearest_codes_are_a_choice():
    objective, batch = nano(*K_MEANS), batch_of()
    assert isinstance(objective.context.quantiser, Nearest)
    frames = objective.encoder.frontend(batch.waves)
    assert objective.context.quantise(frames).perplexity(frames.valid) > 3  # codes began at frames
    loss = objective(batch, 0.5, Draw(0))
    loss.sum.backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, name
    objective.after_step(0.5)
    evaluated = objective.eval()(batch, 0.0, Draw(0))
    cost = (objective.context.quantise(frames).cost * frames.valid).sum()
    chance = evaluated.weight * (math.log(11) + 10 * math.log(1.1)) + cost
    assert evaluated.parts["chance"].item() == pytest.approx(chance.item(), rel=1e-5)


def test_utterances_too_short_to_foretell_anything_are_not_scored():
    objective = nano()
    loss = objective(batch_of((800, 640)), 0.5, Draw(0))
    assert loss.sum == 0 and loss.weight == 0


@pytest.mark.parametrize(
    "change, sentence",
    [
        ("context.kind=recurrent", "context.kind 'recurrent' has no codes, expected 'quantised-convolution'"),
        ("frontend.kind=log-mel", "frontend.kind 'log-mel' is no wav2vec, expected 'waveform'"),
        ("context.dim=15", "dim 15 must be a multiple of quantiser.groups 2"),
    ],
)
def test_another_encoder_is_refused(change, sentence):
    with pytest.raises(ConfigError, match=sentence):
        nano(f"objective.encoder.{change}", prepared=False)
