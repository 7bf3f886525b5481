import copy
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
from mockingjay.downstream.features import cache, load
from mockingjay.downstream.fit import Config
from mockingjay.downstream.frozen import FrozenTraining
from mockingjay.downstream.heads import build_head
from mockingjay.downstream.mix import Mix, Mixed
from mockingjay.downstream.partition import shares, usable
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.tasks import Label, Phone

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


def test_states_beyond_memory_are_computed_anew(spoken):
    base = config(seeds=1)
    live = base.live.model_copy(update={"epochs": 6, "seconds": 3.0})
    small = base.model_copy(update={"memory": 1e-9, "live": live})
    result = fit_probe(Toy(), open_task("phone"), spoken[:24], spoken[24:32], spoken[32:], small)
    assert result.row["value"] > 0.9 and result.row["tune"] == "head"


# Files that cannot be read


def broken(spoken, *places):
    lost = [replace(each, path=f"/none/{each.id}.wav") for each in spoken]
    return [lost[place] if place in places else each for place, each in enumerate(spoken)]


def quick(way):
    base = tuned() if way == "tuned" else config(seeds=1)
    return base.model_copy(update={"memory": 1e-9 if way == "live" else base.memory})


@pytest.mark.parametrize("way", ["frozen", "live", "tuned"])
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


@pytest.mark.parametrize(("utterances", "test"), [(10, 0.4), (160, 0.4), (400, 0.2), (800, 0.1), (100_000, 0.1)])
def test_small_corpora_are_tested_on_more(utterances, test):
    parts = shares(utterances)
    assert parts["test"] == pytest.approx(test)
    assert parts["dev"] == 0.1 and sum(parts.values()) == pytest.approx(1)
