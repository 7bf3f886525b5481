import math

import pytest
import torch
from speech_like import batch_of

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames, pad
from mockingjay.encoders.contexts import Slices
from mockingjay.encoders.contexts.slices import Slices as Context
from mockingjay.moves.guess import PREDICTORS
from mockingjay.moves.slices import cut, even, first
from mockingjay.objectives import build_objective
from mockingjay.objectives.temporal_gap import cross_entropy
from mockingjay.settings import settings
from mockingjay.train.loop import Run

LONG = (20_000, 24_000, 17_000)


def nano(name, *changes):
    torch.manual_seed(0)
    objective = build_objective(settings(name, "nano", changes).objective)
    objective.prepare([batch_of(LONG)])
    return objective


def trained(objective, steps, batch):
    list(Run(objective, Run.Config(steps=steps, learning_rate=3e-3)).ticks([(batch,)] * steps))
    return objective.eval()


# ---- cutting


def test_slices_are_what_a_loop_cuts():
    values, lengths = pad([torch.randn(9, 2), torch.randn(6, 2)])
    starts = torch.tensor([[-1, 3], [4, 8]])
    slices, inside = cut(values, lengths, starts, 3)
    for row, length in enumerate((9, 6)):
        for number in range(2):
            for place in range(3):
                step = int(starts[row, number]) + place
                known = 0 <= step < length
                assert inside[row, number, place] == known
                assert torch.equal(slices[row, number, place], values[row, step] if known else torch.zeros(2))


def test_rows_of_slices_are_disjoint_and_lie_everywhere_they_fit():
    assert even(5, 96, 2, torch.device("cpu")).tolist() == [0, 98, 196, 294, 392]
    lengths, ids = torch.full((2000,), 12), tuple(map(str, range(2000)))
    starts = first(lengths, 9, Draw(0), ids)[:, 0]
    assert starts.bincount().div(2000).tolist() == pytest.approx([0.25] * 4, abs=0.04)
    assert first(torch.tensor([5]), 9, Draw(0), ("a",)).tolist() == [[0]]


def test_a_slice_lies_around_its_step():
    torch.manual_seed(0)
    context = Context(Slices.Config(width=8, stride=4, channels=(3, 5), dim=6), 7).eval()
    frames = Frames(*pad([torch.randn(21, 7), torch.randn(10, 7)]))
    hidden = context(frames)
    assert hidden.lengths.tolist() == [5, 2] and hidden.last.shape == (2, 5, 6)
    padded = torch.nn.functional.pad(frames.values * frames.valid[..., None], (0, 0, 2, 2))
    for row, step in ((0, 0), (0, 3), (1, 1)):
        own = padded[row, 4 * step : 4 * step + 8][None]
        torch.testing.assert_close(context.embed(own, torch.ones(1, dtype=torch.bool))[0], hidden.last[row, step])


@pytest.mark.parametrize(("width", "stride"), [(6, 9), (7, 2), (9, 9)])
def test_any_stride_has_its_steps(width, stride):
    context = Context(Slices.Config(width=width, stride=stride, channels=(3, 5), dim=6), 7).eval()
    for time in (1, stride, 20, 31):
        hidden = context(Frames(torch.randn(2, time, 7), torch.tensor([time, time // 2])))
        assert hidden.lengths.tolist() == [time // stride, time // 2 // stride]
        assert hidden.last.shape[1] == max(1, time // stride)


def test_pictures_that_cannot_be_halved_are_refused():
    with pytest.raises(ConfigError, match=r"width 8 cannot be halved 5 times"):
        settings("audio2vec", changes=["objective.encoder.context.width=8"])
    with pytest.raises(ConfigError, match=r"context: frames of 4 channels, expected at least 8 to halve 3 times"):
        Context(Slices.Config(channels=(2, 2, 2, 2)), 4)


@pytest.mark.parametrize("name", ["audio2vec", "temporal-gap", "phase"])
def test_other_contexts_are_refused(name):
    with pytest.raises(ConfigError, match=r"slices"):
        settings(name, changes=["objective.encoder.context.kind=transformer"])


def test_defaults_are_the_paper_s():
    chosen = settings("audio2vec", "base").objective
    assert chosen == settings("audio2vec").objective
    assert (chosen.task, chosen.neighbours, chosen.gap) == ("cbow", 2, 2)
    objective = build_objective(chosen)
    assert objective.span == 488 and objective.encoder.dim == 128
    assert settings("audio2vec", "skip-gram").objective.task == "skip-gram"


# ---- Audio2Vec


@pytest.mark.parametrize("task", ["cbow", "skip-gram"])
def test_what_is_asked_is_not_read(task):
    objective = nano("audio2vec", f"objective.task={task}").eval()
    batch = batch_of(LONG)
    frames = objective.encoder.frontend(batch.waves)
    starts = objective._starts(frames, batch, Draw(0))
    assert ((starts[:, 1:] - starts[:, :-1]) == 14).all()  # 12 frames and 2 between
    assert (starts[:, 0] >= 0).all() and (starts[:, -1] + 12 <= frames.lengths).all()
    slices, inside = cut(frames.values, frames.lengths, starts, 12)
    assert inside.all() and sorted(objective.read + objective.asked) == [0, 1, 2, 3, 4]
    whole = torch.ones(3, dtype=torch.bool)
    said, changed = objective._say(slices, whole), slices.clone()
    assert said.shape == (3, len(objective.asked), 12, 64)
    changed[:, objective.asked] += torch.randn_like(changed[:, objective.asked])
    assert torch.equal(objective._say(changed, whole), said)
    loss = objective(batch, 0.0, Draw(0))
    by_hand = (said - slices[:, objective.asked]).square().sum()
    assert loss.sum.item() == pytest.approx(by_hand.item(), rel=1e-5) and loss.weight == said.numel()


def test_neighbours_are_told_apart_by_their_place():
    objective = nano("audio2vec").eval()
    slices, whole = torch.randn(1, 5, 12, 64), torch.ones(1, dtype=torch.bool)
    assert not torch.allclose(objective._say(slices, whole), objective._say(slices[:, [1, 0, 2, 3, 4]], whole))


@pytest.mark.parametrize("task", ["cbow", "skip-gram"])
def test_dumb_predictors_know_what_is_read_alone(task):
    objective = nano("audio2vec", f"objective.task={task}").eval()
    batch = batch_of(LONG[:1])
    frames = objective.encoder.frontend(batch.waves)
    starts = objective._starts(frames, batch, Draw(0))[0].tolist()
    read = [step for place in objective.read for step in range(starts[place], starts[place] + 12)]
    asked = [step for place in objective.asked for step in range(starts[place], starts[place] + 12)]
    loss = objective(batch, 0.0, Draw(0))
    true, mean = frames.values[0, asked], frames.values[0, read].mean(0)
    assert loss.parts["utterance mean"].item() == pytest.approx((true - mean).square().sum().item(), rel=1e-4)
    assert loss.parts["corpus mean"].item() == pytest.approx(true.square().sum().item(), rel=1e-5)
    assert set(loss.parts) == {"corpus mean", *PREDICTORS}
    last = torch.stack([frames.values[0, max((r for r in read if r < step), default=read[0])] for step in asked])
    assert loss.parts["copy last"].item() == pytest.approx((true - last).square().sum().item(), rel=1e-4)


@pytest.mark.parametrize("task", ["cbow", "skip-gram"])
def test_it_learns_more_than_the_mean(task):
    batch = batch_of(LONG)
    objective = trained(nano("audio2vec", f"objective.task={task}"), 30, batch)
    loss = objective(batch, 0.0, Draw(0))
    assert loss.sum < loss.parts["corpus mean"]
    picture = objective.picture(batch, Draw(0))
    assert picture.hidden.sum() == 12 * len(objective.asked)
    assert torch.equal(picture.rebuilt[~picture.hidden], picture.true[~picture.hidden])
    assert (picture.altered[picture.hidden] == 0).all()


def test_a_short_utterance_is_not_scored():
    objective = nano("audio2vec").eval()
    loss = objective(batch_of((8000,)), 0.0, Draw(0))
    assert loss.sum == 0 and loss.weight == 0 and objective.picture(batch_of((8000,)), Draw(0)) is None
    both = objective(batch_of((8000, *LONG[1:])), 0.0, Draw(0))
    assert both.weight == 2 * 12 * 64
    gap = nano("temporal-gap").eval()
    assert gap(batch_of((3000,)), 0.0, Draw(0)).weight == 0


# ---- TemporalGap


def test_pairs_are_disjoint_and_shares_are_shares():
    objective = nano("temporal-gap")
    batch = batch_of((6000, 20_000, 24_000, 4000))
    lengths = torch.tensor([40, 200, 700, 24])
    seen = []
    for epoch in range(200):
        starts, possible = objective._pairs(lengths, batch, Draw(0, epoch))
        assert possible.all() and (starts >= 0).all() and (starts + 12 <= lengths[:, None]).all()
        distance = (starts[:, 0] - starts[:, 1]).abs()
        assert (distance >= 12).all()
        share = objective._share(starts)
        torch.testing.assert_close(share, distance / 288)
        assert (share > 0).all() and (share <= 1).all()
        seen.append(starts)
    seen = torch.stack(seen)
    assert (seen[:, 3] == torch.tensor([0, 12])).all(1).any() and (seen[:, 3] == torch.tensor([12, 0])).all(1).any()
    assert seen[:, 2].max() > 600  # a clip lies anywhere in a long utterance


def test_the_loss_is_not_below_the_entropy():
    share = torch.tensor([0.1, 0.5, 0.9])
    entropy = torch.distributions.Bernoulli(probs=share).entropy()
    torch.testing.assert_close(cross_entropy(share, share), entropy)
    for said in (0.2, 0.6):
        assert (cross_entropy(torch.tensor(said), share) > entropy).all()
    assert cross_entropy(torch.tensor(0.0), torch.tensor([0.3])).isfinite().all()


def test_the_absolute_error_is_logged_beside_the_median_s():
    objective = nano("temporal-gap").train()
    loss = objective(batch_of(LONG), 0.0, Draw(0))
    assert set(loss.parts) == {"entropy", "absolute error", "absolute error of the median"}
    assert loss.parts["entropy"] < loss.sum
    lengths = objective.encoder.frontend.count(batch_of(LONG).waves.lengths)
    known = objective._share(objective._pairs(lengths, batch_of(LONG), Draw(0))[0])
    torch.testing.assert_close(objective.constant, torch.stack([known.mean(), known.median()]))
    scored = objective.eval()(batch_of(LONG), 0.0, Draw(0))
    assert scored.parts["mean"].item() == pytest.approx(cross_entropy(known.mean(), known).sum().item(), rel=1e-5)


def test_it_learns_distances():
    batch = batch_of(LONG)
    loss = trained(nano("temporal-gap"), 40, batch)(batch, 0.0, Draw(0))
    assert loss.sum < loss.parts["mean"] <= math.log(2) * loss.weight


def test_a_clip_of_two_slices_is_refused():
    with pytest.raises(ConfigError, match=r"clip 150 must be longer than two slices of 96 frames"):
        settings("temporal-gap", changes=["objective.clip=150"])
