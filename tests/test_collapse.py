import json

import pytest
import torch
from command import refuses, works
from speech_like import batch_of, corpus
from test_pretrain import command

from mockingjay.core.errors import TrainingError
from mockingjay.objectives import OBJECTIVES, build_objective
from mockingjay.objectives.mockingjay import Mockingjay
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


def test_healthy_runs_are_left_alone():
    """A few steps at a high rate: nothing is flagged."""
    batches = [batch_of((6_000, 9_600), 20), batch_of((6_400, 8_000), 30)]
    for name in OBJECTIVES:
        torch.manual_seed(1)
        objective = build_objective(settings(name, "nano").objective)
        objective.prepare(batches)
        monitor = Monitor([batch_of((9_600, 9_800))], Group())
        monitor.look(objective.encoder)
        parts = {}
        for tick in Run(objective, Run.Config(steps=2, learning_rate=2e-3)).ticks([(batch,) for batch in batches]):
            parts = tick.parts
        figures = monitor.look(objective.encoder, parts.get("perplexity"))
        assert monitor.judge(figures, 2) is None, (name, figures, monitor.first)
