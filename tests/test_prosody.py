import numpy as np
import pytest
import torch

from mockingjay.audio.prosody import FLOOR, energy, pitch
from mockingjay.core.types import SAMPLE_RATE


def harmonic(frequency, seconds=1.0, harmonics=20):
    """A voice-like tone: partials falling by 6 dB an octave, up to 7 kHz."""
    time = torch.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    orders = range(1, min(harmonics, int(7000 / frequency)) + 1)
    return 0.1 * sum(torch.sin(2 * torch.pi * frequency * order * time) / order for order in orders)


@pytest.mark.parametrize("frequency", [80, 100, 137, 220, 333, 450, 490])
def test_pitch_of_tones(frequency):
    found = pitch(harmonic(frequency))
    assert len(found) == 100 and np.isfinite(found).mean() > 0.95
    assert np.nanmax(np.abs(found / frequency - 1)) < 0.02


def test_the_fundamental_may_be_missing():
    time = torch.arange(SAMPLE_RATE) / SAMPLE_RATE
    found = pitch(0.1 * sum(torch.sin(2 * torch.pi * 150 * order * time) for order in range(2, 8)))
    assert np.nanmax(np.abs(found / 150 - 1)) < 0.02


def test_a_glide_is_followed():
    time = torch.arange(2 * SAMPLE_RATE, dtype=torch.float64) / SAMPLE_RATE
    phase = 2 * torch.pi * (100 * time + 50 * time**2 / 2)  # 100 to 200 Hz
    found = pitch((0.1 * sum(torch.sin(order * phase) / order for order in range(1, 10))).float())
    true = 100 + 50 * (np.arange(200) + 0.5) * 0.01
    assert np.isfinite(found).mean() > 0.95 and np.nanmax(np.abs(found / true - 1)) < 0.02


def test_gain_changes_nothing():
    tone = harmonic(137) + 0.003 * torch.randn(SAMPLE_RATE)
    np.testing.assert_allclose(pitch(tone), pitch(0.01 * tone), rtol=1e-4)
    np.testing.assert_allclose(energy(tone), energy(0.01 * tone), atol=1e-3)


def test_what_is_no_voice_has_no_pitch():
    noise = 0.1 * torch.randn(SAMPLE_RATE)
    assert np.isnan(pitch(noise)).all()
    assert np.isnan(pitch(torch.zeros(SAMPLE_RATE))).all()
    both = pitch(torch.cat([harmonic(150), noise]))
    assert np.isfinite(both[5:95]).all() and np.isnan(both[105:]).all()


def test_a_lonely_jump_is_left_out():
    tone = torch.cat([harmonic(120, 0.5), harmonic(360, 0.02), harmonic(120, 0.5)])
    found = pitch(tone)
    assert np.nanmax(found) < 130


def test_energy_is_exact():
    samples = 0.1 * torch.randn(SAMPLE_RATE) * torch.linspace(0, 1, SAMPLE_RATE)
    whole = samples.double().square().mean()
    expected = []
    for centre in range(80, SAMPLE_RATE, 160):
        part = samples.double()[max(0, centre - 200) : centre + 200]
        expected.append(max(FLOOR, 10 * np.log10(float(part.square().mean() / whole))))
    np.testing.assert_allclose(energy(samples), expected, atol=1e-9)
    assert (energy(torch.zeros(1000)) == FLOOR).all()


@pytest.mark.parametrize(("samples", "points"), [(0, 0), (80, 0), (81, 1), (240, 1), (241, 2), (1600, 10)])
def test_points_lie_in_the_middle_of_ten_milliseconds(samples, points):
    assert len(pitch(torch.zeros(samples))) == len(energy(torch.zeros(samples))) == points
