import json
import math
import re

import numpy as np
import pytest
import torch
from browser import chromium, visit
from command import refuses, works
from toy_representation import speak

from mockingjay.core.draw import address
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames, Grid, Utterance, Waves
from mockingjay.data.corpora import open_corpus
from mockingjay.data.manifest import Corpus, write_manifest
from mockingjay.data.quarantine import Quarantine
from mockingjay.downstream import fit
from mockingjay.downstream.frozen import FrozenTraining
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.scores import Scores, bounded
from mockingjay.downstream.tasks.phone import Phone
from mockingjay.encoders.attention import Attention, limit, prune, watch
from mockingjay.encoders.contexts.shared import SharedTransformer
from mockingjay.encoders.contexts.transformer import Transformer
from mockingjay.open import open_representation
from mockingjay.report import attention_report
from mockingjay.settings import settings
from mockingjay.studies.attention import heads, layers, material, passes, plan, pruning, relations, segments, summaries
from mockingjay.studies.attention import study as library

pytestmark = pytest.mark.drill  # whole commands

ROW = {"representation", "task", "metric", "value", "ci95", "n", "seed", "data"}
T = 8
UNIFORM, IDENTITY, COLUMN = torch.full((T, T), 1 / T), torch.eye(T), torch.eye(T)[2].expand(T, T)
BLOCKS = torch.block_diag(torch.full((4, 4), 0.25), torch.full((4, 4), 0.25))


def test_measures_of_known_maps():
    found = heads.measure(torch.stack([UNIFORM, IDENTITY, COLUMN, BLOCKS]).double())
    expected = [
        [2.079442, 0, 0, 1.386294],
        [-2.079442, -2.079442, 0, -2.079442],
        [-0.328125, 0, -0.28125, -0.15625],
    ]
    torch.testing.assert_close(found, torch.tensor(expected).double(), atol=5e-7, rtol=0)
    each = torch.stack([heads.measure(map) for map in (UNIFORM, IDENTITY, COLUMN, BLOCKS)], 1)
    torch.testing.assert_close(each.double(), found, atol=1e-5, rtol=0)
    assert heads.categories(heads.measure(torch.stack([UNIFORM, COLUMN, IDENTITY]))).tolist() == [0, 1, 2]
    assert heads.weight(torch.stack([UNIFORM, IDENTITY, BLOCKS])).tolist() == [1 / T, 1, 0.25]


def test_categories_go_by_rank_and_orders_begin_with_the_highest():
    values = torch.tensor([[3.0, 2, 1, 0], [0, 9, 8, 7], [-5, -6, -4, -3]])
    assert heads.categories(values).tolist() == [0, 1, 1, 2]
    values = torch.cat([values, torch.tensor([[0.2, 0.9, 0.1, 0.5]])])
    orders = heads.orders(values, torch.tensor([0.3, 0.1, 0.2, 0.4]), randoms=2, seed=0)
    assert orders["globalness"] == (0, 1, 2, 3) and orders["diagonality"] == (3, 2, 0, 1)
    assert orders["weight"] == (1, 3, 0, 2) and orders["weakest output"] == (1, 2, 0, 3)
    assert orders["random 1"] != orders["random 2"] and sorted(orders["random 2"]) == [0, 1, 2, 3]
    assert heads.by_layer((5, 0, 4), 4) == {0: [0], 1: [0, 1]}


def test_relations_of_uniform_attention_are_chance_and_of_the_identity_the_same_phone():
    phones = torch.eye(4)[torch.tensor([0, 0, 1, 2, 1, 1, 3, 0])].double()
    phones = torch.cat([phones, torch.zeros(T, 1)], 1)  # a phone that does not occur
    attended, chance = relations.relate(torch.stack([UNIFORM, IDENTITY]).double(), phones)
    assert attended.sum((-1, -2)).tolist() == pytest.approx([1, 1]) and float(chance.sum()) == pytest.approx(1)
    uniform, same = relations.relation_map(attended, chance)
    assert uniform[:4, :4].abs().max() < 1e-12 and uniform[4].isnan().all() and uniform[:, 4].isnan().all()
    shares = phones.mean(0)[:4]
    torch.testing.assert_close(same[:4, :4].diagonal(), 1 / shares - 1)
    assert (same[:4, :4][~torch.eye(4, dtype=torch.bool)] == -1).all()
    assert relations.concentration(same)[:4].tolist() == pytest.approx(((1 / shares - 4) / 4).tolist())


def test_shares_of_stacked_steps_are_attention_repeated_for_each_frame():
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(5, 5, generator=generator).double()
    maps = maps / maps.sum(1, keepdim=True)
    frames = torch.eye(3)[torch.randint(3, (15,), generator=generator)].double()
    repeated = (maps / 3).repeat_interleave(3, 0).repeat_interleave(3, 1)
    stacked = relations.relate(maps, frames.view(5, 3, 3).mean(1))
    for one, other in zip(stacked, relations.relate(repeated, frames)):
        torch.testing.assert_close(one, other)


def test_labels_beyond_what_was_read_fall_on_no_step():
    task = Phone(Phone.Config(), ("a", "b"))
    utterance = Utterance("u", "/u.wav", 1.0, alignment=((0.0, 0.1, "a"), (0.1, 1.0, "b")))
    shares = relations.shares(task, utterance, Grid(480, 160.0), 10)
    assert shares.shape == (10, 2) and shares.sum(1).tolist() == pytest.approx([1] * 10)
    assert shares[:3, 0].tolist() == [1, 1, 1] and 0 < shares[3, 0] < 1 and (shares[4:, 1] == 1).all()


def test_r_value():
    found = segments.scores(np.array([[10, 10, 10], [8, 10, 8], [10, 10, 12.0]]))
    assert found[:, 0].tolist() == pytest.approx([1.0, 0.858579, 0.829289], abs=5e-7)
    assert found[1, 1:].tolist() == pytest.approx([16 / 18, 1.0, 0.8])


def test_hits_are_counted_once():
    true = np.array([0.10, 0.11, 0.5])
    assert segments.count(np.array([0.105]), true).tolist() == [1, 3, 1]
    assert segments.count(np.array([0.09, 0.12, 0.13, 0.52]), true).tolist() == [3, 3, 4]
    assert segments.count(np.array([0.5201]), true).tolist() == [0, 3, 1]


def naive_curve(above):
    time = len(above)
    joint = np.array(
        [[i <= j and all(above[i, k] or k == i for k in range(i, j + 1)) for j in range(time)] for i in range(time)]
    )
    return joint, [sum(joint[t - k, t + k] for k in range(min(t, time - 1 - t) + 1)) for t in range(time)]


def test_the_curve_is_the_formula():
    above = np.random.default_rng(0).random((11, 11)) > 0.3
    joint, curve = naive_curve(above)
    assert (segments._joint(above) == joint).all() and segments.spans(joint).tolist() == curve
    assert segments.minima(np.array([3, 1, 1, 2, 2, 0, 4, 4, 3])).tolist() == [1.5, 5]


@pytest.mark.parametrize("hop", [160, 480])
def test_boundaries_between_stretches_that_are_alike(hop):
    codes = torch.arange(4).repeat_interleave(6)
    vectors = torch.nn.functional.one_hot(codes).float() + 0.01 * torch.randn(24, 4)
    grid = Grid(hop, hop / 2)
    found = segments.boundaries(segments.distances(vectors), segments.Setting(0.5, 1.0), grid)
    assert found.tolist() == pytest.approx([6 * hop / 16_000, 12 * hop / 16_000, 18 * hop / 16_000], abs=0.011)
    utterance = Utterance("u", "/u", 0.5, alignment=((0.0, 0.2, "a"), (0.2, 0.4, "b"), (0.4, 0.5, "a")))
    assert segments.reference(utterance).tolist() == [0.2, 0.4]
    assert segments.uniform(4.0, 1.0).tolist() == [0.125, 0.375, 0.625, 0.875]


def test_cka_of_the_same_turned_and_unrelated():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 6, generator=generator)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator))
    grams = layers.gram(torch.stack([rows, 3 * rows @ turn + 1, torch.randn(500, 6, generator=generator)]))
    found = layers.cka(grams)
    assert float(found[0, 1]) == pytest.approx(1, abs=1e-6) and float(found[0, 2]) < 0.05
    direct = rows - rows.mean(0)
    other = rows[:, :2].tanh().repeat(1, 3)
    centred = (other - other.mean(0)).double()
    cross = (centred.T @ direct.double()).norm() ** 2
    wanted = cross / ((direct.double().T @ direct.double()).norm() * (centred.T @ centred).norm())
    assert float(layers.cka(layers.gram(torch.stack([rows, other])))[0, 1]) == pytest.approx(float(wanted), abs=1e-6)
    low, high = layers.cka_interval(grams, torch.arange(500) // 25, seed=0, draws=20)
    assert low[0, 1] == pytest.approx(1, abs=1e-6) and low[0, 2] <= high[0, 2] < 0.2


def test_weights_are_repetitions():
    rows = torch.randn(2, 6, 3)
    twice = torch.cat([rows, rows[:, :2]], 1)
    weights = torch.tensor([2.0, 2, 1, 1, 1, 1])
    torch.testing.assert_close(layers.cka(layers.gram(rows), weights), layers.cka(layers.gram(twice)))


def test_divergence_of_layers():
    apart = torch.stack([IDENTITY, UNIFORM, torch.roll(IDENTITY, 1, 0)])[:, None].repeat(1, 2, 1, 1)
    found = layers.divergence(apart)
    assert float(found[0, 2]) == pytest.approx(math.log(2), abs=1e-6) and (found.diagonal() < 1e-6).all()
    torch.testing.assert_close(found, found.T)


def test_noise_has_its_level():
    wave = torch.sin(torch.arange(16_000) / 20)
    noise = layers.with_noise(wave, 20.0, 0, "u") - wave
    assert float(noise.square().mean() / wave.square().mean()) == pytest.approx(0.01, rel=1e-4)
    assert torch.equal(layers.with_noise(wave, 20.0, 0, "u"), layers.with_noise(wave, 20.0, 0, "u"))


def test_the_span_after_the_softmax_only_takes_weight_away():
    layer, inputs = Attention(8, 2, 0.0).eval(), torch.randn(1, 9, 8)
    with watch(layer) as whole:
        layer(inputs, None)
    with limit(layer, 2, "after"), watch(layer) as seen_:
        cut = layer(inputs, None)
    with limit(layer, 2, "before"), watch(layer) as before:
        other = layer(inputs, None)
    near = (torch.arange(9)[:, None] - torch.arange(9)).abs() <= 2
    torch.testing.assert_close(seen_[0], whole[0] * near)
    assert (before[0][..., ~near] == 0).all() and not torch.allclose(cut, other)
    value = layer.query_key_value(inputs).view(1, 9, 3, 2, 4).transpose(1, 3)[:, :, 2]
    mixed = (whole[0] * near) @ value
    torch.testing.assert_close(cut, layer.out(mixed.transpose(1, 2).reshape(1, 9, 8)))
    torch.testing.assert_close(layer(inputs, None), layer(inputs, None))
    with limit(layer, 9, "after"):
        torch.testing.assert_close(layer(inputs, None), layer.out((whole[0] @ value).transpose(1, 2).reshape(1, 9, 8)))


@pytest.mark.parametrize("kind", [Transformer, SharedTransformer])
def test_removing_a_head_of_one_layer_takes_its_strength_from_that_layer_alone(kind):
    context = kind(kind.Config(layers=3, dim=8, feedforward=16, heads=2, dropout=0.0, attention_dropout=0.0), 5).eval()
    with torch.no_grad():
        for parameter in context.parameters():  # as initialised, heads add next to nothing
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)), alpha=0.5)
    frames = Frames(torch.randn(1, 6, 5), torch.tensor([6]))
    with torch.no_grad(), passes.strengths(context) as found:
        whole = context(frames).layers
    with torch.no_grad(), prune(context, {1: [1]}):
        without = context(frames).layers
    first, second, third = context.blocks if kind is Transformer else [context.block] * 3
    torch.testing.assert_close(without[1], first(whole[0], None))
    kept, taken = by_hand(second.attention, whole[1], head=0), by_hand(second.attention, whole[1], head=1)
    torch.testing.assert_close(kept + taken + second.attention.out.bias, second.attention(whole[1], None))
    inputs = second.attention_norm(whole[1] + kept + second.attention.out.bias)
    narrow = second.narrow(torch.nn.functional.gelu(second.widen(inputs)))
    torch.testing.assert_close(without[2], second.feedforward_norm(inputs + narrow))
    torch.testing.assert_close(without[3], third(without[2], None))
    assert (without[2] - whole[2]).abs().max() > 0.1
    torch.testing.assert_close(found[1], torch.stack([each.norm(dim=-1).mean() for each in (kept, taken)]))
    assert len(found) == 3 and not torch.allclose(found[1], found[2])


def by_hand(attention, inputs, head):
    """What one of two heads adds to [1, time, 8], without the bias."""
    with torch.no_grad():
        query, key, value = attention.query_key_value(inputs)[0].view(-1, 3, 2, 4)[:, :, head].unbind(1)
        mixed = (query @ key.T / 2).softmax(-1) @ value
        return (mixed @ attention.out.weight[:, 4 * head : 4 * head + 4].T)[None]


def test_areas_are_paired_and_signed():
    def along(values):
        return [{"phone": Scores(("a", "b"), np.array([value, value], dtype=float), np.ones(2))} for value in values]

    better = pruning.area(along([1, 0.8, 0]), [along([1, 0.4, 0]), along([1, 0.6, 0])], [0.0, 0.5, 1.0], "phone", 0)
    assert better["value"] == pytest.approx(0.15) and better["verdict"] == "holds"
    assert pruning.levels(12, 5) == (0, 3, 6, 9, 12) and pruning.levels(2, 7) == (0, 1, 2)
    held = [[{pruning.HELD_OUT: point["phone"]} for point in along(v)] for v in ([1, 0.8, 0], [1, 0.5, 0])]
    assert pruning.area(held[0], held[1:], [0.0, 0.5, 1.0], pruning.HELD_OUT, 0)["verdict"] == "does not"
    low, high = bounded(np.array([[1.0, 2.0], [3.0, 2.0]]), lambda sums: sums / 2)
    assert low[0] < 2 < high[0] and low[1] == high[1] == 2
    scores = Scores(tuple(map(str, range(30))), np.linspace(0, 1, 30), np.ones(30))
    (point,) = pruning.curve([{"phone": scores}], "phone", 7)
    assert point["ci95"] == list(scores.interval(seed=7)) != list(scores.interval())


def test_only_orders_that_are_better_than_random_are_marked():
    cells = {}
    for verdict, value in {"holds": 0.2, "undecided": 0.05, "does not": -0.2}.items():
        area = {"value": value, "ci95": [value - 0.1, value + 0.1], "verdict": verdict}
        cells[verdict] = attention_report._area(area, "phone")
    assert [verdict for verdict, cell in cells.items() if cell.best] == ["holds"]
    assert (cells["does not"].text, cells["does not"].note) == ("-20.0", "[-30.0, -10.0]")


def test_the_plan_follows_the_time():
    fixed = {"hearing": 0.02, "utterance": 3.0, "fitting": 1.0, "tasks": 2, "depth": 4}
    rich, poor = plan.allot(1800.0, **fixed), plan.allot(20.0, **fixed)
    assert rich.steps == 7 and rich.asked > 400 and rich.looked == 120 and len(rich.spans) == 8
    assert poor.steps == 3 and poor.asked == plan.TRIED and poor.randoms == 1
    assert plan.Plan.read(json.loads(json.dumps({**{f: getattr(rich, f) for f in rich.__slots__}}))) == rich


def test_the_published_widths():
    chosen = {width: settings("mockingjay", f"m{width}") for width in (3, 6, 9)}
    large = settings("mockingjay", "large")
    for width, each in chosen.items():
        assert each.objective.hide.width == width and each.objective.encoder.context.layers == 12
        assert each.objective.model_copy(update={"hide": large.objective.hide}) == large.objective


def spoken(counts):
    names = [name for name, count in counts.items() for _ in range(count)]
    return [
        Utterance(str(number), f"/{number}", 1.0, **{"speaker": name} if name else {})
        for number, name in enumerate(names)
    ]


def test_what_is_measured_is_not_tested():
    many = {f"speaker {number}": 20 for number in range(30)}
    for counts, sizes in (
        ({"a": 6, "b": 6, "c": 6, "d": 6}, (12, 12)),
        ({None: 24}, (12, 12)),
        ({"a": 22, "b": 2}, (12, 12)),  # one says nearly everything
        ({"a": 4}, (2, 2)),
        (many, (plan.LOOKED, 600 - plan.LOOKED)),
    ):
        unheard = spoken(counts)
        measured, tested = material.apart(unheard, seed=0)
        assert {each.id for each in measured} | {each.id for each in tested} == {each.id for each in unheard}
        assert (len(measured), len(tested)) == sizes
        if min(counts.values()) > 4 and len(counts) > 1:
            assert not {each.speaker for each in measured} & {each.speaker for each in tested}
    mixed = sorted(spoken({"a": 6, "b": 6, "c": 6, "d": 6, None: 1}), key=lambda each: address("looked", each.id))
    measured, tested = material.apart(mixed, seed=0)  # one without a speaker mixes no others
    assert not ({each.speaker for each in measured} & {each.speaker for each in tested}) - {None}


@pytest.fixture(scope="module")
def quick():
    """Fit probes in a moment, and few of them."""
    frozen = FrozenTraining.Config(learning_rates=(1e-2,), updates=4, rows=256, evaluations=1)
    probes = {
        name: fit.Config(probe=Probe.Config(read="last"), frozen=frozen, unseen="drop")
        for name in ("frame", "utterance")
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pruning, "PROBES", probes)
        patch.setattr(plan, "WEALTH", ((3, 1, (1,), 1),))
        patch.setattr(plan, "TRIED", 16)
        patch.setattr(library, "TRIED", 16)
        patch.setattr(summaries, "MOST_POINTS", 128)
        patch.setattr(summaries, "SHOWN", {10_000: 1})
        patch.setattr(segments, "SETTINGS", segments.SETTINGS[::5])
        patch.setattr(library, "CANDIDATES", 2)
        yield


def command(data, out, *names):
    return ("attention", *names, "--data", data, "--out", out, "--budget", "2s")


@pytest.fixture(scope="module")
def whole(trained, quick, tmp_path_factory):
    """Study the run on speech-like files of eight phones and four speakers that it has not heard."""
    folder = tmp_path_factory.mktemp("attention")
    (folder / "data").mkdir()
    write_manifest(folder / "data" / "manifest.jsonl", speak(folder / "data" / "audio", count=48))
    return folder / "out", folder / "data", works(*command(folder / "data", folder / "out", trained))


def test_everything_is_measured(whole, trained):
    out, _, said = whole
    rows = json.loads((out / "results.json").read_text())
    assert all(row.keys() >= ROW for row in rows) and {row["representation"] for row in rows} == {str(trained)}
    tasks = {row["task"] for row in rows}
    assert tasks >= {
        "attention head",
        "layer similarity",
        "phone relation",
        "speech segmentation",
        "white noise at 20 dB",
        "cost",
        "phone",
        "phone without heads",
        "held-out loss without heads",
        "removing heads",
        "label:speaker",
        "label:speaker within a span",
        "phone within a span",
    }
    assert {row["order"] for row in rows if row["task"] == "removing heads"} == {*heads.RANKED, "weakest output"}
    assert {row["metric"] for row in rows if row["task"] == "attention head"} == {*heads.RANKED}
    sources = {row["source"] for row in rows if row["metric"] == "R-value"}
    assert {source.split()[0] for source in sources} == {"head", "layer", "mfcc", "uniform"}
    for row in rows:
        if row["ci95"] is not None and row["metric"] != "linear CKA":
            assert row["ci95"][0] - 1e-6 <= row["value"] <= row["ci95"][1] + 1e-6, row
    where = {row["where"] for row in rows if row["task"] == "phone within a span"}
    assert where == {"before the softmax", "after the softmax"}
    depth = max(row["layer"] for row in rows if row["task"] == "phone")
    noise = [row["layer"] for row in rows if row["metric"] == "LNSR" and row["norm"] == "frobenius"]
    assert noise == ["input", *range(depth + 1)]
    assert "R-value" in said and "report: " in said
    text = (out / "report" / "index.html").read_text()
    n = {row["task"]: row["n"] for row in rows if row["task"] in ("phone", "label:speaker", "attention head")}
    assert f"Test utterances: phone {n['phone']}, speaker {n['label:speaker']}" in text
    assert f"interval over {n['attention head']} utterances" in text
    assert {path.suffix for path in (out / "report").iterdir()} == {".html", ".png"}


def test_what_is_scored_was_chosen_on_other_utterances(whole, trained):
    out, data, _ = whole
    (folder,) = (path for path in out.iterdir() if (path / "asked").is_dir())
    seen = json.loads((folder / "seen.json").read_text())
    measured, tested = set(seen["ids"]), set(seen["tested"])
    asked = json.loads((folder / "asked" / "whole.json").read_text())
    assert measured and tested and not measured & tested
    assert set(asked) == {"phone", "label:speaker", pruning.HELD_OUT}
    assert all(each["ids"] and not measured & set(each["ids"]) for each in asked.values())
    assert set(asked[pruning.HELD_OUT]["ids"]) <= tested
    assert [each["head"] for each in seen["picked"]] == [each["head"] for each in seen["relations"]["heads"]]

    # Measured anew: strengths, candidates and orders come from these utterances and no others.
    representation = open_representation(str(trained))
    known = {each.id: each for each in open_corpus(data).utterances}
    utterances = [known[id] for id in seen["ids"]]
    looked = list(passes.looks(representation, utterances))
    maps = [look.maps.flatten(0, 1) for look in looked]
    values = torch.stack([torch.cat([heads.measure(each), each.flatten(1).amax(1)[None]]) for each in maps]).mean(0)
    torch.testing.assert_close(values, torch.tensor(seen["measures"]), atol=1e-5, rtol=1e-5)
    strengths = torch.stack([look.strengths.flatten() for look in looked]).mean(0)
    torch.testing.assert_close(strengths, torch.tensor(seen["strengths"]))
    values, strengths = torch.tensor(seen["measures"]), torch.tensor(seen["strengths"])  # for heads that are alike
    assert seen["picked"][0]["head"] == int(values[0].argmax())
    scored = json.loads((folder / "segments.json").read_text())
    sources = [each["source"] for each in scored["sources"]]
    diagonal = values[2].argsort(descending=True)[:2].tolist()  # as many candidates as `quick` allows
    assert next(int(source.split()[1]) for source in sources if source.startswith("head")) in diagonal
    others = [known[id] for id in seen["tested"]]
    found = [segments.reference(look.utterance) for look in passes.looks(representation, others)]
    assert scored["boundaries"] == sum(map(len, found)) and scored["utterances"] == len(others)
    question = material.gather(open_corpus(data), (), 1, 0, []).phone
    task = question.task.learn(question.parts.train)
    again = summaries.retest(representation, others, task, seen["picked"], 0, Quarantine())["relations"]
    assert [each["map"] for each in again["heads"]] == [each["map"] for each in seen["relations"]["heads"]]
    middle = pruning.levels(len(strengths), 3)[1]
    orders = heads.orders(values, strengths, 1, 0)
    assert {*orders} == {*heads.RANKED, "weakest output", "random 1"}
    expected = {f"without-{address(sorted(order[:middle])):016x}" for order in orders.values()}
    everything = f"without-{address(list(range(len(strengths)))):016x}"
    assert {path.stem for path in (folder / "asked").glob("without-*")} == expected | {everything}


def test_the_same_study_again_goes_on(whole, trained):
    out, data, _ = whole
    (folder,) = (path for path in out.iterdir() if (path / "asked").is_dir())
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*/*.json") if path.name != "spans.json"}
    spans = (folder / "spans.json").read_bytes()
    (folder / "spans.json").unlink()
    subject = library.Subject(str(trained), open_representation(str(trained)))
    (*_, study) = library.attention([subject], open_corpus(data), out, budget=2.0)
    assert study.finished and (folder / "spans.json").read_bytes() == spans
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())


def test_the_page(whole):
    page = whole[0] / "report" / "index.html"
    text = page.read_text()
    assert '<th scope="row">weight</th>' in text and "Heads and their phones were chosen on other" in text
    assert "Orders come from other utterances" in text
    assert "R-value of" in text and "that it was not trained on" in text and "not finished" not in text.lower()
    assert not re.search(r"(src|href)=.?(https?:|//)", text)
    with chromium() as chrome:
        asked = visit(chrome, page)
        assert [address for address in asked if not address.startswith(("file:", "data:"))] == []
        assert not chrome.get_log("browser")
        wide = chrome.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0 and len(chrome.find_elements("css selector", "figure svg")) >= 7


def test_without_labels_what_is_left_out_is_said(quick, tmp_path):
    bare = [Utterance(each.id, each.path, each.seconds) for each in speak(tmp_path / "audio", count=6)]
    subject = library.Subject("nano", open_representation("random:audio-albert/nano"))
    out = tmp_path / "out"
    (*_, study) = library.attention([subject], Corpus("bare", tuple(bare)), out, budget=1.0)
    assert study.finished and set(study.findings["nano"]) == {"plan", "seen", "noise", "cost", "asked"}
    assert len(study.absent) == 3 and study.absent[0].startswith("No phone labels on speech")
    kept = study.findings["nano"]["cost"]
    assert kept["parameters"] > 0 and kept["kept"] > 0
    with pytest.raises(ConfigError, match=r"holds a study with other seed, expected those in its study.json; take"):
        next(library.attention([subject], Corpus("bare", tuple(bare)), out, budget=1.0, seed=1))
    with pytest.raises(ConfigError, match="named twice"):
        next(library.attention([subject, subject], Corpus("bare", tuple(bare)), out, budget=1.0))


def test_refusals(talking, trained, whole, tmp_path):
    out = tmp_path / "none"
    refuses(2, "mel: has no self-attention, expected a representation with Transformer", *command(talking, out, "mel"))
    refuses(2, "random:apc/nano: has no self-attention", *command(talking, out, "random:apc/nano"))
    refuses(2, "no such representation", *command(talking, out, "nothing"))
    refuses(3, "utterances are long enough and were not trained on, expected at least 4", *command(
        heard_only(trained, tmp_path), out, trained
    ))  # fmt: skip
    assert not out.exists()


def heard_only(trained, folder):
    """A manifest of what the run was trained on, and nothing else."""
    lines = [json.loads(line) for line in (trained / "corpus.jsonl").read_text().splitlines()]
    kept = [json.dumps(line) for line in lines if line["split"] == "train"]
    place = folder / "heard"
    place.mkdir()
    (place / "manifest.jsonl").write_text("\n".join(kept) + "\n")
    return place


def test_windows_are_looked_at_one_at_a_time():
    tiny = open_representation("random:mockingjay/tiny")
    assert passes.reach(tiny) == pytest.approx(99 * 160 / 16_000) or passes.reach(tiny) > 2.9
    samples = round(passes.reach(tiny) * 16_000)
    with watch(tiny) as maps, torch.no_grad():
        tiny(Waves.pad([torch.randn(samples)]))
    assert len(maps) == 3 and maps[0].shape[0] == 1
