from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from test_prosody import harmonic
from toy_representation import Toy

from mockingjay.core.errors import DataError
from mockingjay.core.types import Grid, Hidden, Utterance
from mockingjay.data.manifest import Corpus
from mockingjay.downstream import fit_probe, load_probe, open_task, predict, save_probe
from mockingjay.downstream.fit import Config
from mockingjay.downstream.frozen import FrozenTraining
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.questions import prosody
from mockingjay.downstream.tasks import Targets, build_task


class Told(Toy):
    """Knows how loud and how high: the power of each step, and how often it crosses zero."""

    def __init__(self, hop=160):
        super().__init__(hop, dim=2)

    def forward(self, waves):
        lengths = waves.lengths // self.hop
        frames = waves.samples[:, : int(lengths.max()) * self.hop].unflatten(1, (-1, self.hop))
        power = frames.square().mean(-1).clamp(min=1e-8)
        crossings = (frames[..., 1:].sign() != frames[..., :-1].sign()).float().mean(-1)
        stack = torch.stack([power.log(), crossings], dim=-1)
        return Hidden((stack, stack, stack), lengths)


@pytest.fixture(scope="module")
def tones(tmp_path_factory):
    """Tones of 100 to 300 Hz, each swelling, with silence at the end."""
    folder = tmp_path_factory.mktemp("tones")
    utterances = []
    for number in range(24):
        frequency, seconds = 100 + 200 * (number * 7 % 24) / 24, 0.5 + 0.02 * number
        swelling = harmonic(frequency, seconds, 1)
        swelling = swelling * torch.linspace(0.2, 1, len(swelling))
        path = folder / f"{number:02d}.wav"
        soundfile.write(path, torch.cat([swelling, torch.zeros(3200)]).numpy(), 16_000, subtype="FLOAT")
        utterances.append(Utterance(id=f"{number:02d}", path=str(path), seconds=len(swelling) / 16_000 + 0.2))
    return utterances


def fitted(tones, kind, representation=None, **other):
    quick = FrozenTraining.Config(learning_rates=(1e-2, 1e-1), updates=100, rows=256)
    config = Config(frozen=quick, seeds=2, **other)
    return fit_probe(
        representation or Told(), open_task(kind), tones[:14], tones[14:18], tones[18:], config, "told", "tones"
    )


def test_values_meet_steps_by_time(tones):
    task = open_task("energy").learn(tones)
    fine, coarse = (
        task.targets(tones[0], grid, steps) for grid, steps in ((Grid(160, 80.0), 70), (Grid(480, 240.0), 24))
    )
    assert fine.answers.shape == (70, 1) and coarse.answers.shape == (24, 3)
    first = fine.answers[:69, 0].reshape(23, 3)
    torch.testing.assert_close(coarse.answers[:23], first)
    assert fine.counts.sum() == coarse.counts.sum() == 70


def test_only_voiced_frames_are_scored(tones):
    task = open_task("pitch").learn(tones)
    targets = task.targets(tones[0], Grid(160, 80.0), 70)
    voiced = targets.counts[:, 0].nonzero()[:, 0]
    assert 40 < len(voiced) < 52 and voiced.max() < 52  # half a second of tone, then silence
    hertz = (targets.answers[voiced, 0] * task.config.scale + task.config.mean).exp()
    torch.testing.assert_close(hertz, torch.full_like(hertz, 100.0), rtol=0.02, atol=0.0)


def test_scores_by_hand():
    task = build_task({"kind": "energy", "mean": -20.0, "scale": 5.0}, ("energy",))
    targets = Targets(torch.tensor([[1.0, -1.0], [2.0, 0.0]]), torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    logits = torch.tensor([[0.5], [2.0]])
    assert task.score(logits, targets).sum == pytest.approx(0.25 + 2.25)
    assert task.score(logits, targets).weight == 3
    assert task.total(targets).tolist() == [2.0, 4.0]
    assert task.earned(logits, targets).tolist() == [-0.5, 4.0]
    assert task.earned(torch.zeros(2, 1), targets).sum() == task.constant(targets, targets) == 0
    assert task.say(logits) == ["-18 dB", "-10 dB"]


@pytest.mark.parametrize("kind", ["pitch", "energy"])
@pytest.mark.parametrize("hop", [160, 480])
def test_a_representation_that_knows_scores_high(kind, hop, tones):
    row = fitted(tones, kind, Told(hop)).row
    assert (row["metric"], row["majority"], row["task"], row["classes"]) == ("R2", 0.0, kind, 1)
    assert row["value"] > 0.75 and row["ci95"][0] <= row["value"] <= row["ci95"][1] <= 1


def test_a_representation_that_knows_nothing_scores_nothing(tones):
    class Constant(Told):
        def forward(self, waves):
            hidden = super().forward(waves)
            return Hidden(tuple(torch.zeros_like(layer) for layer in hidden.layers), hidden.lengths)

    assert abs(fitted(tones, "energy", Constant()).row["value"]) < 0.05


def test_trained_through_the_representation(tones):
    live = Config().live.model_copy(update={"learning_rates": (1e-1,), "seconds": 3.0, "epochs": 4})
    result = fitted(tones, "energy", live=live, probe=Probe.Config(tune="all"))
    assert result.row["training"] == "live"
    assert result.row["metric"] == "R2" and np.isfinite(result.row["value"])


def test_a_kept_probe_says_values(tones, tmp_path):
    result = fitted(tones, "pitch")
    save_probe(result.probe, tmp_path, "told", result.row)
    again = load_probe(tmp_path, lambda name: Told())
    assert again.task.config == result.probe.task.config and again.task.config.scale != 1
    (said,) = predict(tmp_path, [tones[20].path], lambda name: Told())
    assert said.segments[0][2].endswith(" Hz") and said.label is None


def test_a_file_that_cannot_be_read_is_named_and_left_out(tones):
    lost = replace(tones[3], path="/none/03.wav")
    result = fitted([*tones[:3], lost, *tones[4:]], "energy")
    assert result.dropped == {"cannot be read": ("03",)} and result.row["utterances"]["train"] == 13
    with pytest.raises(DataError, match=r"/none/03\.wav: no such file"):
        open_task("energy").learn([lost])


def test_silence_teaches_nothing(tmp_path):
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    silent = [Utterance(id="s", path=str(tmp_path / "silent.wav"), seconds=1.0)]
    for kind, count in (("pitch", 0), ("energy", 100)):
        with pytest.raises(
            DataError, match=rf"task {kind}: {count} values in 1 training utterances, expected values that"
        ):
            open_task(kind).learn(silent)


def test_recurrent_heads_are_refused(tones):
    from mockingjay.core.errors import ConfigError

    with pytest.raises(ConfigError, match="gru gives one answer per utterance"):
        fitted(tones, "energy", probe=Probe.Config(head="gru"))


@pytest.mark.parametrize("kind", ["pitch", "energy"])
def test_features_made_elsewhere_are_not_measured(kind, tmp_path):
    path = str(tmp_path / "one.npy")
    np.save(path, np.zeros((20, 40), np.float32))
    with pytest.raises(DataError, match=f"task {kind}: .*one.npy holds features made elsewhere, expected sound"):
        open_task(kind).learn([Utterance("one", path, 0.2)])
    corpus = Corpus("features", (Utterance("one", path, 0.2),))
    assert prosody(corpus, [], 0) == []
