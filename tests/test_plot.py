import json
import shutil
import sys
import time
from io import BytesIO

import numpy as np
import pytest
import soundfile
import torch
from command import refuses, works
from matplotlib.figure import Figure
from speech_like import speech_like
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from toy_representation import Toy, speak

from mockingjay.core.errors import MachineError
from mockingjay.core.types import Hidden, Waves
from mockingjay.data.corpora import open_corpus
from mockingjay.encoders.frontends import Linear, LogMel, Stacked, build_frontend
from mockingjay.encoders.frontends.log_mel import TERA_80
from mockingjay.moves.sound import sound
from mockingjay.open import open_objective
from mockingjay.report import figures
from mockingjay.report.tensorboard import write_events
from mockingjay.studies import pictures

pytestmark = pytest.mark.drill  # whole commands

SHOWN = ("curve", "rebuilt-1", "sound-1", "layers", "phones", "speakers", "weights")


@pytest.mark.parametrize(
    "config",
    [LogMel.Config(window=400, fft=512, hop=160), TERA_80, Linear.Config(window=400, fft=512, hop=160),
     Stacked.Config(inner=TERA_80)],
    ids=["deltas", "levelled", "linear", "stacked"],
)  # fmt: skip
def test_frames_sound_like_what_they_are_of(config):
    frontend, wave = build_frontend(config), speech_like(16_111, 1)
    inner = frontend.inner if isinstance(frontend, Stacked) else frontend
    frames = inner(Waves.pad([wave])).values[0]
    made = sound(frontend, frames[: len(frames) // 3 * 3], wave)
    assert made.shape == wave.shape and made.isfinite().all()
    measure = build_frontend(LogMel.Config(window=400, fft=512, hop=160, mels=20, deltas=0, normalise="none"))
    one, other = (measure(Waves.pad([each])).values[0, :-3] for each in (wave, made))
    assert np.corrcoef(one.flatten(), other.flatten())[0, 1] > 0.9
    assert made.square().mean().item() == pytest.approx(wave.square().mean().item(), rel=0.1)


def test_what_cannot_sound_is_not_made_to():
    frontend, wave = build_frontend(LogMel.Config(centre=False)), speech_like(16_000, 1)
    assert sound(frontend, torch.zeros(10, frontend.dim), wave) is None
    assert sound(build_frontend(TERA_80), torch.zeros(10, 3), wave) is None


class Parity(Toy):
    """Knows of a code only whether it is even, which of `speak`'s two voices is all there is to know."""

    def forward(self, waves):
        hidden = super().forward(waves)
        known = torch.nn.functional.one_hot(hidden.last.argmax(-1) % 2, self.dim).float()
        return Hidden((*hidden.layers[:2], known), hidden.lengths)


def test_phones_and_voices_lie_in_the_plane(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "POINTS", 90)
    monkeypatch.setattr(pictures, "STRETCH", 0.5)
    spoken = speak(tmp_path, count=30, speakers=2, seconds=(1.1, 1.3))
    drawn = pictures.stretches(spoken, 1)
    good, deaf = (pictures.maps(each, spoken, drawn, 2, 1) for each in (Toy(), Parity()))
    assert good.keys() == {"phone", "speaker"}
    # A phone's points are all in one place, where no other phone's are; then those of four phones are in one place.
    assert good["phone"].before == pytest.approx(1, abs=1e-3) and abs(deaf["phone"].before) < 0.2
    # A second of a voice says now these codes and now those; then it is one of two points.
    assert deaf["speaker"].before == pytest.approx(1, abs=1e-3) and good["speaker"].before < 0.6
    assert good["phone"].silhouette > 0.5 > deaf["phone"].silhouette
    for each in good.values():
        assert each.points.shape == (len(each.labels), 2) and len(each.labels) <= 90
        assert -1 <= each.silhouette <= 1
    assert len(set(good["phone"].labels)) <= pictures.CLASSES and set(good["speaker"].labels) == {"s0", "s1"}
    assert pictures.stretches(spoken[:2]) == {} and drawn == pictures.stretches(spoken, 1)


def seen(folder):
    """What TensorBoard itself finds in a folder."""
    found = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    found.Reload()
    return found


def test_event_files(tmp_path):
    figure = Figure(figsize=(3, 2), dpi=100)
    png = BytesIO()
    figure.savefig(png)
    lines = [{"step": 300, "loss": 0.5, "seconds": 2.0, "validation": {"model": 0.25}, "device": "cpu", "ok": True}]
    for _ in range(2):  # the second replaces the first
        write_events(tmp_path, lines, {"layers": png.getvalue()}, 300)
    found = seen(tmp_path)
    assert set(found.Tags()["scalars"]) == {"loss", "seconds", "validation/model"}
    assert [(event.step, event.value) for event in found.Scalars("validation/model")] == [(300, 0.25)]
    (image,) = found.Images("layers")
    assert (image.width, image.height, image.step) == (300, 200, 300)


def test_without_tensorboard_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MachineError, match=r"tensorboard is not installed, .*; pip install mockingjay-speech\[track\]"):
        write_events(tmp_path, [], {}, 0)


def test_three_panels_from_a_checkpoint_take_five_seconds_at_most(trained, talking, tmp_path):
    utterance = open_corpus(talking).utterances[0]
    began = time.process_time()  # what other processes take is not this one's doing
    learner, _ = open_objective(trained, print)
    shown = pictures.rebuilt(learner, learner.encoder.frontend, utterance)
    drawing = figures.spectrograms(**shown.panels)
    figures.save_png(drawing, tmp_path / "rebuilt.png")
    assert time.process_time() - began <= 5.0
    titles = [panel.get_title("left") for panel in drawing.canvas.axes[:3]]
    assert titles == ["True", "Masked: what the network reads", "Rebuilt"]
    assert (tmp_path / "rebuilt.png").read_bytes().startswith(b"\x89PNG")


def test_the_command(trained, talking, tmp_path, monkeypatch):
    for name, value in {"POINTS": 60, "SECONDS": 40.0, "FEWEST": 5, "STRETCH": 0.2, "ITERATIONS": 250}.items():
        monkeypatch.setattr(pictures, name, value)
    probe, run, out = tmp_path / "mood", tmp_path / "run", tmp_path / "out"
    probe.mkdir()
    (probe / "probe.json").write_text(json.dumps({"layers": {"0": 0.25, "1": 0.75}}))
    shutil.copytree(trained, run, ignore=shutil.ignore_patterns("encoder"))  # not finished yet
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "validation": {"model": 0.3}')  # torn by a crash, and yet it ends in a brace
    options = ("--utterances", 1, "--probe", probe, "--tensorboard")
    said = works("plot", run, "--data", talking, "--out", out, *options)
    assert "pictures: " in said
    names = {path.name for path in out.glob("*.png")}
    assert names == {f"{name}.png" for name in SHOWN}
    for name in ("1-true.wav", "1-rebuilt.wav"):
        wave, rate = soundfile.read(out / name)
        assert rate == 16_000 and np.isfinite(wave).all() and len(wave) > 8000
    text = (out / "index.html").read_text()
    assert text.count("<svg ") == 7 and "silhouette" in text
    tags = seen(out).Tags()
    assert "loss" in tags["scalars"] and {"layers", "rebuilt-1"} <= set(tags["images"])
    refuses(2, "--layer 9: expected 0 to", "plot", trained, "--data", talking, "--out", tmp_path / "no", "--layer", 9)
