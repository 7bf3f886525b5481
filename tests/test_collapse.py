import json
import re

import pytest
import soundfile
import torch
from command import refuses, works
from speech_like import batch_of, corpus
from test_pretrain import command

from mockingjay.core.errors import TrainingError
from mockingjay.core.types import Utterance
from mockingjay.encoders.gumbel import GumbelQuantiser
from mockingjay.encoders.product import Gumbel
from mockingjay.encoders.quantise import Quantiser
from mockingjay.objectives import OBJECTIVES, build_objective
from mockingjay.objectives.mockingjay import Mockingjay
from mockingjay.pretrain import pretrain
from mockingjay.settings import settings
from mockingjay.train import checkpoint
from mockingjay.train.collapse import Monitor, fault, measure
from mockingjay.train.distributed import Group
from mockingjay.train.loop import Run


def test_figures_of_what_is_known():
    normal = torch.randn(16, 16, 24)
    found = measure(normal + 0.5)
    assert found["deviation"] == pytest.approx(1, abs=0.05) and found["effective rank"] > 22
    assert found["spread"] == pytest.approx((1 / 1.25) ** 0.5, abs=0.05)
    assert found["cosine"] == pytest.approx(0.25 / 1.25, abs=0.05)
    assert measure(7.0 * normal)["effective rank"] == pytest.approx(measure(normal)["effective rank"])
    by_hand = [one @ other / one.norm() / other.norm() for one, other in [(normal[0, 3], normal[1, 3])]]
    assert measure(normal[:2, 3:4])["cosine"] == pytest.approx(by_hand[0].item(), abs=1e-5)


def test_the_effective_rank_is_the_exponential_of_an_entropy():
    turn, _ = torch.linalg.qr(torch.randn(8, 8))
    values = torch.tensor([4.0, 2.0, 1.0, 1.0, 0, 0, 0, 0])
    half = (torch.eye(8) * values) @ turn
    shares = torch.tensor([0.5, 0.25, 0.125, 0.125])
    wanted = (-(shares * shares.log()).sum()).exp().item()
    assert measure(torch.stack([half, -half]))["effective rank"] == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("by_position", [False, True])
def test_what_says_nothing_of_the_utterance_is_a_collapse(by_position):
    healthy = measure(torch.randn(8, 16, 12))
    same = torch.randn(1, 16 if by_position else 1, 12).expand(8, 16, 12)
    noise = 1e-7 * torch.randn(8, 16, 12)
    found = measure(same + noise)
    assert found["spread"] < 1e-6 and found["cosine"] == pytest.approx(1) and measure(same)["effective rank"] == 1
    assert fault(found, healthy) == "all frames have nearly the same representation"
    assert fault(found, found) is None and fault(healthy, healthy) is None and fault(healthy, found) is None
    zeros = measure(torch.zeros(8, 16, 12))
    assert zeros["spread"] == 0 and zeros["effective rank"] == 1 and fault(zeros, healthy) is not None


def test_a_line_and_a_single_code_are_collapses():
    healthy = measure(torch.randn(8, 16, 12))
    line = measure(torch.randn(8, 16, 1) * torch.randn(12) + 0.01 * torch.randn(8, 16, 12))
    assert fault(line, healthy) == "all frames lie along one line"
    assert fault(healthy | {"perplexity": 1.02}, healthy) == "all frames have the same code"
    assert fault(healthy | {"perplexity": 3.0}, healthy) is None


def test_a_monitor_counts_in_a_row_and_remembers():
    encoder = build_objective(settings("mockingjay", "nano").objective).encoder
    monitor = Monitor([batch_of((8_000, 9_000)), batch_of((8_000,), 5)], Group())
    first = monitor.look(encoder)
    assert monitor.judge(first, 1) is None and len(monitor.batches) == 2
    dead = {**first, "spread": 0.001}
    sentence = r"step 2: all frames have nearly the same representation on held-out speech \(effective rank \d"
    with pytest.raises(TrainingError, match=sentence):
        wrong = monitor.judge(dead, 1)
        assert wrong is not None
        monitor.refuse(wrong)  # once is not twice
        resumed = Monitor(monitor.batches, Group())
        resumed.restore(json.loads(json.dumps(monitor.notes)))
        resumed.refuse(resumed.judge(dead, 2))
    assert monitor.judge(first, 3) is None and monitor.bad == 0
    assert Monitor([batch_of((8_000,))], Group()).look(encoder) == {}  # nothing to compare


def test_a_dead_run_stops_and_keeps_its_last_checkpoint(tmp_path, monkeypatch):
    def dying(self, progress):
        if progress >= 0.5:
            with torch.no_grad():
                for parameter in self.encoder.context.parameters():
                    parameter.zero_()

    monkeypatch.setattr(Mockingjay, "after_step", dying)
    words = command(corpus(tmp_path / "data", 40), tmp_path / "run", 8, "--set", "upkeep.validate_every=1")
    sentence = (
        r"step 6: all frames have nearly the same representation on held-out speech \(effective rank 1, at step 0 .*\)"
        r", as at the validation before, expected frames that differ; lower the learning rate, .*upkeep.collapsed=tell"
    )
    refuses(6, sentence, *words)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(7))
    assert rows[0]["collapse"]["spread"] > 0.05 and rows[6]["collapse"]["spread"] == 0
    assert set(rows[6]["collapse"]) == {"deviation", "spread", "effective rank", "cosine"}
    assert set(rows[6]["validation"]) == set(rows[0]["validation"])
    kept = checkpoint.load_latest(tmp_path / "run" / "checkpoints", print)
    assert kept is not None and kept.step == 4 and kept.notes["collapse"]["bad"] == 0
    said = works(*words, "--set", "upkeep.collapsed=tell")
    assert "at step 4 of 8" in said and said.count("all frames have nearly the same representation") == 4


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """Eleven seconds by four voices."""
    paths = sorted(corpus(tmp_path_factory.mktemp("heard"), 16, 0.7).rglob("*.wav"))
    return [Utterance(path.stem, str(path), soundfile.info(path).duration, speaker=path.parent.name) for path in paths]


def trained(name, changes, heard, out, steps, every):
    """Pre-train at nano size; what was said, and the rows of metrics.jsonl."""
    sizes = ("batches.seconds=3", "upkeep.held_out=0.25", f"upkeep.validate_every={every}", f"train.steps={steps}")
    lines = []
    try:
        pretrain(settings(name, "nano", [*changes, *sizes, "train.warmup=0.1"]), heard, out, say=lines.append)
    except TrainingError as error:
        lines.append(str(error))
    return lines, [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@torch.no_grad()
def one_code(self, progress):
    """Make one code the likeliest everywhere, by so little that noise draws all of them, and let nothing move."""
    for part in self.modules():
        if isinstance(part, GumbelQuantiser):
            part.weight.zero_()
            part.bias.zero_()[:, 3] = 0.01
        elif isinstance(part, Gumbel):
            part.logits[-1].weight.zero_()
            part.logits[-1].bias.zero_().view(part.groups, part.codes)[:, 3] = 0.01
        elif isinstance(part, Quantiser):
            part.codebook[1:] = 1e3


K_MEANS = ("objective.encoder.context.quantiser.kind=k-means", "objective.encoder.context.quantiser.quantiser.codes=8")
QUANTISING = [
    ("autoencoder", ()),
    ("vq-wav2vec", ()),
    ("vq-wav2vec", K_MEANS),
    ("wav2vec2", ()),
    ("npc", ()),
    ("vq-apc", ()),
]


@pytest.mark.parametrize(("name", "changes"), QUANTISING)
def test_one_code_for_all_stops_a_run(name, changes, heard, tmp_path, monkeypatch):
    monkeypatch.setattr(OBJECTIVES[name], "after_step", one_code)
    lines, rows = trained(name, changes, heard, tmp_path, 20, 2)
    sentence = (
        r"step 6: all frames have the same code on held-out speech \(effective rank .*, codes in use 1, at step 0 "
        r"(.*)\), as at the validation before, expected frames that differ; .*upkeep.collapsed=tell"
    )
    told = re.fullmatch(sentence, lines[-1])
    assert told and float(told[1]) > 1.5 and rows[-1]["step"] == 6, lines
    assert sum("step 4: all frames have the same code on held-out speech" in line for line in lines) == 1
    used = [row["collapse"]["perplexity"] for row in rows if "collapse" in row]
    assert used[0] == pytest.approx(float(told[1]), rel=0.01) and used[1:] == pytest.approx([1, 1, 1])
    # And the log of the training says so, for it does not count what noise draws.
    assert rows[1]["perplexity"] > 1.5 and rows[-1]["perplexity"] == pytest.approx(1)


@pytest.mark.parametrize(("name", "changes"), QUANTISING)
def test_codes_that_learn_are_left_alone(name, changes, heard, tmp_path):
    healthy = {
        "autoencoder": ["objective.spoken=0.02"],  # or most of the time goes into a second that is made to sound
        # Frames normed over the whole utterance do come near a single code: the preset tiny says why it has this norm.
        "vq-wav2vec": ["objective.encoder.frontend.norm=instance", "train.learning_rate=1e-3"],
    }
    lines, rows = trained(name, (*changes, *healthy.get(name, ())), heard, tmp_path, 16, 4)
    used = [row["collapse"]["perplexity"] for row in rows if "collapse" in row]
    assert rows[-1]["step"] == 16 and len(used) == 5 and min(used) > 1.5
    assert not any("held-out speech" in line for line in lines), lines


def test_healthy_runs_are_left_alone():
    """Past the warm-up at a high rate: nothing is flagged, twice."""
    batches = [batch_of((6_000, 9_600), 20), batch_of((6_400, 8_000), 30)]
    quantising = set()
    for name in OBJECTIVES:
        torch.manual_seed(1)
        objective = build_objective(settings(name, "nano").objective)
        objective.prepare(batches)
        monitor = Monitor([batch_of((9_600, 9_800))], Group())
        for tick in Run(objective, Run.Config(steps=4, learning_rate=2e-3)).ticks([(batch,) for batch in 2 * batches]):
            if tick.step == 1:
                monitor.look(objective.encoder, objective.codes)
            if tick.step % 2 == 0:
                figures = monitor.look(objective.encoder, objective.codes)
                assert monitor.judge(figures, tick.step) is None, (name, figures, monitor.first)
                quantising |= {name} if "perplexity" in figures else set()
    assert quantising == {name for name, _ in QUANTISING}  # BEST-RQ's codes are frozen questions
