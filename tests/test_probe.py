import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy_representation import CODES, Toy, speak

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.types import Batch, Hidden, Waves
from mockingjay.data.quarantine import Quarantine
from mockingjay.downstream import fit_probe, open_task
from mockingjay.downstream.features import bytes_needed, cache, load
from mockingjay.downstream.fit import Config
from mockingjay.downstream.frozen import FrozenTraining, passes
from mockingjay.downstream.heads import build_head
from mockingjay.downstream.mix import Mix, Mixed
from mockingjay.downstream.partition import shares, usable
from mockingjay.downstream.parts import Demand, Parts, Whole, hold
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.storage import load_probe, save_probe
from mockingjay.downstream.tasks import Label, Phone

AdamW = torch.optim.AdamW
PHONES = tuple(f"p{code}" for code in range(CODES))
QUICK = FrozenTraining.Config(learning_rates=(1e-2, 1e-1), updates=80, rows=256, evaluations=8)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    return speak(tmp_path_factory.mktemp("speech"))


def config(seeds=2, **probe):
    return Config(probe=Probe.Config(**probe), frozen=QUICK, seeds=seeds)


def fitted(spoken, task="phone", representation=None, **probe):
    representation = representation or Toy()
    return fit_probe(
        representation, open_task(task), spoken[:24], spoken[24:32], spoken[32:], config(**probe), "toy", "made"
    )


def batch_of(utterances):
    return Batch(Waves.pad([load(each) for each in utterances]), tuple(utterances))


def phone_probe(**probe):
    return Probe(Toy(), Phone(Phone.Config(), PHONES), Probe.Config(**probe))


@pytest.mark.parametrize("task", ["phone", "label:mood"])
@pytest.mark.parametrize("read", ["last", "mix"])
def test_known_labels_are_found(spoken, task, read):
    result = fitted(spoken, task, read=read)
    assert result.row["value"] > 0.99
    assert set(result.row) >= {"representation", "task", "metric", "value", "ci95", "n", "seed", "data"}
    assert result.row["n"] == 8 and len(result.row["values"]) == 2
    assert result.row["points"] == (sum(round(each.seconds * 100) for each in spoken[32:]) if task == "phone" else 8)
    assert sum(layer["weight"] for layer in result.row["layers"]) == pytest.approx(1)


def test_shuffled_labels_are_guessed_by_chance(spoken):
    random = np.random.default_rng(0)
    shuffled = [
        replace(each, alignment=tuple((start, end, f"p{random.integers(CODES)}") for start, end, _ in each.alignment))
        for each in spoken
    ]
    result = fitted(shuffled)
    assert abs(result.row["value"] - 1 / CODES) < 0.1
    assert abs(result.row["majority"] - 1 / CODES) < 0.1


def test_stacked_encoders_answer_for_the_same_points(spoken):
    fine, coarse = fitted(spoken, representation=Toy(160)), fitted(spoken, representation=Toy(480))
    assert fine.row["points"] == coarse.row["points"]
    assert fine.scores.ids == coarse.scores.ids
    assert coarse.row["value"] > 0.99  # the made phones change on whole 30 ms


def test_same_seed_same_figures(spoken):
    one, other, third = (
        fit_probe(
            Toy(), open_task("label:mood"), spoken[:24], spoken[24:32], spoken[32:],
            Config(probe=Probe.Config(read="mix", head="mlp2"), frozen=QUICK, seeds=1, seed=seed),
        )
        for seed in (3, 3, 4)
    )  # fmt: skip
    state = [result.probe.head.state_dict() for result in (one, other, third)]
    assert one.row == other.row
    assert all(torch.equal(state[0][name], state[1][name]) for name in state[0])
    assert not all(torch.equal(state[0][name], state[2][name]) for name in state[0])


def test_probing_leaves_the_callers_generator_alone(spoken):
    representation = Toy()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fitted(spoken, "label:mood", representation)
    assert torch.rand(1) == expected


def test_mixing_weights_learn_and_the_frozen_rest_does_not(spoken):
    probe = phone_probe(read="mix").train()
    loss = probe(batch_of(spoken[:3]), 0.0, Draw(0))
    loss.mean.backward()
    assert probe.mix.logits.grad.abs().min() > 0
    assert all(parameter.grad is None for parameter in probe.representation.parameters())
    assert not any(parameter.requires_grad for parameter in probe.representation.parameters())
    assert loss.weight == sum(round(each.seconds * 100) for each in spoken[:3])


def test_frozen_stays_in_evaluation_mode():
    probe = phone_probe().train()
    assert probe.head.training and not probe.representation.training and not probe.representation.dropout.training
    tuned = phone_probe(tune="all").train()
    assert tuned.representation.training


def test_a_one_hot_mixture_is_the_last_layer():
    hidden = Hidden(tuple(torch.randn(2, 5, 4) for _ in range(3)), torch.tensor([5, 3]))
    mix, last = Mix("mix", 3, 4), Mix("last", 3, 4)
    with torch.no_grad():
        mix.logits.copy_(torch.tensor([-200.0, -200.0, 0.0]))
    torch.testing.assert_close(mix(mix.take(hidden)).standardised, last(last.take(hidden)).standardised)
    assert mix.weights.sum() == 1


@pytest.mark.parametrize("read", ["last", "mix"])
def test_training_rows_come_out_standardised_whatever_the_weights(read):
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(3, 4000, 6, generator=generator) * torch.tensor([0.1, 1.0, 10.0])[:, None, None] + 3
    rows[..., 5] = 2.0  # constant
    mix = Mix(read, 3, 6)
    rows = rows if read == "mix" else rows[:1]
    mix.fit(rows)
    with torch.no_grad():
        mix.logits.add_(torch.randn(len(rows), generator=generator))
    out = mix(rows[:, None]).standardised[0]
    torch.testing.assert_close(out.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(out[:, :5].std(0), torch.ones(5), atol=1e-3, rtol=0)
    assert out[:, 5].abs().max() < 1e-2


def test_raw_weights_may_leave_the_simplex():
    mix = Mix("mix", 3, 4, weighing="raw")
    torch.testing.assert_close(mix.weights, torch.full((3,), 1 / 3))
    with torch.no_grad():
        mix.logits.copy_(torch.tensor([2.0, -1.0, 0.5]))
    stack = torch.randn(3, 2, 5, 4)
    torch.testing.assert_close(mix(stack).values, 2 * stack[0] - stack[1] + 0.5 * stack[2])
    assert mix.weights.requires_grad and not Mix("last", 3, 4, weighing="raw").logits.requires_grad


def test_a_mean_learns_nothing_and_is_the_average():
    mix, stack = Mix("mix", 3, 4, weighing="mean"), torch.randn(3, 2, 5, 4)
    assert not list(mix.parameters()) and mix.weights.tolist() == pytest.approx([1 / 3] * 3)
    torch.testing.assert_close(mix(stack).values, stack.mean(0))


def test_a_mix_may_leave_out_the_projected_input():
    mix = Mix("mix", 3, 4, lowest=1)
    assert mix.layers == (1, 2) and mix.weights.tolist() == [0.5, 0.5]
    assert Mix("last", 3, 4, lowest=1).layers == (2,) and Mix("layer:0", 3, 4, lowest=1).layers == (0,)
    with pytest.raises(
        ConfigError, match=r"probe\.lowest: 3, expected 0 to 2, the layers of this representation; lower"
    ):
        Mix("mix", 3, 4, lowest=3)


@pytest.mark.parametrize(("weights", "lowest"), [("softmax", 0), ("raw", 1), ("mean", 0)])
def test_stored_mixes_come_back(spoken, tmp_path, weights, lowest):
    result = fitted(spoken, read="mix", weights=weights, lowest=lowest, seeds=1)
    layers = [layer["layer"] for layer in result.row["layers"]]
    found = [layer["weight"] for layer in result.row["layers"]]
    assert (result.row["weights"], result.row["lowest"], layers) == (weights, lowest, list(range(lowest, 3)))
    assert result.row["value"] > 0.99 and (sum(found) == pytest.approx(1)) == (weights != "raw")
    save_probe(result.probe, tmp_path, "toy")
    card = json.loads((tmp_path / "probe.json").read_text())
    if weights == "softmax":  # as stored before there was a choice
        del card["probe"]["weights"], card["probe"]["lowest"]
        (tmp_path / "probe.json").write_text(json.dumps(card))
    again = load_probe(tmp_path, lambda name: Toy())
    torch.testing.assert_close(again.mix.weights, result.probe.mix.weights, rtol=0, atol=0)


@pytest.mark.parametrize(("weights", "factors"), [("softmax", (1, 10)), ("raw", (1, 1)), ("mean", (1,))])
def test_raw_weights_learn_at_the_rate_of_the_head(spoken, optimisers, weights, factors):
    fitted(spoken, read="mix", weights=weights, seeds=1)
    rates = [[group["rate"] for group in groups if group["params"]] for groups in optimisers]
    assert rates == [[pytest.approx(rate * factor) for factor in factors] for rate in QUICK.learning_rates]


def test_normalised_layers_have_one_scale():
    hidden = Hidden(tuple(torch.randn(1, 7, 16) * scale for scale in (0.1, 50.0)), torch.tensor([7]))
    stack = Mix("mix", 2, 16, normalise=True).take(hidden)
    torch.testing.assert_close(stack.std(-1, correction=0), torch.ones(2, 1, 7), atol=1e-3, rtol=0)


def test_a_heads_first_layer_absorbs_the_standardisation():
    head = build_head("mlp1", 4, 3, "frame")
    mixed = Mixed(torch.randn(2, 5, 4), torch.rand(4) + 0.5, torch.randn(4))
    torch.testing.assert_close(head(mixed, torch.tensor([5, 5])), head.layers(mixed.standardised))


@pytest.mark.parametrize("head", ["linear", "mlp1", "mlp2", "gru"])
def test_padding_does_not_reach_an_utterances_logits(head, spoken):
    probe = Probe(Toy(), Label(Label.Config(), ("a", "b", "c")), Probe.Config(read="mix", head=head)).eval()
    waves = [load(each) for each in spoken[:4]]
    with torch.no_grad():
        together, _ = probe.guess(Waves.pad(waves))
        alone = torch.cat([probe.guess(Waves.pad([wave]))[0] for wave in waves])
    assert together.shape == (4, 1, 3)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_padding_does_not_reach_the_loss(spoken):
    probe = phone_probe(read="mix").eval()
    together = probe(batch_of(spoken[:4]), 0.0, Draw(0))
    alone = [probe(batch_of([each]), 0.0, Draw(0)) for each in spoken[:4]]
    torch.testing.assert_close(together.sum, sum(loss.sum for loss in alone), atol=1e-3, rtol=1e-6)
    assert together.weight == sum(loss.weight for loss in alone)


@pytest.mark.parametrize(("task", "head"), [("phone", "mlp1"), ("label:mood", "gru"), ("label:mood", "linear")])
def test_cached_states_give_the_same_loss(task, head, spoken):
    task = open_task(task).learn(spoken)
    probe = Probe(Toy(), task, Probe.Config(read="mix", head=head)).eval()
    live = probe(batch_of(spoken[:6]), 0.0, Draw(0))
    for seed in (None, 3):
        pieces = list(cache(probe, spoken[:6], seed).pieces(5, torch.Generator().manual_seed(0) if seed else None))
        losses = [task.score(probe.answer(piece.stack, piece.lengths), piece.targets) for piece in pieces]
        torch.testing.assert_close(sum(loss.sum for loss in losses), live.sum, atol=1e-3, rtol=1e-5)
        assert sum(loss.weight for loss in losses) == live.weight


def test_shuffled_pieces_visit_every_row_once(spoken):
    rows = cache(Probe(Toy(), Phone(Phone.Config(), PHONES), Probe.Config()), spoken[:3], 1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        assert sum(piece.owners.numel() for piece in rows.pieces(64, generator)) == len(rows.owners)


def test_published_heads_have_their_sizes():
    sizes = {
        kind: sum(p.numel() for p in build_head(kind, 768, 72, "frame").parameters())
        for kind in ("linear", "mlp1", "mlp2")
    }
    assert sizes == {"linear": 769 * 72, "mlp1": 769 * 768 + 769 * 72, "mlp2": 2 * 769 * 768 + 769 * 72}
    assert build_head("gru", 768, 63, "utterance").gru.hidden_size == 32


def test_a_recurrent_head_does_not_answer_for_frames():
    with pytest.raises(ConfigError, match=r"probe\.head: gru gives one answer per utterance"):
        build_head("gru", 4, 3, "frame")


def test_missing_layers_are_named(spoken):
    assert fitted(spoken, read="layer:2", seeds=1).row["layers"][0]["layer"] == 2
    with pytest.raises(ConfigError, match=r"probe\.read: layer 9, expected 0 to 2"):
        fitted(spoken, read="layer:9")


def test_a_class_only_in_test_is_refused_or_dropped(spoken):
    strange = replace(spoken[35], alignment=((0.0, 0.3, "zh"), *spoken[35].alignment[3:]))
    test = [*spoken[32:35], strange, *spoken[36:]]
    with pytest.raises(DataError, match=r"task phone: 1 classes occur in test but not in train: 'zh' \(1 utterances\)"):
        fit_probe(Toy(), open_task("phone"), spoken[:24], spoken[24:32], test, config())
    quick = config(seeds=1).model_copy(update={"unseen": "drop"})
    result = fit_probe(Toy(), open_task("phone"), spoken[:24], spoken[24:32], test, quick)
    assert result.row["unseen"] == {"zh": 1}
    assert result.row["n"] == 8 and "zh" not in result.probe.task.outputs


def test_a_known_class_table_keeps_the_test_set(spoken):
    task = open_task("phone").learn(spoken)
    few = [
        replace(each, alignment=tuple(s for s in each.alignment if s[2] != "p3") or ((0, 0.1, "p1"),))
        for each in spoken[:24]
    ]
    full, fewer = (
        fit_probe(Toy(), task, train, spoken[24:32], spoken[32:], config(seeds=1)) for train in (spoken[:24], few)
    )
    assert full.row["points"] == fewer.row["points"] and full.row["classes"] == fewer.row["classes"] == CODES
    assert fewer.row["value"] < full.row["value"]


def test_one_speaker_only(spoken):
    alone = [replace(each, speaker="x") for each in spoken]
    with pytest.raises(DataError, match=r"one class only \('x'\)"):
        fitted(alone, "label:speaker")


def test_empty_sets_say_why(spoken):
    bare = [replace(each, alignment=None) for each in spoken]
    with pytest.raises(DataError, match=r"task phone: the test set has no usable utterance \(8 no label\)"):
        fit_probe(Toy(), open_task("phone"), spoken[:24], spoken[24:32], bare[32:], config())


def test_unusable_utterances_are_counted(spoken):
    short, bare = replace(spoken[1], seconds=0.005), replace(spoken[2], alignment=())
    kept, dropped = usable([spoken[0], short, bare], open_task("phone"), Toy())
    assert kept == (spoken[0],)
    assert dropped == {"shorter than 0.010 s": ("u001",), "no label": ("u002",)}


def tuned(**live):
    base = config(seeds=1, tune="all")
    return base.model_copy(
        update={"live": base.live.model_copy(update={"learning_rates": (3e-2,), "seconds": 3.0, **live})}
    )


def test_fine_tuning_moves_a_copy_of_the_encoder(spoken):
    representation = Toy()
    before = copy.deepcopy(representation.state_dict())
    result = fit_probe(representation, open_task("phone"), spoken[:24], spoken[24:32], spoken[32:], tuned(epochs=8))
    assert all(torch.equal(value, before[name]) for name, value in representation.state_dict().items())
    assert not torch.equal(result.probe.representation.map.weight, before["map.weight"])
    assert result.row["value"] > 0.9 and result.row["tune"] == "all"


def test_fine_tuning_counts_its_epochs_exactly(spoken, monkeypatch):
    trained = []
    forward = Probe.forward
    monkeypatch.setattr(
        Probe, "forward", lambda self, batch, *rest: trained.extend(batch.utterances) or forward(self, batch, *rest)
    )
    fit_probe(Toy(), open_task("phone"), spoken[:24], spoken[24:32], spoken[32:], tuned())
    assert sorted(each.id for each in trained) == sorted(each.id for each in spoken[:24] * 2)


@pytest.mark.parametrize("way", ["frozen", "tuned"])
def test_a_row_says_what_dev_said_of_every_rate(spoken, way):
    base = config(seeds=2) if way == "frozen" else tuned(learning_rates=(1e-4, 3e-2), epochs=4)
    row = fit_probe(Toy(), open_task("phone"), spoken[:24], spoken[24:32], spoken[32:], base).row
    assert list(row["sweep"]) == (["0.01", "0.1"] if way == "frozen" else ["0.0001", "0.03"])
    assert row["sweep"][f"{row['learning_rate']:g}"] == max(row["sweep"].values()) and json.dumps(row)
    assert row["training"] == ("frozen" if way == "frozen" else "live") and row["dev"][0] == max(row["sweep"].values())


# States that do not fit in memory


@pytest.fixture
def optimisers(monkeypatch):
    """The parameter groups of every optimiser that is made."""
    made = []
    monkeypatch.setattr(torch.optim, "AdamW", lambda groups, **how: made.append(groups) or AdamW(groups, **how))
    return made


def noisy(spoken):
    random = np.random.default_rng(0)

    def heard(name):
        return f"p{random.integers(CODES)}" if random.random() < 0.4 else name

    return [
        replace(each, alignment=tuple((start, end, heard(name)) for start, end, name in each.alignment))
        for each in spoken
    ]


def at(memory, spoken, sets, **probe):
    """Fit with room for so many times the states there are; count rows of updates, and learning rates as they fall."""
    task, base = open_task("phone").learn(spoken), config(**probe)
    everything = [each for chosen in sets for each in chosen]
    needed = bytes_needed(Probe(Toy(), task, base.probe), everything) / 2**30
    rows, rates = [], []
    answer, step = Probe.answer, AdamW.step

    def watched(self, stack, lengths):
        rows.extend([stack.shape[2]] if self.training else [])
        return answer(self, stack, lengths)

    def stepped(self, *given):
        rates.append([group["lr"] for group in self.param_groups])
        return step(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Probe, "answer", watched)
        patch.setattr(AdamW, "step", stepped)
        result = fit_probe(Toy(), task, *sets, base.model_copy(update={"memory": memory * needed}))
    return result, rows, rates


def test_just_over_memory_a_head_is_trained_as_just_under_it(spoken, optimisers):
    given = noisy(spoken)
    sets = given[:24], given[24:32], given[32:]
    under, rows, rates = at(1.000001, given, sets, read="mix", seeds=1)
    groups = [[(len(each["params"]), each["rate"]) for each in made] for made in optimisers]
    optimisers.clear()
    over, parts, lower = at(0.999999, given, sets, read="mix", seeds=1)
    assert (under.row["training"], over.row["training"]) == ("frozen", "streamed")
    assert [[(len(each["params"]), each["rate"]) for each in made] for made in optimisers] == groups
    assert set(parts) == {QUICK.rows} == {max(rows)}  # every update has its rows; a kept set's ends are shorter
    longest = min(len(rates), len(lower), QUICK.updates)  # patience may end one of the trainings earlier
    assert rates[:longest] == lower[:longest] and len(groups) == 2 and longest >= QUICK.updates // 2
    assert list(under.row["sweep"]) == list(over.row["sweep"])
    # Other draws of the same rows may tell 895 noisy test frames no better than their standard error, 0.016.
    assert over.row["value"] == pytest.approx(under.row["value"], abs=0.016) and 0.5 < under.row["value"] < 0.75
    assert over.row.keys() == under.row.keys() and over.row["layers"] != []


def test_measuring_in_parts_changes_nothing(spoken):
    sets = spoken[:2], spoken[2:30], spoken[30:]  # the training set is small enough to be kept
    (under, *_), (over, *_) = (at(memory, spoken, sets, read="mix", seeds=1) for memory in (1.0001, 0.9999))
    assert over.row == {**under.row, "training": "streamed"} and under.row["training"] == "frozen"
    assert all(map(torch.equal, under.probe.weights().values(), over.probe.weights().values()))


def test_a_pass_takes_a_share_of_the_frames_of_every_utterance(spoken):
    probe = phone_probe()
    frames = {each.id: round(100 * each.seconds) for each in spoken[:24]}
    states = hold(probe, spoken[:24], Demand(room=8e3, piece=50, guesses=400))
    assert isinstance(states, Parts) and states.count == 2 and states.share == 1.1 * 400 / sum(frames.values())
    parts = list(states.once())
    taken = torch.cat([part.owners for part in parts]).bincount(minlength=24)
    assert all(4 * 8 * len(part.owners) < 1.5 * 8_000 for part in parts) and (taken > 0).all()
    assert 400 < taken.sum() < 480 and not set(parts[0].owners.tolist()) & set(parts[1].owners.tolist())
    for part in parts:  # each row still is what its utterance says
        answers = [int(part.targets.answers[row, 0]) for row in range(len(part.owners))]
        assert answers == part.stack[-1].argmax(-1).tolist()
    one, same, other = (next(states.forever(50, seed)).stack for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other) and one.shape == (1, 1, 50, 8)
    few = states.only([3, 5])
    assert set(next(few.once()).owners.tolist()) == {3, 5} and isinstance(few, Whole)


def test_what_does_not_fit_is_heard_once_a_training_or_as_often_as_it_is_read(spoken):
    frames, train = sum(round(100 * each.seconds) for each in spoken[:24]), spoken[:24]
    few, many = QUICK.model_copy(update={"updates": 1}), QUICK.model_copy(update={"updates": 100})
    assert passes(phone_probe(), train, few) == 1 and passes(phone_probe(), train, many) == 100 * 256 / frames
    recurrent = Probe(Toy(), Label(Label.Config(), ("a", "b", "c")), Probe.Config(head="gru"))
    assert passes(recurrent, train, few.model_copy(update={"sequences": 12})) == 0.5


def test_no_pass_without_end_where_nothing_can_be_read(spoken):
    states = hold(phone_probe(), broken(spoken, *range(8))[:8], Demand(room=8e3, piece=10), Quarantine(budget=1.0))
    with pytest.raises(DataError, match=r"corpus: none of 8 utterances can be read, expected audio; look at the first"):
        next(states.forever(10, 0))


# Files that cannot be read


def broken(spoken, *places):
    lost = [replace(each, path=f"/none/{each.id}.wav") for each in spoken]
    return [lost[place] if place in places else each for place, each in enumerate(spoken)]


def quick(way):
    base = tuned() if way == "tuned" else config(seeds=1)
    return base.model_copy(update={"memory": 1e-9 if way == "streamed" else base.memory})


@pytest.mark.parametrize("way", ["frozen", "streamed", "tuned"])
@pytest.mark.parametrize("place", [3, 26, 36], ids=["train", "dev", "test"])
def test_one_file_that_cannot_be_read_is_named_and_left_out(spoken, way, place, tmp_path):
    given, list_of_it = broken(spoken, place), tmp_path / "quarantine.jsonl"
    parts = given[:24], given[24:32], given[32:]
    result = fit_probe(Toy(), open_task("phone"), *parts, quick(way), quarantine=Quarantine(list_of_it))
    assert result.dropped == {"cannot be read": (spoken[place].id,)}
    assert result.row["dropped"] == {"cannot be read": 1} and sum(result.row["utterances"].values()) == 39
    assert result.row["n"] == (7 if place == 36 else 8) and spoken[place].id not in result.scores.ids
    assert "no such file" in list_of_it.read_text()


@pytest.mark.parametrize("way", ["frozen", "tuned"])
def test_more_than_one_per_cent_stop_a_probe(spoken, way):
    given = broken(spoken, 3, 36)
    with pytest.raises(DataError, match=r"quarantine: 2 of 40 files cannot be used, expected at most 1 \(1.0%\); mend"):
        fit_probe(Toy(), open_task("phone"), given[:24], given[24:32], given[32:], quick(way))


def test_a_set_of_which_nothing_can_be_read_is_refused(spoken):
    given = broken(spoken, *range(32, 40))
    with pytest.raises(DataError, match=r"corpus: none of 8 utterances can be read, expected audio; look at the first"):
        fit_probe(Toy(), open_task("phone"), given[:24], given[24:32], given[32:], quick("frozen"))


@pytest.mark.parametrize("way", ["frozen", "streamed", "tuned"])
@pytest.mark.parametrize(("begin", "end"), [(0, 24), (32, 40)], ids=["train", "test"])
def test_labels_timed_beyond_the_audio_are_refused(spoken, way, begin, end):
    given = list(spoken)
    for place in range(begin, end):
        times = tuple((start + 60, until + 60, name) for start, until, name in spoken[place].alignment)
        given[place] = replace(spoken[place], alignment=times)
    said = rf"corpus: no label lies within what can be read of {end - begin} utterances, expected one at least; write"
    with pytest.raises(DataError, match=said):
        fit_probe(Toy(), open_task("phone"), given[:24], given[24:32], given[32:], quick(way))


def test_no_pass_without_end_over_a_few_that_cannot_be_read(spoken):
    states = hold(phone_probe(), broken(spoken, 3)[:8], Demand(room=1e9), Quarantine(budget=1.0))
    with pytest.raises(DataError, match=r"corpus: no label lies within what can be read of 1 utterances"):
        states.only([3])


@pytest.mark.parametrize(("utterances", "test"), [(10, 0.4), (160, 0.4), (400, 0.2), (800, 0.1), (100_000, 0.1)])
def test_small_corpora_are_tested_on_more(utterances, test):
    parts = shares(utterances)
    assert parts["test"] == pytest.approx(test)
    assert parts["dev"] == 0.1 and sum(parts.values()) == pytest.approx(1)
