import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from speech_like import batch_of

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames, valid_steps
from mockingjay.core.untrusted import Hollow
from mockingjay.encoders.contexts.convolutional_transformer import ConvolutionalTransformer
from mockingjay.encoders.frontends.waveform import WAV2VEC2_512, Waveform
from mockingjay.encoders.noise import gumbel as gumbel_noise
from mockingjay.encoders.product import Gumbel, Nearest, Occasion, Temperature, in_use
from mockingjay.moves.mask import Masks, choose_masked
from mockingjay.moves.restrain import loudness, scale_gradient
from mockingjay.objectives import build_objective
from mockingjay.settings import settings

IDS = ("u0", "u1")


def count(module):
    return sum(each.numel() for each in module.parameters())


def nano(*changes):
    torch.manual_seed(1)
    objective = build_objective(settings("wav2vec2", "nano", changes).objective)
    objective.prepare([batch_of()])
    return objective


SIZES = {"base": (94_370_944, 95_044_608), "large": (315_427_968, 317_380_864)}


@pytest.mark.parametrize("preset", SIZES)
def test_the_published_sizes(preset):
    """95 and 317 million (section 4.2), layer by layer.

    Frontend 10·512 + 4·3·512² + 2·2·512² + 2·512 = 4 200 448, norm 1024; projection 512 d + d; positions 128·d·d/16 +
    d + 128; norm 2 d; each layer 4 (d² + d) + 8 d² + 5 d + 4 d. On top: the mask d, logits 512·640 + 640, codes
    640·w/2, w² + w for targets and d·w + w for what is told, with w = 256 or 768.
    """
    with Hollow():
        objective = build_objective(settings("wav2vec2", preset).objective)
    assert (count(objective.encoder), count(objective)) == SIZES[preset]
    assert count(objective.encoder.frontend) == 4_200_448


def test_the_frontend_is_the_published_one():
    frontend = Waveform(WAV2VEC2_512)
    assert (frontend.grid.hop, frontend.receptive, frontend.reach, frontend.leaks) == (320, 400, 400, "future")
    assert frontend.grid.centre == 200 and frontend.count(torch.tensor([400, 719, 720, 16_000])).tolist() == [
        1,
        1,
        2,
        49,
    ]
    small = Waveform(WAV2VEC2_512.model_copy(update={"channels": 6}))
    torch.nn.init.normal_(small.layers[0].norm.weight)
    torch.nn.init.normal_(small.layers[0].norm.bias)
    waves = batch_of((6_000, 4_000)).waves
    for row, length in enumerate(waves.lengths.tolist()):
        values = waves.samples[row : row + 1, None, :length]
        for layer, (kernel, stride, _) in zip(small.layers, small.shapes):
            weight = layer.convolve.weight.unflatten(1, (kernel, -1)).transpose(1, 2)
            values = F.conv1d(values, weight, stride=stride)
            if layer is small.layers[0]:
                values = F.group_norm(values, 6, layer.norm.weight, layer.norm.bias)
            values = F.gelu(values)
        mine = small(waves).values[row, : values.shape[2]]
        torch.testing.assert_close(mine, values[0].T, atol=1e-5, rtol=1e-4)


def context(**changes):
    torch.manual_seed(0)
    config = {"layers": 2, "dim": 8, "feedforward": 16, "heads": 2, "kernel": 6, "groups": 2, **changes}
    return ConvolutionalTransformer(ConvolutionalTransformer.Config(**config), 5)


def test_positions_are_a_grouped_convolution_with_weight_normalisation():
    made, values = context(), torch.randn(1, 9, 8)
    convolution = torch.nn.Conv1d(8, 8, 6, padding=3, groups=2)
    convolution.weight.data, convolution.bias.data = made.positions.direction.data * 1.0, torch.randn(8)
    made.positions.bias.data = convolution.bias.data
    lengths = made.positions.direction.data.norm(dim=(0, 1))
    torch.testing.assert_close(made.positions.length.data, lengths, rtol=0.5, atol=0)
    made.positions.length.data = lengths
    known = torch.nn.utils.parametrizations.weight_norm(convolution, dim=2)
    expected = F.gelu(known(values.transpose(1, 2))[:, :, :-1]).transpose(1, 2)  # one too many, of an even kernel
    torch.testing.assert_close(made.positions(values), expected)
    made.positions.direction.data *= 7.0  # its length says nothing
    torch.testing.assert_close(made.positions(values), expected)


def test_where_a_step_stands_does_not_matter_only_what_lies_around_it():
    made = context(dropout=0.0, attention_dropout=0.0).eval()
    assert made.depth == 3 and not made.causal
    values = torch.randn(1, 30, 8)
    around = made.positions(values)
    torch.testing.assert_close(made.positions(values[:, 4:])[:, 3:], around[:, 7:])
    assert not torch.allclose(made.positions(values[:, 4:])[:, :2], around[:, 4:6])


def test_layers_are_left_out_in_training_alone():
    made, frames = (
        context(dropout=0.0, attention_dropout=0.0, skip=0.5),
        Frames(torch.randn(1, 9, 5), torch.tensor([9])),
    )
    left = 0
    for _ in range(200):
        layers = made(frames).layers
        left += sum(torch.equal(one, other) for one, other in pairwise(layers))
    assert left / 400 == pytest.approx(0.5, abs=0.1)
    layers = made.eval()(frames).layers
    assert not any(torch.equal(one, other) for one, other in pairwise(layers))


def masked(lengths, masks=None, epoch=0):
    ids = tuple(f"u{row}" for row in range(len(lengths)))
    return choose_masked(masks or Masks(), torch.tensor(lengths), max(lengths), Draw(0, epoch), ids)


def test_half_of_all_steps_are_masked_in_spans_of_fifteen():
    """Section 4.2: "approximately 49 % of all time steps to be masked with a mean span length of 14.7"."""
    hidden = masked([750] * 400).hidden
    assert hidden.float().mean().item() == pytest.approx(0.49, abs=0.01)
    begins = hidden[:, 0].sum() + (hidden[:, 1:] & ~hidden[:, :-1]).sum()
    assert (hidden.sum() / begins).item() == pytest.approx(14.7, abs=0.3)


def test_masked_steps_are_gathered_and_replaced_and_no_others():
    chosen, values, mask = masked([60, 31, 4, 2, 1]), torch.randn(5, 60, 3), torch.randn(3)
    put, taken = chosen.put(values, mask), chosen.take(values)
    assert chosen.counts[:4].min() > 0 and chosen.counts[4] == 0
    assert not (chosen.hidden & ~valid_steps(torch.tensor([60, 31, 4, 2, 1]), 60)).any()
    assert (put[chosen.hidden] == mask).all() and torch.equal(put[~chosen.hidden], values[~chosen.hidden])
    assert torch.equal(taken.lengths, chosen.hidden.sum(1))
    for row in range(5):
        assert torch.equal(taken.values[row, : chosen.counts[row]], values[row, chosen.hidden[row]])


def test_masks_depend_on_their_utterance_alone():
    whole, alone = masked([60, 31]), choose_masked(Masks(), torch.tensor([31]), 31, Draw(0), ("u1",))
    assert torch.equal(alone.hidden[0], whole.hidden[1, :31])
    assert not torch.equal(masked([60, 31], epoch=1).hidden, whole.hidden)


def test_the_temperature_falls_to_its_end_and_stays():
    falling = Temperature()
    assert falling.at(0.0) == 2.0 and falling.at(0.9) == pytest.approx(0.5)
    steps = 100_000
    assert falling.at(steps / 400_000) == pytest.approx(2.0 * 0.999995**steps, rel=1e-4)
    linear = Temperature(until=0.7, fall="linear")
    assert [linear.at(each) for each in (0.0, 0.35, 0.7, 1.0)] == pytest.approx([2.0, 1.25, 0.5, 0.5])


def gumbel(outputs=6, **changes):
    torch.manual_seed(0)
    found = Gumbel(Gumbel.Config(**{"groups": 2, "codes": 5, **changes}), 4, outputs)
    for part in found.logits:
        if isinstance(part, torch.nn.Linear):
            torch.nn.init.normal_(part.weight, std=0.3)
    return found


def test_forward_there_is_one_code_and_backward_the_softmax():
    found, vectors = gumbel(), torch.randn(2, 7, 4, requires_grad=True)
    occasion = Occasion(0.5, Draw(0), IDS)
    chosen = found(vectors, occasion)
    books = [found.codebook[group][chosen.codes[..., group]] for group in range(2)]
    torch.testing.assert_close(chosen.values, torch.cat(books, -1))
    wanted = torch.randn(2, 7, 6)
    own, codes = torch.autograd.grad((chosen.values * wanted).sum(), [vectors, found.codebook])
    # The same noise, seen through the softmax by the vectors and through the choice by the codes.
    noise = gumbel_noise(Draw(0), IDS, "gumbel", 7 * 10, vectors.device).view(2, 7, 2, 5)
    soft = ((found.logits(vectors).unflatten(2, (2, 5)) + noise) / found.config.temperature.at(0.5)).softmax(-1)
    assert torch.equal(soft.argmax(-1), chosen.codes)
    mixed = torch.einsum("btgc,gcd->btgd", soft, found.codebook.detach()).flatten(2)
    torch.testing.assert_close(own, torch.autograd.grad((mixed * wanted).sum(), vectors)[0])
    by_hand = torch.zeros_like(codes)
    for group in range(2):
        parts = wanted.chunk(2, -1)[group].flatten(0, 1)
        by_hand[group].index_add_(0, chosen.codes[..., group].flatten(), parts)
    torch.testing.assert_close(codes, by_hand)


def test_codes_are_drawn_as_often_as_they_are_likely_and_by_address():
    found = gumbel()
    vectors = torch.randn(1, 1, 4).expand(1, 20_000, 4)
    chosen = found(vectors, Occasion(0.0, Draw(0), ("a",)))
    for group in range(2):
        shares = chosen.codes[0, :, group].bincount(minlength=5) / 20_000
        torch.testing.assert_close(shares, chosen.shares[0, 0, group], atol=0.015, rtol=0)
    short = found(vectors[:, :50], Occasion(0.0, Draw(0), ("a",)))
    assert torch.equal(short.codes, chosen.codes[:, :50])
    assert (found(vectors[:, :50]).codes == found.logits(vectors[0, 0]).view(2, 5).argmax(-1)).all()


def test_a_shared_codebook_and_a_hidden_layer():
    found = gumbel(shared=True, hidden=9)
    assert found.codebook.shape == (1, 5, 3) and [each.out_features for each in found.logits[::2]] == [9, 10]
    chosen = found(torch.randn(1, 6, 4))
    torch.testing.assert_close(chosen.values[..., 3:], found.codebook[0][chosen.codes[..., 1]])


def test_groups_and_widths_must_fit():
    with pytest.raises(ConfigError, match=r"quantiser.groups: 2 do not divide the width 7, expected a divisor; change"):
        gumbel(outputs=7)
    with pytest.raises(ConfigError, match=r"vectors of width 4 are to become codes of width 6, expected one width"):
        Nearest(Nearest.Config(), 4, 6)
    with pytest.raises(ConfigError, match=r"width 15 must be a multiple of quantiser.groups 2"):
        nano("objective.width=15")
    with pytest.raises(ConfigError, match=r"context.kind 'transformer' masks nothing, expected 'convolutional-trans"):
        nano("objective.encoder.context.kind=transformer")
    with pytest.raises(ConfigError, match=r"dim 32 must be a multiple of groups 5"):
        nano("objective.encoder.context.groups=5")
    with pytest.raises(ConfigError, match=r"starts 0.2 times width 10 must be below 1"):
        nano("objective.masks.starts=0.2")


def test_codes_in_use_in_closed_form():
    valid = torch.tensor([[True, True, True, True, False]])
    even = torch.full((1, 5, 2, 8), 1 / 8)
    assert in_use(even, valid).item() == pytest.approx(8, rel=1e-4)
    single = F.one_hot(torch.zeros(1, 5, 2, dtype=torch.long), 8).float()
    assert in_use(single, valid).item() == pytest.approx(1, rel=1e-4)
    each = F.one_hot(torch.tensor([[[0, 0], [1, 0], [2, 0], [3, 0], [7, 7]]]), 8).float()
    assert in_use(each, valid).item() == pytest.approx((4 + 1) / 2, rel=1e-4)
    single.requires_grad_()
    in_use(single, valid).backward()
    assert single.grad.isfinite().all()


def test_codes_in_use_are_counted_in_single_precision_under_autocast():
    shares, valid = torch.randn(2, 50, 2, 32).softmax(-1), valid_steps(torch.tensor([50, 37]), 50)
    with torch.autocast("cpu", torch.bfloat16):
        found = in_use(shares, valid)
    assert torch.equal(found, in_use(shares, valid))


def test_cosines_are_compared_in_single_precision_under_autocast():
    objective, batch = nano(), batch_of()
    told, values = F.normalize(torch.randn(2, 4, 30, 16), dim=-1)
    targets = Frames(values, torch.tensor([30, 24, 9, 26]))
    drawn, told = objective._distract(targets, batch, Draw(0)), objective._direct(told)
    with torch.autocast("cpu", torch.bfloat16):
        found = objective._contrast(told, targets, drawn)
    expected = objective._contrast(told, targets, drawn)
    assert torch.equal(found.sum, expected.sum) and found.weight == 89


def test_gradients_are_scaled_and_frames_stay():
    values = torch.randn(2, 5, 3, requires_grad=True)
    frames = scale_gradient(Frames(values, torch.tensor([5, 3])), 0.1)
    torch.testing.assert_close(frames.values, values)
    frames.values.sum().backward()
    torch.testing.assert_close(values.grad, torch.full_like(values, 0.1))
    flat = values.detach()
    expected = 4 * flat[0].square().mean() + 2 * flat[1, :3].square().mean()
    inside = frames.valid[..., None]
    masked_out = Frames(torch.where(inside, flat, 0.0), frames.lengths)
    torch.testing.assert_close(loudness(masked_out, torch.tensor([4.0, 2.0])), expected)


def test_distractors_are_other_masked_steps_of_the_same_utterance():
    objective, batch = nano("objective.distractors=40"), batch_of()
    lengths = objective.encoder.frontend.count(batch.waves.lengths)
    ids = tuple(each.id for each in batch.utterances)
    seen = torch.zeros(4, int(lengths.max()), dtype=torch.bool)
    for epoch in range(10):
        draw = Draw(0, epoch)
        chosen = choose_masked(objective.config.masks, lengths, int(lengths.max()), draw, ids)
        most = chosen.places.shape[1]
        drawn = objective._distract(Frames(torch.zeros(4, most, 2), chosen.counts), batch, draw)
        assert drawn.own and drawn.frames.shape == (4, most, 40)
        for row, masked_steps in enumerate(chosen.counts.tolist()):
            for step in range(masked_steps):
                others = chosen.places[row, drawn.frames[row, step] - row * most]
                assert chosen.hidden[row, others].all() and (others != chosen.places[row, step]).all()
                seen[row, others] = True
    assert all(seen[row, :length].float().mean() > 0.9 for row, length in enumerate(lengths.tolist()))


def test_the_loss_is_what_a_loop_finds():
    objective, batch, draw = nano().eval(), batch_of(), Draw(0)
    config, encoder = objective.config, objective.encoder
    loss = objective(batch, 0.0, draw)
    frames = encoder.frontend(batch.waves)
    normed = encoder.context.inputs_norm(frames.values)
    chosen = choose_masked(
        config.masks, frames.lengths, normed.shape[1], draw, tuple(each.id for each in batch.utterances)
    )
    put = torch.where(chosen.hidden[..., None], objective.mask, encoder.context.project(normed))
    hidden = encoder.context.read(put, frames.lengths).last
    drawn = objective._distract(Frames(torch.zeros(4, chosen.places.shape[1], 2), chosen.counts), batch, draw)
    total, loud, shares = torch.zeros(()), torch.zeros(()), []
    for row in range(4):
        steps = chosen.hidden[row].nonzero()[:, 0]
        codes = objective.quantiser(normed[row, steps][None])
        shares.append(codes.shares[0])
        targets = objective.target(codes.values[0])
        for number, step in enumerate(steps):
            places = drawn.frames[row, number] - row * chosen.places.shape[1]
            candidates = torch.cat([targets[number][None], targets[places]])
            scores = F.cosine_similarity(objective.head(hidden[row, step])[None], candidates) / 0.1
            total = total + F.cross_entropy(scores[None], torch.tensor([0]))
        loud = loud + len(steps) * frames.values[row, : frames.lengths[row]].square().mean()
    weight = int(chosen.counts.sum())
    mean = torch.cat(shares).mean(0)
    used = (-(mean * mean.log()).sum(-1)).exp().mean()
    extra = 0.1 * (1 - used / 8) * weight + 10 * loud
    assert loss.weight == weight
    assert loss.sum.item() == pytest.approx((total + extra).item(), rel=1e-4)
    assert loss.parts["chance"].item() == pytest.approx(weight * math.log(11) + extra.item(), rel=1e-4)
    assert set(loss.parts) == {"chance", "copy last"}


def test_of_the_hidden_steps_nothing_is_seen():
    """What frames hold at masked steps reaches no hidden state, but for the targets."""
    objective, batch, draw = nano().eval(), batch_of((16_000,)), Draw(0)
    context, frames = objective.encoder.context, objective.encoder.frontend(batch.waves)
    chosen = choose_masked(objective.config.masks, frames.lengths, frames.values.shape[1], draw, ("u0",))
    changed = torch.where(chosen.hidden[..., None], torch.randn_like(frames.values), frames.values)
    one, other = (
        context.read(chosen.put(context.embed(context.inputs_norm(values)), objective.mask), frames.lengths).last
        for values in (frames.values, changed)
    )
    assert torch.equal(one, other)


def test_short_utterances_are_scored_where_anything_is_masked():
    objective = nano()
    batch = batch_of((400, 720, 2_000))
    for loss in (objective(batch, 0.5, Draw(0)), objective.eval()(batch, 0.0, Draw(0))):
        assert loss.sum.isfinite() and loss.weight >= 1 + 5
    single = objective(batch_of((400,)), 0.0, Draw(0))
    assert single.sum == 0 and single.weight == 0 and all(part == 0 for part in single.parts.values())
    assert set(objective.train()(batch, 0.5, Draw(0)).parts) == {"accuracy 1", "perplexity"}
