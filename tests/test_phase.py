import math

import pytest
import torch
from speech_like import batch_of, speech_like

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Batch, Frames, Utterance, Waves
from mockingjay.moves.griffin_lim import ShortTime, griffin_lim, spectral_error
from mockingjay.objectives import build_objective
from mockingjay.objectives.phase import circular_error, shares
from mockingjay.settings import settings
from mockingjay.train.loop import Run

TRANSFORM = ShortTime(256, 64, 256)


def nano(*changes):
    torch.manual_seed(0)
    objective = build_objective(settings("phase", "nano", changes).objective)
    objective.prepare([batch_of((8000, 7000))])
    return objective


def direction(angle):
    return torch.stack([angle.cos(), angle.sin()], -1)


def test_an_error_is_one_less_the_cosine_and_chance_is_one():
    said, true = torch.randn(40, 30, 20), (torch.rand(40, 30, 20) - 0.5) * 2 * math.pi
    error = circular_error(direction(said), direction(true))
    torch.testing.assert_close(error, 1 - (said - true).cos(), atol=1e-5, rtol=0)
    assert error.mean().item() == pytest.approx(1, abs=0.02)
    assert circular_error(direction(true), direction(true)).abs().max() < 1e-6


def test_the_loss_knows_no_phase_and_no_whole_turns(monkeypatch):
    objective, batch = nano().eval(), batch_of((8000, 7000))
    before = objective(batch, 0.0, Draw(0))
    analyse, advance = ShortTime.analyse, ShortTime.advance

    def turned(transform, waves):
        """Turn each bin by an angle of its own, the same in all frames."""
        frames = analyse(transform, waves)
        values = torch.complex(*frames.values.chunk(2, 2))
        values = values * torch.polar(torch.ones(()), 1.7 * torch.arange(values.shape[2]).square())
        return Frames(torch.cat([values.real, values.imag], 2), frames.lengths)

    with monkeypatch.context() as patch:
        patch.setattr(ShortTime, "analyse", turned)
        after = objective(batch, 0.0, Draw(0))
    assert after.sum.item() == pytest.approx(before.sum.item(), rel=1e-4)
    for turns in (1, -3):
        more = 2 * math.pi * turns * (torch.arange(objective.bins) % 2)
        with monkeypatch.context() as patch:
            patch.setattr(ShortTime, "advance", lambda transform, bins, more=more: advance(transform, bins) + more)
            after = objective(batch, 0.0, Draw(0))
        assert after.sum.item() == pytest.approx(before.sum.item(), rel=1e-4)
    with monkeypatch.context() as patch:  # of half a turn an error e becomes 2 − e
        patch.setattr(ShortTime, "advance", lambda transform, bins: advance(transform, bins) + math.pi)
        after = objective(batch, 0.0, Draw(0))
    assert after.sum.item() == pytest.approx(2 * before.weight.item() - before.sum.item(), rel=1e-4)


def test_a_sine_turns_by_its_distance_from_the_bin():
    hertz, fft = 16_000 * 10.3 / 256, 256  # three tenths of a bin above the tenth
    wave = torch.sin(2 * math.pi * hertz * torch.arange(4000) / 16_000)
    objective = nano("objective.encoder.frontend.window=256", "objective.encoder.frontend.fft=256",
                     "objective.encoder.frontend.hop=64")  # fmt: skip
    turn, loudness = objective._turn(objective.transform.analyse(Waves.pad([wave])))
    angle = torch.atan2(turn[..., 1], turn[..., 0])[0, 5:-5, 9:12]
    wanted = torch.tensor([1.3, 0.3, -0.7]) * 2 * math.pi * 64 / fft
    torch.testing.assert_close(angle, wanted.expand_as(angle), atol=0.02, rtol=0)
    assert loudness[0, 20, 10] > 3 * loudness[0, 20, 60]


def test_frequencies_add_up_to_the_phases():
    spectrum = TRANSFORM.spectrum(speech_like(6000, 0))
    steps = (spectrum[1:] * spectrum[:-1].conj()).angle() - TRANSFORM.advance(torch.arange(129))
    phases = TRANSFORM.phases(torch.nn.functional.pad(steps, (0, 0, 1, 0)))
    gap = phases - phases[0] - (spectrum.angle() - spectrum[0].angle())
    assert (gap.cos() > 0.999).all()


def test_silence_counts_for_nothing():
    objective = nano().eval()
    loud = shares(torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]]))
    assert loud.tolist() == [[[0.25, 0.75]], [[0.0, 0.0]]]
    silent = Batch(Waves.pad([torch.zeros(4000)]), (Utterance("u", "/u", 0.25),))
    loss = objective(silent, 0.0, Draw(0))
    assert loss.sum == 0 and loss.weight > 0
    half = speech_like(8000, 0)
    half[4000:] = 0
    spectra = objective.transform.analyse(Waves.pad([half]))
    loudness = objective._turn(spectra)[1][0]
    assert loudness[130:].max() == 0 and (loudness[1:120] > 0).all()
    everywhere = nano("objective.emphasis=0.0")
    assert (everywhere._turn(spectra)[1][0, 1:] == 1).all()


def test_dumb_predictors_say_any_angle_the_centre_and_the_mean():
    objective = nano().eval()
    batch = batch_of((8000, 7000))
    loss = objective(batch, 0.0, Draw(0))
    assert loss.weight == 2 * 15 * 65  # the first frame of a slice has no frame before it
    assert loss.parts["chance"].item() == pytest.approx(loss.weight.item(), rel=1e-5)
    assert loss.parts["bin mean"] < loss.parts["chance"] and set(loss.parts) == {"chance", "bin centre", "bin mean"}
    assert torch.allclose(objective.usual.norm(dim=-1), torch.ones(65))


def test_other_frontends_are_refused():
    with pytest.raises(ConfigError, match=r"encoder is made of log-mel and slices, expected linear and slices"):
        settings("phase", changes=["objective.encoder.frontend.kind=log-mel"])
    with pytest.raises(ConfigError, match=r"encoder\.frontend\.centre is false, expected centred frames"):
        settings("phase", changes=["objective.encoder.frontend.centre=false"])


def test_the_transform_is_undone_exactly():
    samples = speech_like(5003, 1)
    spectrum = TRANSFORM.spectrum(samples)
    assert spectrum.shape == (5003 // 64 + 1, 129)
    torch.testing.assert_close(TRANSFORM.signal(spectrum, 5003)[:4900], samples[:4900], atol=1e-5, rtol=0)
    wide = torch.stft(samples, 256, 64, window=torch.hann_window(256), center=True, return_complex=True).T
    torch.testing.assert_close(spectrum, wide, atol=1e-4, rtol=0)


def test_rounds_bring_signal_and_magnitudes_together():
    magnitude = TRANSFORM.spectrum(speech_like(5000, 1)).abs()
    start = torch.zeros_like(magnitude)
    errors = [
        spectral_error(griffin_lim(magnitude, start, TRANSFORM, 5000, n), magnitude, TRANSFORM) for n in (0, 2, 20)
    ]
    assert errors[0] > errors[1] > errors[2]


def chords(number):
    """Six sounds of six pulsing tones each, of which every one may lie anywhere in its kilohertz."""
    generator, time = torch.Generator().manual_seed(number), torch.arange(8000) / 16_000
    hertz = 500 + 1200 * torch.arange(6) + 300 * torch.rand(6, 6, generator=generator)
    phase = 6.28 * torch.rand(6, 6, generator=generator)
    tones = torch.sin(2 * math.pi * hertz[..., None] * time + phase[..., None]).sum(1)
    waves = Waves(0.05 * tones * (1 + 0.5 * torch.sin(25 * time)), torch.full((6,), 8000))
    return Batch(waves, tuple(Utterance(f"{number}-{row}", "/u", 0.5) for row in range(6)))


def test_the_predicted_phase_is_a_better_start_than_zero():
    sizes = ("frontend.window=256", "frontend.fft=256", "frontend.hop=64", "context.channels=[16]", "context.width=16")
    objective = nano(*(f"objective.encoder.{each}" for each in sizes))
    run = Run(objective, Run.Config(steps=24, learning_rate=1e-2, warmup=0.0))
    list(run.ticks((chords(step % 10),) for step in range(24)))
    objective.eval()
    batch = chords(99)
    loss = objective(batch, 0.0, Draw(0))
    assert loss.sum < 0.95 * loss.parts["bin centre"] < loss.parts["chance"]
    sound = objective.reconstruct(batch, Draw(0))
    assert torch.equal(sound.lengths, batch.waves.lengths)
    errors = []
    for predicted, wave in zip(sound.samples, batch.waves.samples):
        magnitude = objective.transform.spectrum(wave).abs()
        zero = griffin_lim(magnitude, torch.zeros_like(magnitude), objective.transform, 8000, 2)
        errors.append([spectral_error(each, magnitude, objective.transform) for each in (predicted, zero)])
    told, began = torch.tensor(errors).mean(0).tolist()
    assert told < 0.85 * began


def test_predictions_cover_utterances_of_any_length():
    objective = nano().eval()
    waves = batch_of((6000, 700)).waves
    told = objective.frequencies(waves)
    frames = objective.encoder.frontend(waves)
    assert told.shape == frames.values.shape and told.abs().max() <= math.pi + 1e-5
    alone = objective.frequencies(Waves(waves.samples[:1], waves.lengths[:1]))
    torch.testing.assert_close(alone[0], told[0], atol=1e-4, rtol=0)
    assert isinstance(frames, Frames)
