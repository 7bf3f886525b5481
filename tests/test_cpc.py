"""The contrastive methods: CPC, wav2vec, modified CPC, bidirectional CPC."""

import math
import tomllib
from dataclasses import replace
from functools import cache
from importlib.resources import files

import pytest
import torch
from speech_like import batch_of

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Batch, Frames, Hidden
from mockingjay.moves.contrast import compare, draw_negatives, info_nce
from mockingjay.objectives import build_objective
from mockingjay.settings import settings
from mockingjay.train.loop import Run
from mockingjay.train.schedule import SCHEDULES

METHODS = ["cpc", "wav2vec", "modified-cpc", "bidirectional-cpc"]
ABLATIONS = {
    "batch-norm": {"encoder.frontend.norm": "batch"},
    "linear": {"predictors": {"kind": "linear"}},
    "gru": {"encoder.context.cell": "gru"},
}
SHORT = (8000, 6000)
SEEDS = 16


def nano(name, *changes, seed=1):
    torch.manual_seed(seed)
    return build_objective(settings(name, "nano", changes).objective)


@cache
def whole(name, preset=None):
    return build_objective(settings(name, preset).objective)


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def flat(table, prefix=""):
    return {
        path: value
        for name, part in table.items()
        for path, value in (flat(part, f"{prefix}{name}.") if isinstance(part, dict) else {prefix + name: part}).items()
    }


def test_published_sizes():
    cpc = whole("cpc")
    assert size(cpc.encoder.frontend) == 5_250_560 and size(cpc.encoder.context) == 591_360
    assert size(cpc.predictors) == 1_572_864
    base, large = whole("wav2vec"), whole("wav2vec", "large")
    assert size(base.encoder.frontend) == 5_253_120 and size(base.encoder.context) == 7_091_712
    assert size(base.predictors) + base.bias.numel() == 3_146_240
    assert size(large) == 32_537_088  # published: 32.54M
    assert size(whole("modified-cpc").encoder) == 1_843_456  # published: 1.84M


def test_wav2vec_has_five_layers_below_nine_and_its_targets_share_no_sample_with_what_is_known():
    base = whole("wav2vec")
    assert (len(base.encoder.frontend.layers), base.encoder.depth, base.encoder.hop) == (5, 9, 160)
    assert base.first == whole("wav2vec", "large").first == 3
    assert nano("wav2vec", "objective.offset=1").first == 1
    assert not base.encoder.context.causal and base.encoder.frontend.leaks == "future"
    causal = whole("wav2vec", "causal").encoder
    assert causal.context.causal and causal.frontend.leaks == "nothing"


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_starts_at_chance(name):
    objective = nano(name).eval()
    loss = objective(batch_of(), 0.0, Draw(0))
    count = objective.config.negatives.count
    chance = (count + 1) * math.log(2) if name == "wav2vec" else math.log(count + 1)
    assert loss.mean.item() == pytest.approx(chance, rel=0.05)
    marginal = math.log(count + 1) + (count * math.log(1 + 1 / count) if name == "wav2vec" else 0.0)
    assert {part: (value / loss.weight).item() for part, value in loss.parts.items()} == pytest.approx(
        {"chance": marginal}
    )


@pytest.mark.parametrize("name", METHODS)
def test_before_training_one_in_so_many_is_right(name):
    shares = []
    for seed in range(SEEDS):
        objective = nano(name, seed=seed).train()
        loss = objective(batch_of((8000, 6000), seed=2 * seed), 0.0, Draw(seed))
        assert list(loss.parts) == [f"accuracy {step}" for step in range(1, 5)]
        shares.append(torch.stack(list(loss.parts.values())) / loss.weight)
    shares = torch.stack(shares).mean(1)  # of each network; distances share its negatives
    error = shares.std().item() / SEEDS**0.5
    chance = 1 / (objective.config.negatives.count + 1)
    assert 0 < error < 0.1 * chance and shares.mean().item() == pytest.approx(chance, abs=4 * error)


@pytest.mark.parametrize("name", [*METHODS, "vq-wav2vec"])
def test_frames_learn_from_being_told_apart_and_not_from_being_read_alone(name, monkeypatch):
    objective = nano(name)
    objective.prepare([batch_of(SHORT)])
    context = objective.encoder.context
    reads = "read" if name == "vq-wav2vec" else "forward"  # its quantiser stands between
    read = getattr(context, reads)

    def detached(frames):
        hidden = read(frames)
        return Hidden(tuple(layer.detach() for layer in hidden.layers), hidden.lengths)

    monkeypatch.setattr(context, reads, detached)
    objective.train()(batch_of(SHORT), 0.0, Draw(0)).sum.backward()
    gradients = {key: each.grad for key, each in objective.encoder.frontend.named_parameters()}
    assert gradients and all(each is not None and each.abs().sum() > 0 for each in gradients.values()), gradients.keys()


@pytest.mark.parametrize("name", METHODS)
def test_every_pair_of_a_step_and_a_later_one_is_scored(name):
    loss = nano(name).eval()(batch_of(), 0.0, Draw(0))
    objective = nano(name)
    lengths = objective.encoder.frontend.count(batch_of().waves.lengths).tolist()
    first = objective.first if name == "wav2vec" else 1
    pairs = sum(length - ahead for length in lengths for ahead in range(first, first + 4))
    assert loss.weight == pairs * (2 if name == "bidirectional-cpc" else 1)


def test_what_is_learnt_falls_to_chance_where_the_targets_are_shuffled():
    objective, batch = nano("cpc", "objective.negatives.source=sequence"), batch_of((8000,) * 4)
    run = Run(objective, Run.Config(steps=60, learning_rate=1e-2, warmup=0.1))
    list(run.ticks([(batch,)] * 60))
    frames = objective.eval().encoder.frontend(batch.waves)
    told = objective.predictors(objective.encoder.context(frames).last)

    def accuracy(shuffle):
        total = torch.zeros(())
        for epoch in range(20):
            values = frames.values[:, torch.randperm(frames.values.shape[1])] if shuffle else frames.values
            shown = Frames(values, frames.lengths)
            drawn = draw_negatives(objective.config.negatives, shown, Draw(1, epoch), batch.utterances)
            loss = info_nce(compare(told, shown, drawn), trivial=False)
            total += loss.parts["accuracy 1"] / loss.weight / 20
        return total.item()

    chance = 1 / 9
    assert accuracy(shuffle=False) > 3 * chance
    assert accuracy(shuffle=True) == pytest.approx(chance, abs=0.03)


@pytest.mark.parametrize("name", ["cpc", "modified-cpc"])
def test_the_past_knows_nothing_of_the_future(name):
    encoder = nano(name).encoder.eval()
    waves = batch_of((8000,)).waves
    changed = replace(waves, samples=waves.samples.clone())
    changed.samples[:, 4000:] += 0.1
    one, other = (encoder(each).last[0] for each in (waves, changed))
    same = torch.isclose(one, other, atol=1e-7).all(-1)
    # Frame t ends with the sample 160 t − 153 + 464.
    assert same[:24].all() and not same[24:].any()


def test_modified_cpc_with_all_three_changes_undone_is_cpc():
    undone = ["objective.encoder.frontend.norm=none", "objective.predictors.kind=linear"]
    modified = nano("modified-cpc", *undone, "objective.encoder.context.cell=gru", "objective.negatives.source=batch")
    cpc = nano("cpc", "objective.encoder.context.dim=16")
    cpc.load_state_dict(modified.state_dict())
    one, other = (each(batch_of(), 0.0, Draw(0)) for each in (modified, cpc))
    assert torch.equal(one.sum, other.sum) and torch.equal(one.weight, other.weight)


@pytest.mark.parametrize(("size", "all_three"), [("", "base"), ("tiny-", "tiny")])
@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_undoes_one_change_and_no_other(name, size, all_three):
    full, undone = (settings("modified-cpc", preset) for preset in (all_three, size + name))
    assert full.train == undone.train and full.batches == undone.batches
    one, other = (flat(each.objective.model_dump()) for each in (full, undone))
    changed = {path for path in one | other if one.get(path) != other.get(path)}
    own = {path for path in ABLATIONS[name] if path != "predictors"}
    if name == "linear":
        own = {path for path in one if path.startswith("predictors.")}
    assert changed == own
    original = flat(settings("modified-cpc", f"{size}original").objective.model_dump())
    assert all(original[path] == other.get(path) for path in changed if path in original)
    build_objective(settings("modified-cpc", "nano", _undo(name)).objective)(batch_of(SHORT), 0.0, Draw(0))


def test_modified_cpc_by_default_has_all_three_changes():
    assert settings("modified-cpc", "base").objective == settings("modified-cpc").objective


def _undo(name):
    path = files("mockingjay") / "presets" / "modified-cpc" / f"{name}.toml"
    table = tomllib.loads(path.read_text("utf-8"))["objective"]
    changes = []
    while isinstance(table, dict):
        key, table = next(iter(table.items()))
        changes.append(key)
    return [f"objective.{'.'.join(changes)}={table}"]


def test_negatives_of_a_batch_are_declared_and_those_of_a_sequence_need_no_batch():
    def gap(*changes):
        objective = nano("cpc", *changes).eval()
        batch = batch_of(SHORT)
        torch.nn.init.normal_(objective.predictors.maps.weight)
        both = objective(batch, 0.0, Draw(0)).sum
        alone = [
            objective(Batch(type(batch.waves).pad([wave]), (utterance,)), 0.0, Draw(0)).sum
            for wave, utterance in zip((batch.waves.samples[0], batch.waves.samples[1, : SHORT[1]]), batch.utterances)
        ]
        return objective.draws_from, abs((sum(alone) / both - 1).item()) < 1e-5

    assert gap() == ("batch", False)
    assert gap("objective.negatives.source=sequence") == ("utterance", True)
    assert gap("objective.negatives.source=speaker") == ("batch", True)  # here nobody's speaker is known
    assert nano("wav2vec").draws_from == nano("bidirectional-cpc").draws_from == "utterance"


@pytest.mark.parametrize("context", ["convolution-pair", "one-way-pair"])
def test_both_directions_ask_the_same_of_an_utterance_turned_around(context):
    changes = ["objective.encoder.context.kind=one-way-pair", "objective.encoder.context.dim=32"]
    objective = nano("bidirectional-cpc", *(changes if context == "one-way-pair" else [])).eval()
    objective.backward.load_state_dict(objective.onward.state_dict())
    objective.encoder.context.backward.load_state_dict(objective.encoder.context.onward.state_dict())
    frames = Frames(torch.randn(2, 30, 16), torch.tensor([30, 22]))
    objective.encoder.frontend.forward = lambda waves: frames
    scores = []
    objective._tell = lambda told, frames, *rest: scores.append((told, frames)) or objective.loss
    objective.loss = info_nce(
        compare(torch.randn(2, 30, 4, 16), frames, _drawn(objective, frames, batch_of(SHORT))), trivial=True
    )
    objective(batch_of(SHORT), 0.0, Draw(0))
    (_, _), (backward, turned) = scores
    scores.clear()
    frames = turned
    objective(batch_of(SHORT), 0.0, Draw(0))
    torch.testing.assert_close(scores[0][0][turned.valid], backward[turned.valid], atol=1e-5, rtol=1e-4)


def _drawn(objective, frames, batch):
    return draw_negatives(objective.config.negatives, frames, Draw(0), batch.utterances)


def test_bidirectional_cpc_may_have_lstms():
    objective = whole("bidirectional-cpc", "lstm")
    assert objective.encoder.dim == 1024 and objective.encoder.depth == 5
    assert whole("bidirectional-cpc").encoder.depth == 13


@pytest.mark.parametrize(
    "name, changes, sentence",
    [
        (
            "cpc",
            ["objective.encoder.context.kind=transformer"],
            r"'transformer' is no network that reads the past alone",
        ),
        (
            "modified-cpc",
            ["objective.encoder.context.kind=bidirectional"],
            "'bidirectional' is no network that reads the",
        ),
        ("wav2vec", ["objective.encoder.frontend.kind=log-mel"], "'log-mel' is no wav2vec, expected 'waveform'"),
        ("wav2vec", ["objective.encoder.context.kind=recurrent"], "'recurrent' is no wav2vec, expected 'causal-conv"),
        (
            "bidirectional-cpc",
            ["objective.encoder.context.kind=bidirectional"],
            "'bidirectional' mixes past and future",
        ),
        (
            "modified-cpc",
            ["objective.encoder.context.dim=24"],
            "frames of width 256 and hidden states of width 24, expected one width for both that 8 heads divide",
        ),
    ],
)
def test_what_would_see_its_answer_or_does_not_fit_is_refused(name, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build_objective(settings(name, changes=changes).objective)


def test_learning_rates_may_fall_along_a_cosine():
    cosine = SCHEDULES["cosine"]
    assert [cosine(step, 100, 0.0) for step in (0, 50, 100)] == pytest.approx([1.0, 0.5, 0.0])
    assert cosine(5, 100, 0.1) == 0.5
    assert settings("wav2vec", "large").train.schedule == "cosine"
