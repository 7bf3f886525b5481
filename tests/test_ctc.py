import itertools
import json
from dataclasses import replace

import pytest
import torch
from command import works
from toy_representation import CODES, Onsets, Toy, speak

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.types import Batch, Utterance, Waves
from mockingjay.downstream import fit_probe, load_probe, open_task, paired_difference, predict, save_probe
from mockingjay.downstream.decode import Decoder
from mockingjay.downstream.features import cache, load
from mockingjay.downstream.fit import Config
from mockingjay.downstream.frozen import FrozenTraining
from mockingjay.downstream.heads import build_head
from mockingjay.downstream.mix import Mixed
from mockingjay.downstream.partition import partition
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.questions import read_scores
from mockingjay.downstream.tasks import Targets, Transcript, build_task
from mockingjay.downstream.tasks.transcript import feasible
from mockingjay.downstream.transcribe import errors_of

UNITS = ("", "a", "b", "c")
QUICK = FrozenTraining.Config(learning_rates=(3e-2, 1e-1), updates=120, sequences=8, evaluations=6)


def said(*phones, **other):
    spans = tuple((0.1 * place, 0.1 * place + 0.1, phone) for place, phone in enumerate(phones))
    return Utterance(id="u", path="/u.wav", seconds=1.0, alignment=spans, **other)


def phones_of(*utterances, kind="phones"):
    return open_task(kind).learn(utterances or [said("a", "b", "c")])


def distinct(utterances):
    """Join equal neighbours: what sounds alike without a pause is one phone."""
    for each in utterances:
        runs = [list(run) for _, run in itertools.groupby(each.alignment, key=lambda span: span[2])]
        yield replace(each, alignment=tuple((run[0][0], run[-1][1], run[0][2]) for run in runs))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    return list(distinct(speak(tmp_path_factory.mktemp("speech"))))


def fitted(spoken, seeds=2, decoder=None, memory=8.0, frozen=QUICK):
    config = Config(frozen=frozen, seeds=seeds, memory=memory, decoder=decoder or Decoder())
    parts = spoken[:24], spoken[24:32], spoken[32:]
    return fit_probe(Onsets(), open_task("phones"), *parts, config, "toy", "made")


# What is meant


def test_silence_goes_and_repeats_stay():
    assert phones_of().units(said("sil", "a", "a", "SIL", "", "b", "sp", "h#")) == ("a", "a", "b")


def test_known_inventories_are_folded():
    timit = phones_of(said("h#", "sh", "ix", "dcl", "d", "q", "axr", "pau"))
    assert timit.units(said("nx", "eng", "q", "zh")) == ("n", "ng", "sh")  # whose names training has not met
    assert timit.units(said("sh", "ix", "dcl", "d", "epi", "axr")) == ("sh", "ih", "d", "er")
    assert timit.outputs == ("", "d", "er", "ih", "sh")
    assert phones_of(said("AH0", "T", "SIL", "AH1")).outputs == ("", "AH", "T")
    assert phones_of(said("a6", "N")).outputs == ("", "N", "a6")  # not known: as it is written


def test_phones_of_a_column():
    task = open_task("phones:said").learn([said(labels={"said": " HH AY  SIL "})])
    assert (task.name, task.metric, task.outputs) == ("phones:said", "PER", ("", "AY", "HH"))
    with pytest.raises(DataError, match=r"phones:said: none of 1 training utterances has any, expected column 'said'"):
        open_task("phones:said").learn([said("a")])


def test_text_is_spelt_plainly():
    task = open_task("text")
    assert (
        "".join(task.units(replace(said(), text=" “Don’t — STOP,” she\tsaid: 'Öl' 2× "))) == "don't stop she said öl 2"
    )
    assert task.names(said("a")) == () and task.metric == "CER"
    with pytest.raises(DataError, match=r"task text: none of 1 training utterances has any, expected text; add it"):
        task.learn([said("a")])


def test_sequence_tasks_have_names_and_are_rebuilt():
    task = phones_of(said("sh", "ix"))
    again = build_task(task.config.model_dump(mode="json"), task.outputs)
    assert (again.config, again.name, again.outputs) == (task.config, task.name, task.outputs)
    for wrong in ({"1 2": 1, "1": 1}, {"1 x": 1}, {"1": 0}, {"": 1}):
        with pytest.raises(ConfigError, match=r"expected n-grams of numbers, all of one order, that occur"):
            build_task({"kind": "text", "ngrams": wrong})
    with pytest.raises(ConfigError, match=r"unknown task, .* or for sequences phones, phones:<column> or text"):
        open_task("text:x")


def test_test_speakers_are_new():
    corpus = [replace(said("a", "b"), id=f"{n}", speaker=f"s{n % 5}") for n in range(20)]
    assert partition(corpus, open_task("phones"), 0).rule == "speaker"
    assert partition([replace(each, speaker=None) for each in corpus], open_task("phones"), 0).rule == "utterance"


# What it costs


def targets(*rows):
    return Targets.pad([Targets(torch.tensor([row]), torch.ones(1, len(row))) for row in rows], 1)


def task_of(**config):
    return Transcript(Transcript.Config(**config), UNITS)


def test_the_loss_sums_over_every_path():
    logits = torch.randn(1, 4, 4)
    odds = logits[0].log_softmax(-1)
    for answer in ([1], [1, 2], [2, 2], [1, 3, 1, 2]):
        paths = [
            sum(odds[step, unit] for step, unit in enumerate(path))
            for path in itertools.product(range(4), repeat=4)
            if [unit for unit, _ in itertools.groupby(path) if unit] == answer
        ]
        loss = task_of().score(logits, targets(answer), torch.tensor([4]))
        torch.testing.assert_close(loss.sum, -torch.stack(paths).logsumexp(0))
        assert loss.weight == len(answer)


def test_a_loss_alone_is_its_loss_in_a_batch():
    answers, lengths = ([1, 2, 3], [2, 2], [3]), torch.tensor([9, 5, 2])
    logits = torch.randn(3, 11, 4)
    alone = [
        task_of().score(logits[row : row + 1, :length], targets(answers[row]), torch.tensor([length]))
        for row, length in enumerate(lengths.tolist())
    ]
    together = task_of().score(logits, targets(*answers), lengths)
    torch.testing.assert_close(together.sum, sum(loss.sum for loss in alone))
    assert together.weight == sum(loss.weight for loss in alone) == 6


def test_what_cannot_be_spelt_is_left_out_of_the_loss():
    wanted, lengths = targets([1, 1, 2], [1, 1, 2], [1, -1]), torch.tensor([3, 4, 4])  # three units and a blank
    assert feasible(wanted, lengths).tolist() == [False, True, False]
    logits = torch.randn(3, 4, 4, requires_grad=True)
    loss = task_of().score(logits, wanted, lengths)
    loss.sum.backward()
    assert loss.weight == 3 and loss.sum.isfinite()
    assert logits.grad[1].abs().sum() > 0 and not logits.grad[[0, 2]].any()


def test_nothing_that_can_be_learnt_weighs_nothing():
    logits = torch.randn(1, 3, 4, requires_grad=True)
    loss = task_of().score(logits, targets([1, 1, 2]), torch.tensor([3]))
    loss.sum.backward()
    assert (loss.sum, loss.weight) == (0, 0) and not logits.grad.any()


def path(*steps):
    return torch.nn.functional.one_hot(torch.tensor([steps]), 4).float() * 9


def test_errors_by_hand():
    task, four = task_of(), torch.tensor([4])
    for steps, answer, cost in (
        ((1, 0, 1, 2), [1, 1, 2], 0),
        ((1, 1, 1, 2), [1, 1, 2], 1),
        ((0, 0, 0, 0), [1, 1, 2], 3),
        ((1, 2, 3, 1), [1], 3),
        ((1, 3, 3, 2), [1, 2, 2], 1),
        ((1, 2, 0, 0), [1, -1], 1),  # what training has not had is never right
    ):
        assert task.earned(path(*steps), targets(answer), four).tolist() == [[cost]], (steps, answer)
        assert task.total(targets(answer)).tolist() == [[len(answer)]]
    assert task.constant(targets([1]), targets([1])) == 1.0 and task.better == "lower" and task.merit(0.3) == -0.3


def test_words_are_counted_too():
    task = Transcript(Transcript.Config(kind="text"), ("", " ", "a", "b"))
    words = task.in_words()
    assert (task.metric, words.metric, task_of().in_words()) == ("CER", "WER", None)
    wanted, logits, steps = targets([2, 3, 1, 2]), path(2, 1, 3, 1, 2, 1), torch.tensor([6])  # ab a; a b a
    assert task.earned(logits, wanted, steps).item() == 2 and task.total(wanted).item() == 4
    assert words.earned(logits, wanted, steps).item() == 2 and words.total(wanted).item() == 2
    assert task.write(task.say(logits[0])) == "a b a "


# Heads


def test_the_published_recogniser_has_its_size():
    with torch.device("meta"):
        head = build_head("blstm1024", 768, 32, "sequence")
    layer = 8 * 1024 * (1024 + 2)  # four gates both ways, of their own state, and two biases
    assert sum(p.numel() for p in head.parameters()) == (
        769 * 1024 + 8 * 1024 * 1024 + layer + 8 * 1024 * 2048 + layer + 2049 * 32
    )


@pytest.mark.parametrize("kind", ["linear", "mlp2", "blstm"])
def test_heads_read_no_padding(kind):
    head, lengths = build_head(kind, 6, 4, "sequence").eval(), torch.tensor([9, 4])
    values = torch.randn(2, 9, 6)
    values[1, 4:] = 1e3
    unit = torch.ones(6), torch.zeros(6)
    with torch.no_grad():
        together, alone = head(Mixed(values, *unit), lengths), head(Mixed(values[1:, :4], *unit), lengths[1:])
    assert head.sequential and head.kept(7) == 7
    torch.testing.assert_close(together[1:, :4], alone, atol=1e-6, rtol=1e-5)


def test_heads_of_sequences_spell_nothing_else():
    with pytest.raises(ConfigError, match=r"probe\.head: blstm spells sequences, expected a head for frames; choose"):
        build_head("blstm", 4, 3, "frame")
    with pytest.raises(ConfigError, match=r"probe\.head: gru gives one answer per utterance, expected a head for sequ"):
        build_head("gru", 4, 3, "sequence")


def test_cached_states_give_the_same_loss(spoken):
    task = open_task("phones").learn(spoken)
    probe = Probe(Toy(), task, Probe.Config(read="mix")).eval()
    live = probe(Batch(Waves.pad([load(each) for each in spoken[:6]]), tuple(spoken[:6])), 0.0, Draw(0))
    pieces = cache(probe, spoken[:6], 0).pieces(2, torch.Generator().manual_seed(0))
    losses = [task.score(probe.answer(each.stack, each.lengths), each.targets, each.lengths) for each in pieces]
    torch.testing.assert_close(sum(loss.sum for loss in losses), live.sum, atol=1e-3, rtol=1e-5)
    assert sum(loss.weight for loss in losses) == live.weight


@pytest.mark.parametrize("head", ["linear", "blstm"])
def test_the_loss_falls(spoken, head):
    probe = Probe(Onsets(), open_task("phones").learn(spoken), Probe.Config(head=head))
    batch = Batch(Waves.pad([load(each) for each in spoken[:2]]), tuple(spoken[:2]))
    optimiser, losses = torch.optim.Adam(probe.head.parameters(), 1e-2, fused=True), []
    for _ in range(6):
        loss = probe(batch, 0.0, Draw(0))
        losses.append(loss.mean.item())
        optimiser.zero_grad()
        loss.mean.backward()
        optimiser.step()
    assert losses[-1] < 0.99 * losses[0]
    assert all(parameter.grad.isfinite().all() for parameter in probe.head.parameters())


# What a probe reaches


@pytest.fixture(scope="module")
def known(spoken):
    return fitted(spoken)


def test_a_representation_that_knows_the_phones_spells_them(spoken, known):
    result = known
    row = result.row
    assert row["value"] < 0.03 and row["ci95"][0] <= row["value"] <= row["ci95"][1]
    assert (row["metric"], row["majority"], row["decoder"], row["infeasible"]) == ("PER", 1.0, "greedy", 0)
    assert row["points"] == sum(len(each.alignment) for each in spoken[32:]) and row["classes"] == CODES + 1
    assert result.others == result.infeasible == () and result.scores.better == "lower"
    assert all(value < 0.1 for value in row["dev"])


def test_fewer_errors_are_better(spoken, known):
    quick = QUICK.model_copy(update={"updates": 10, "evaluations": 1, "learning_rates": (1e-6, 3e-2)})
    good, bad = known, fitted(spoken, seeds=1, frozen=quick)
    assert good.row["value"] < bad.row["value"] and bad.row["learning_rate"] == 3e-2
    difference = paired_difference(good.scores, bad.scores)
    assert difference.verdict == "holds" and difference.value == pytest.approx(bad.row["value"] - good.row["value"])
    with pytest.raises(DataError, match=r"comparison: lower is better of one result and higher of the other"):
        paired_difference(good.scores, replace(bad.scores, better="higher"))


def test_a_search_is_measured_beside_the_greedy_reading(spoken, tmp_path):
    result = fitted(spoken, decoder=Decoder(beam=4, order=2, weights=(0.1, 0.3)), seeds=1)
    (other,) = result.others
    assert other["decoder"].startswith("beam 4, 2-gram × 0.") and other["metric"] == "PER"
    assert other["value"] <= result.row["value"] + 0.02 and len(other["values"]) == 1
    save_probe(result.probe, tmp_path, "toy", result.row)
    again = load_probe(tmp_path, lambda name: Onsets())
    assert again.task.decoding == other["decoder"]
    report = errors_of(again, spoken[32:])
    assert report["decoder"] == other["decoder"] and report["units"] == other["points"]
    shown = {each["id"]: [unit for unit, _ in each["meant and said"] if unit] for each in report["worst"]}
    assert shown == {each.id: list(again.task.units(each)) for each in spoken[32:]}
    wanted = [" ".join(again.task.units(each)) for each in spoken[32:35]]
    told = list(predict(tmp_path, [each.path for each in spoken[32:35]], lambda name: Onsets()))
    assert sum(each.text == text for each, text in zip(told, wanted)) >= 2
    assert all(each.label is None and each.segments == () for each in told)


def test_too_fast_for_the_steps_is_counted(spoken):
    fast = replace(spoken[3], alignment=tuple((n / 1e4, (n + 1) / 1e4, f"p{n % CODES}") for n in range(200)))
    quick = QUICK.model_copy(update={"updates": 4, "sequences": 1, "evaluations": 1})  # one piece holds it alone
    result = fitted([*spoken[:3], fast, *spoken[4:]], seeds=1, frozen=quick)
    assert result.infeasible == (fast.id,) and result.row["infeasible"] == 1
    assert all(value.isfinite().all() for value in result.probe.head.state_dict().values())
    everything = [replace(fast, id=each.id, path=each.path, seconds=each.seconds) for each in spoken[:24]]
    with pytest.raises(DataError, match=r"each of 24 training utterances has more units than the representation has"):
        fitted([*everything, *spoken[24:]], seeds=1)


def test_units_that_training_lacks_are_refused_or_errors(spoken):
    strange = replace(spoken[35], alignment=(*spoken[35].alignment, (0.0, 0.1, "zh")))
    corpus = [*spoken[:35], strange, *spoken[36:]]
    with pytest.raises(DataError, match=r"task phones: 1 classes occur in test but not in train: 'zh'"):
        fitted(corpus)
    alone = replace(spoken[34], alignment=((0.0, 0.2, "zh"),))
    corpus = [*spoken[:34], alone, strange, *spoken[36:]]
    few = QUICK.model_copy(update={"learning_rates": (3e-2,), "updates": 4, "evaluations": 1})
    parts = corpus[:24], corpus[24:32], corpus[32:]
    result = fit_probe(Onsets(), open_task("phones"), *parts, Config(frozen=few, seeds=1, unseen="drop"))
    assert result.row["unseen"] == {"zh": 2} and result.row["n"] == 8
    assert result.row["points"] == sum(len(each.alignment) for each in corpus[32:])
    assert dict(zip(result.scores.ids, result.scores.earned))[alone.id] >= 1


def test_states_beyond_memory_are_computed_anew(spoken):
    fast = replace(spoken[3], alignment=tuple((n / 1e4, (n + 1) / 1e4, f"p{n % CODES}") for n in range(200)))
    few = QUICK.model_copy(update={"learning_rates": (1e-1,)})
    result = fitted([*spoken[:3], fast, *spoken[4:]], memory=1e-9, seeds=1, frozen=few)
    assert result.row["training"] == "streamed"
    assert result.infeasible == (fast.id,) and result.row["value"] < 0.5


# From the command line

FEW = (
    "--set",
    "frozen.updates=20",
    "--set",
    "frozen.learning_rates=[3e-2]",
    "--set",
    "seeds=1",
    "--set",
    "unseen=drop",
)


def test_probe_and_predict(talking, tmp_path):
    options = ("--data", talking, "--task", "text", *FEW, "--set", "decoder.beam=2", "--set", "decoder.order=2")
    options += ("--set", "decoder.weights=[0.5]", "--json")
    rows = [json.loads(line) for line in works("probe", "mel", *options, "--out", tmp_path).splitlines()]
    assert rows == json.loads((tmp_path / "results.json").read_text())
    assert [(row["metric"], row["decoder"]) for row in rows] == [
        ("CER", "greedy"), ("WER", "greedy"), ("CER", "beam 2, 2-gram × 0.5"), ("WER", "beam 2, 2-gram × 0.5"),
    ]  # fmt: skip
    assert all(row["ci95"][0] <= row["value"] <= row["ci95"][1] and row["majority"] == 1 for row in rows)
    scores = read_scores(json.loads((tmp_path / "scores.json").read_text()))
    assert len(scores.ids) == rows[0]["n"] and scores.value == pytest.approx(rows[0]["value"])
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert errors["units"] == rows[0]["points"] and set(errors["commonest"]) == {
        "substitutions",
        "deletions",
        "insertions",
    }
    files = sorted((talking / "audio").glob("*.flac"))[:2]
    assert [line.split("\t")[0] for line in works("predict", tmp_path, *files).splitlines()] == list(map(str, files))


def test_finetune_spells_phones(talking, tmp_path):
    options = ("--data", talking, "--task", "phones", *FEW[4:], "--set", "live.epochs=1", "--out", tmp_path)
    said = works("finetune", "random:apc/nano", *options)
    assert "PER" in said and "or no word" in said
    (row,) = json.loads((tmp_path / "results.json").read_text())
    assert row["tune"] == "all" and row["decoder"] == "greedy"
    lost = f"task phones: {row['infeasible']} of {row['utterances']['train']} training utterances have more units than"
    assert (lost in said) == (row["infeasible"] > 0)
