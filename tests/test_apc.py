import pytest
import torch
from speech_like import batch_of

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames, pad
from mockingjay.moves.foresee import arrive, foresee
from mockingjay.objectives import build_objective
from mockingjay.settings import settings
from mockingjay.train.loop import Run

SMALL = ["objective.encoder.context.dim=24", "objective.encoder.context.layers=2"]


def small(name, *changes):
    torch.manual_seed(0)
    return build_objective(settings(name, changes=[*SMALL, *changes]).objective)


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def trained(objective, steps, batch):
    run = Run(objective, Run.Config(steps=steps, learning_rate=3e-3, clip=1e6))
    list(run.ticks([(batch,)] * steps))
    return objective.eval()


@pytest.mark.parametrize("name", ["apc", "multi-target-apc"])
def test_published_sizes(name):
    objective = build_objective(settings(name).objective)
    assert size(objective.encoder) == 4_064_256 and size(objective.head) == 41_040
    if name == "apc":
        assert size(objective) == 4_105_296  # published: 4.11M


def test_the_defaults_are_the_released_model_s():
    chosen = settings("apc", "base")
    assert chosen.objective == settings("apc").objective and chosen.objective.ahead == 3
    assert (chosen.train.learning_rate, chosen.train.warmup, chosen.train.optimiser.weight_decay) == (1e-4, 0, 0)
    assert settings("multi-target-apc", "base").train == chosen.train
    assert settings("apc", "s3prl").objective.ahead == 5


def test_mockingjay_s_baseline_reads_what_mockingjay_reads():
    chosen = settings("apc", "mockingjay-baseline")
    objective = build_objective(chosen.objective)
    assert objective.encoder.frontend.config == settings("mockingjay").objective.encoder.frontend
    assert (objective.encoder.dim, objective.head.out_features) == (768, 160)
    assert size(objective.encoder) == 3 * 768 * (160 + 768 + 2) + 2 * 3 * 768 * (2 * 768 + 2)


@pytest.mark.parametrize("name", ["apc", "multi-target-apc"])
def test_only_the_encoder_is_kept(name, tmp_path):
    objective = small(name)
    objective.encoder.save(tmp_path)
    kept = type(objective.encoder).load(tmp_path)
    assert size(kept) == size(objective.encoder.context) < size(objective)


@pytest.mark.parametrize("name", ["apc", "multi-target-apc"])
def test_the_future_reaches_no_layer(name):
    objective = small(name)
    frames = objective.encoder.frontend(batch_of((24_000,)).waves)
    changed = Frames(frames.values.clone(), frames.lengths)
    changed.values[:, 40:] = torch.randn_like(changed.values[:, 40:])
    for layer, other in zip(objective.encoder.context(frames).layers, objective.encoder.context(changed).layers):
        assert torch.equal(layer[:, :40], other[:, :40])


@pytest.mark.parametrize("ahead", [1, 3, 20])
def test_what_is_said_at_t_is_compared_with_frame_t_plus_n(ahead):
    frames = Frames(*pad([torch.randn(25, 4), torch.randn(22, 4)]))
    guessed = torch.randn(2, 25, 4)
    loss = foresee(guessed, frames, ahead, trivial=True)
    pairs = [(row, step) for row, length in enumerate((25, 22)) for step in range(length - ahead)]
    by_hand = sum((frames.values[row, step + ahead] - guessed[row, step]).abs().sum() for row, step in pairs)
    assert loss.sum.item() == pytest.approx(by_hand.item(), rel=1e-5)
    assert loss.weight == 4 * len(pairs)
    copied = sum((frames.values[row, step + ahead] - frames.values[row, step]).abs().sum() for row, step in pairs)
    assert loss.parts["copy last"].item() == pytest.approx(copied.item(), rel=1e-5)
    means = [frames.values[0].mean(0), frames.values[1, :22].mean(0)]
    meant = sum((frames.values[row, step + ahead] - means[row]).abs().sum() for row, step in pairs)
    assert loss.parts["utterance mean"].item() == pytest.approx(meant.item(), rel=1e-5)
    told = torch.cat([frames.values[:, ahead:], torch.randn(2, ahead, 4)], 1)
    assert foresee(told, frames, ahead, trivial=False).sum == 0


def test_a_guess_arrives_where_it_comes_true():
    frames = Frames(*pad([torch.randn(9, 4), torch.randn(6, 4)]))
    told, foretold = arrive(frames.values + 1, frames, 2)
    assert torch.equal(told[:, 2:], frames.values[:, :-2] + 1) and torch.equal(told[:, :2], frames.values[:, :2])
    assert foretold.sum(1).tolist() == [7, 4] and not foretold[:, :2].any()


def test_the_objective_scores_what_its_head_says():
    objective = small("apc").eval()
    batch = batch_of()
    frames = objective.encoder.frontend(batch.waves)
    guessed = objective.head(objective.encoder.context(frames).last)
    loss = objective(batch, 0.0, Draw(0))
    assert torch.equal(loss.sum, foresee(guessed, frames, 3, trivial=False).sum)
    assert loss.weight == 80 * (frames.lengths - 3).sum()
    assert set(loss.parts) == {"copy last", "utterance mean"}
    assert objective.train()(batch, 0.0, Draw(0)).parts == {}


def test_it_learns_more_than_to_copy():
    batch = batch_of((8000, 6000))
    loss = trained(small("apc"), 40, batch)(batch, 0.0, Draw(0))
    assert loss.sum < loss.parts["copy last"] and loss.sum < loss.parts["utterance mean"]


@pytest.mark.parametrize("name", ["apc", "multi-target-apc"])
def test_an_utterance_without_a_future_is_not_scored(name):
    objective = small(name, "objective.ahead=20")
    loss = objective(batch_of((3200,)), 0.0, Draw(0))  # 18 frames
    assert loss.sum == 0 and loss.weight == 0
    loss.sum.backward()
    assert all(parameter.grad.abs().sum() == 0 for parameter in objective.encoder.parameters())
    assert not objective.eval().picture(batch_of((3200,)), Draw(0)).hidden.any()


@pytest.mark.parametrize("name", ["apc", "multi-target-apc"])
def test_a_context_that_sees_the_future_is_refused(name):
    with pytest.raises(ConfigError, match=r"objective\.encoder\.context: 'transformer' is no network that reads the p"):
        build_objective(settings(name, changes=["objective.encoder.context.kind=transformer"]).objective)


def test_without_the_past_s_weight_it_is_apc_bit_for_bit():
    apc = small("apc", "objective.encoder.context.dropout=0.1")
    both = small(
        "multi-target-apc", "objective.ahead=3", "objective.past.weight=0", "objective.encoder.context.dropout=0.1"
    )
    for objective in (apc, both):
        torch.manual_seed(3)
        objective.loss = objective(batch_of(), 0.0, Draw(0))
        objective.loss.sum.backward()
    assert torch.equal(apc.loss.sum, both.loss.sum) and torch.equal(apc.loss.weight, both.loss.weight)
    theirs = dict(both.named_parameters())
    for name, parameter in apc.named_parameters():
        assert torch.equal(parameter.grad, theirs[name].grad), name
    own, state = trained(apc, 3, batch_of())(batch_of(), 0.0, Draw(0)), trained(both, 3, batch_of()).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in apc.state_dict().items())
    assert own.parts == both(batch_of(), 0.0, Draw(0)).parts


def test_the_past_is_what_a_loop_over_anchors_finds():
    objective = small("multi-target-apc").eval()
    batch = batch_of()
    frames = objective.encoder.frontend(batch.waves)
    hidden = objective.encoder.context(frames).last
    loss = objective._remember(hidden, frames, batch, Draw(0))
    error, copied, cells = 0.0, 0.0, 0
    for row, anchor in zip(*(part.tolist() for part in objective._anchors(batch, frames, Draw(0)))):
        if anchor + 5 >= frames.lengths[row]:
            continue
        state = hidden[row, anchor][None, None]
        for back in (7, 6, 5):
            fed, wanted = frames.values[row, anchor - back], frames.values[row, anchor - back + 1]
            said, state = objective.recall(fed[None, None], state)
            error += (objective.recall_head(said[0, 0]) - wanted).abs().sum().item()
            copied += (fed - wanted).abs().sum().item()
            cells += 80
    assert loss.sum.item() == pytest.approx(error, rel=1e-4) and loss.weight == cells
    assert loss.parts["copy last"].item() == pytest.approx(copied, rel=1e-4)
    future = foresee(objective.head(hidden), frames, 5, trivial=True)
    whole, scale = objective(batch, 0.0, Draw(0)), 0.1 / (0.15 * 3)
    assert whole.sum.item() == pytest.approx((future.sum + scale * loss.sum).item(), rel=1e-6)
    for name, part in whole.parts.items():
        assert part.item() == pytest.approx((future.parts[name] + scale * loss.parts[name]).item(), rel=1e-6)


def test_anchors_are_fresh_have_a_past_and_come_at_their_share():
    objective = small("multi-target-apc")
    batch = batch_of((48_000,) * 4)
    frames = objective.encoder.frontend(batch.waves)
    time, counts, seen = frames.values.shape[1], 0, []
    for epoch in range(50):
        rows, anchors = objective._anchors(batch, frames, Draw(0, epoch))
        assert anchors.min() >= 7 and anchors.max() < time
        counts += len(rows)
        seen.append((rows * time + anchors).tolist())
    assert counts / (50 * 4 * (time - 7)) == pytest.approx(0.15, abs=0.005)
    assert seen[0] != seen[1] and max(map(max, seen)) == 4 * time - 1


def test_the_past_s_error_reaches_the_hidden_states_of_anchors_alone():
    objective = small("multi-target-apc")
    batch = batch_of()
    frames = objective.encoder.frontend(batch.waves)
    hidden = objective.encoder.context(frames).last.detach().requires_grad_()
    objective._remember(hidden, frames, batch, Draw(0)).sum.backward()
    rows, anchors = objective._anchors(batch, frames, Draw(0))
    expected = torch.zeros(hidden.shape[:2], dtype=torch.bool)
    expected[rows, anchors] = True
    expected &= torch.arange(hidden.shape[1]) + 5 < frames.lengths[:, None]
    assert torch.equal(hidden.grad.abs().sum(-1) > 0, expected)


def test_the_past_is_forgotten_without_its_hidden_states():
    batch = batch_of((8000, 6000))
    objective = trained(small("multi-target-apc", "objective.past.weight=1.0"), 80, batch)
    frames = objective.encoder.frontend(batch.waves)
    hidden = objective.encoder.context(frames).last
    knowing, ignorant = (
        objective._remember(state, frames, batch, Draw(0)).sum for state in (hidden, torch.zeros_like(hidden))
    )
    assert ignorant > 1.1 * knowing


def test_a_segment_that_is_not_past_is_refused():
    with pytest.raises(ConfigError, match=r"objective\.past: width 8 reaches beyond the anchor, expected at most b"):
        settings("multi-target-apc", changes=["objective.past.width=8"])
