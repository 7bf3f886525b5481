import pytest
import torch
from speech_like import batch_of

from mockingjay.core.config import assignments, overlay
from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames, valid_steps
from mockingjay.encoders.contexts.transformer import Transformer
from mockingjay.encoders.contexts.two_stream import two_streams, visible
from mockingjay.objectives.speech_xlnet import SpeechXLNet
from mockingjay.settings import settings

TOY = Transformer.Config(layers=3, dim=16, feedforward=32, heads=4)
TIME = 11


def toy():
    return Transformer(TOY, inputs=5).eval()


def everywhere(ranks):
    return torch.arange(ranks.shape[1]).expand_as(ranks)


def order_of(lengths, seed=0):
    """Random ranks, padding behind."""
    time = max(lengths)
    places = torch.rand(len(lengths), time, generator=torch.Generator().manual_seed(seed))
    return places.masked_fill(~valid_steps(torch.tensor(lengths), time), 2.0).argsort(1).argsort(1)


def streams(context, values, ranks, lengths=None, start=None):
    frames = Frames(values, torch.tensor(lengths or [values.shape[1]] * len(values)))
    start = torch.full((context.dim,), 0.3) if start is None else start
    return two_streams(context, frames, ranks, everywhere(ranks), start)


def influence(context, values, ranks, stream):
    """influence[i, j]: how much the output at rank i moves when the frame of rank j does."""
    before = streams(context, values, ranks)[stream]
    order = ranks[0].argsort()
    moved = torch.zeros(TIME, TIME)
    for rank in range(TIME):
        changed = values.clone()
        changed[0, order[rank]] += 1.0
        difference = (streams(context, changed, ranks)[stream] - before).abs().sum(-1)[0]
        moved[:, rank] = difference[order]
    return moved


@pytest.mark.parametrize("seed", range(3))
def test_the_query_stream_depends_on_lower_ranks_alone_and_on_all_of_them(seed):
    moved = influence(toy(), torch.randn(1, TIME, 5), order_of([TIME], seed), stream=1)
    below = torch.ones(TIME, TIME).tril(-1).bool()
    assert (moved[~below] == 0).all() and (moved[below] > 1e-5).all()


@pytest.mark.parametrize("seed", range(3))
def test_the_content_stream_depends_on_ranks_up_to_its_own_and_on_all_of_them(seed):
    moved = influence(toy(), torch.randn(1, TIME, 5), order_of([TIME], seed), stream=0)
    upto = torch.ones(TIME, TIME).tril().bool()
    assert (moved[~upto] == 0).all() and (moved[upto] > 1e-5).all()


def test_the_natural_order_is_causal():
    ranks, values = torch.arange(TIME)[None], torch.randn(1, TIME, 5)
    changed = values.clone()
    changed[0, 6:] += torch.randn(5, 5)
    context = toy()
    for stream, same in ((0, 6), (1, 7)):
        before, after = streams(context, values, ranks)[stream], streams(context, changed, ranks)[stream]
        assert torch.equal(before[0, :same], after[0, :same])
        assert ((before - after)[0, same:].abs().sum(-1) > 1e-5).all()


def test_gradients_flow_from_lower_ranks_alone():
    context, ranks = toy(), order_of([TIME])
    values = torch.randn(1, TIME, 5, requires_grad=True)
    order = ranks[0].argsort()
    _, query = streams(context, values, ranks)
    query[0, order[4]].square().sum().backward()
    touched = values.grad[0].abs().sum(-1) > 0
    assert torch.equal(touched, ranks[0] < 4)


def test_the_mask_is_that_of_a_naive_loop():
    ranks, targets = order_of([7, 4]), torch.tensor([[5, 0, 2], [3, 1, 0]])
    mask = visible(ranks, targets)
    assert mask.shape == (2, 10, 10)
    for row in range(2):
        for i in range(10):
            for j in range(10):
                if j >= 7:
                    expected = i == j and ranks[row, targets[row, i - 7]] == 0
                elif i < 7:
                    expected = ranks[row, j] <= ranks[row, i]
                else:
                    expected = ranks[row, j] < ranks[row, targets[row, i - 7]]
                assert mask[row, i, j] == expected
    assert mask.any(-1).all()


def test_padding_is_never_attended_to():
    context, lengths = toy(), [9, 4]
    ranks = order_of(lengths)
    values = torch.randn(2, 9, 5)
    noisy = values.clone()
    noisy[1, 4:] = 100.0
    for one, other in zip(streams(context, values, ranks, lengths), streams(context, noisy, ranks, lengths)):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1, :4], other[1, :4])
    alone = streams(context, values[1:, :4], ranks[1:, :4])
    for one, other in zip(streams(context, values, ranks, lengths), alone):
        torch.testing.assert_close(one[1, :4], other[0], atol=1e-5, rtol=0)


def test_the_content_of_the_last_rank_is_what_the_plain_network_would_say_in_one_layer():
    context = Transformer(TOY.model_copy(update={"layers": 1}), inputs=5).eval()
    values, ranks = torch.randn(1, TIME, 5), order_of([TIME])
    content, _ = streams(context, values, ranks)
    last = int(ranks[0].argmax())
    plain = context(Frames(values, torch.tensor([TIME]))).last
    torch.testing.assert_close(content[0, last], plain[0, last])


def test_a_query_says_the_same_whichever_others_are_asked():
    context, values, ranks = toy(), torch.randn(1, TIME, 5), order_of([TIME])
    frames, start = Frames(values, torch.tensor([TIME])), torch.randn(16)
    _, together = two_streams(context, frames, ranks, everywhere(ranks), start)
    _, alone = two_streams(context, frames, ranks, torch.tensor([[7]]), start)
    torch.testing.assert_close(alone[0, 0], together[0, 7], atol=1e-5, rtol=0)


# The objective


def small(*changes, preset="nano"):
    chosen = settings("speech-xlnet", preset, ["objective.encoder.context.layers=1", *changes])
    torch.manual_seed(0)
    return SpeechXLNet(chosen.objective)


def frames_of(lengths):
    return Frames(torch.randn(len(lengths), max(lengths), 4), torch.tensor(lengths))


def test_the_last_fifth_of_the_order_is_asked_for():
    objective, batch = small(), batch_of((16_000,) * 8)
    lengths = [1, 2, 4, 5, 10, 35, 99, 2_500]
    ranks, asked, _ = objective._order(frames_of(lengths), batch, Draw(0))
    assert asked.sum(1).tolist() == [0, 1, 1, 1, 2, 7, 19, 500]
    for row, length in enumerate(lengths):
        assert ranks[row, :length].sort().values.tolist() == list(range(length))
        assert not asked[row, length:].any()
        if asked[row].any():
            assert ranks[row, asked[row]].min() > ranks[row, :length][~asked[row, :length]].max()


def test_orders_are_uniform_fresh_every_epoch_and_the_utterance_s_own():
    objective, batch = small(), batch_of((16_000,) * 2)
    seen = torch.zeros(10, 10)
    for epoch in range(2_000):
        ranks, *_ = objective._order(frames_of([10, 7]), batch, Draw(0, epoch))
        seen[torch.arange(10), ranks[0]] += 1
    assert (seen / 2_000 - 0.1).abs().max() < 0.03
    alone, *_ = objective._order(frames_of([10]), batch_of((16_000,)), Draw(0, 1_999))
    assert torch.equal(alone[0], ranks[0]) and not torch.equal(ranks[0, :7], ranks[1, :7])


def test_the_loss_is_huber_s_on_the_steps_that_are_asked_for():
    objective, batch = small().eval(), batch_of()
    loss = objective(batch, 0.0, Draw(0))
    frames = objective.encoder.frontend(batch.waves)
    ranks, asked, _ = objective._order(frames, batch, Draw(0))
    _, query = two_streams(objective.encoder.context, frames, ranks, everywhere(ranks), objective.start)
    error = (objective.head(query) - frames.values)[asked].abs()
    by_hand = torch.where(error < 1, 0.5 * error.square(), error - 0.5).sum()
    assert loss.sum.item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert loss.weight == asked.sum() * 240
    assert set(loss.parts) == {"utterance mean", "copy last", "interpolation"}
    assert objective.train()(batch, 0.0, Draw(0)).parts == {}


def test_what_is_asked_for_first_cannot_leak():
    objective = small("objective.encoder.frontend.factor=1").eval()
    batch = batch_of((16_000,))
    frames = objective.encoder.frontend(batch.waves)
    ranks, asked, _ = objective._order(frames, batch, Draw(0))
    first = torch.where(asked, ranks, 10_000).argmin(1)
    targets = first[:, None]
    _, before = two_streams(objective.encoder.context, frames, ranks, targets, objective.start)
    changed = Frames(torch.where(asked[:, :, None], 1e3, frames.values), frames.lengths)
    _, after = two_streams(objective.encoder.context, changed, ranks, targets, objective.start)
    assert torch.equal(before, after)


def test_single_steps_have_nothing_to_predict_and_break_nothing():
    objective = small("objective.encoder.frontend.factor=12").train()
    batch = batch_of((2_400, 2_500))
    assert objective.encoder.frontend(batch.waves).lengths.tolist() == [1, 1]
    loss = objective(batch, 0.0, Draw(0))
    loss.sum.backward()
    assert loss.sum == 0 and loss.weight == 0
    mixed = objective(batch_of((2_400, 16_000)), 0.0, Draw(0))
    mixed.sum.backward()
    assert mixed.weight == 12 * 80 and all(each.grad.isfinite().all() for each in objective.parameters())


def test_at_use_the_encoder_sees_everything():
    context = small().eval().encoder.context
    values = torch.randn(1, TIME, 240, requires_grad=True)
    context(Frames(values, torch.tensor([TIME]))).last[0, 3].sum().backward()
    assert (values.grad[0].abs().sum(-1) > 0).all()


def test_the_picture_shows_truth_where_nothing_was_asked():
    picture = small().eval().picture(batch_of(), Draw(0))
    assert torch.equal(picture.rebuilt[~picture.hidden], picture.true[~picture.hidden])
    assert not picture.altered[picture.hidden].any() and picture.hop == 160
    assert 0.1 < picture.hidden.float().mean() < 0.3


def test_another_context_is_refused():
    with pytest.raises(
        ConfigError, match=r"encoder\.context is 'relative-transformer', two streams need a 'transformer'"
    ):
        overlay(settings("speech-xlnet"), assignments(["objective.encoder.context.kind=relative-transformer"]))


def test_the_defaults_ask_for_a_fifth():
    chosen = settings("speech-xlnet")
    assert chosen == settings("speech-xlnet", "base") and chosen.objective.share == 0.2
