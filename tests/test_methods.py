"""What the methods promise over many draws, each with the spans of its published settings."""

import math

import numpy as np
import pytest
import torch
from speech_like import batch_of

from mockingjay.core.draw import Draw
from mockingjay.core.types import Frames
from mockingjay.encoders.attention import Block
from mockingjay.moves.alter import choose_bands
from mockingjay.moves.hide import hide
from mockingjay.objectives import build_objective
from mockingjay.settings import settings

DRAWS = 10_000
SPANS = {
    "mockingjay": lambda objective: objective.hide,
    "tera": lambda objective: objective.time,
    "audio-albert": lambda objective: objective.hide,
    "mpc": lambda objective: objective.hide,
}
# Frames covered by overlapping spans of seven, drawn as if each place were free: 1 − e^−0.15; single steps exactly.
SHARES = {"mockingjay": 1 - math.exp(-0.15), "tera": 1 - math.exp(-0.15), "audio-albert": 0.15, "mpc": 0.15}


def ids(count):
    return tuple(f"utterance-{index}" for index in range(count))


def chi_square(observed, expected):
    return float(((np.asarray(observed) - np.asarray(expected)) ** 2 / np.asarray(expected)).sum())


@pytest.fixture(scope="module")
def frames():
    generator = torch.Generator().manual_seed(0)
    return Frames(torch.randn(DRAWS, 60, 2, generator=generator), torch.full((DRAWS,), 60))


@pytest.mark.parametrize("name", SPANS)
def test_what_is_selected_becomes_zero_or_another_or_stays_at_the_published_rates(name, frames):
    spans = SPANS[name](settings(name).objective)
    altered, selected = hide(frames, spans, Draw(0), ids(DRAWS))
    zero = (altered.values == 0).all(-1) & selected
    changed = (altered.values != frames.values).any(-1) & ~zero
    assert not (changed & ~selected).any() and not ((altered.values == 0).all(-1) & ~selected).any()
    if spans.per == "utterance":  # one die for all of an utterance's spans
        counts = [zero.any(1).sum(), (changed.any(1) & ~zero.any(1)).sum()]
        assert torch.equal(zero.any(1), (zero == selected).all(1)) and selected.any(1).all()
    else:
        counts = [zero.sum(), changed.sum()]
    total = DRAWS if spans.per == "utterance" else int(selected.sum())
    # A span put in its own place counts as untouched: one replacement in 54 to 60.
    places = 60 - spans.width + 1
    replaced = 0.1 * total * (1 - 1 / places)
    expected = [0.8 * total, replaced, 0.2 * total - replaced]
    limit = 13.8 if spans.width == 1 else 20.0  # χ², p > 1e-3; several spans are seldom all put in their own places
    assert chi_square([*counts, total - sum(counts)], expected) < limit


@pytest.mark.parametrize("name", SPANS)
def test_the_masked_share_is_the_published_one(name, frames):
    spans = SPANS[name](settings(name).objective)
    long = Frames(torch.zeros(400, 1000, 1), torch.full((400,), 1000))
    _, selected = hide(long, spans, Draw(1), ids(400))
    assert selected.float().mean().item() == pytest.approx(SHARES[name], abs=0.002)
    short = Frames(frames.values[:2000], frames.lengths[:2000])
    _, selected = hide(short, spans, Draw(1), ids(2000))
    first, last = selected[:, 0].float().mean().item(), selected[:, -1].float().mean().item()
    assert first > 0.005 and first == pytest.approx(last, abs=0.03)  # the last frame is reached like the first


def test_bands_of_masked_reconstruction_are_uniform_in_width_and_place():
    masks = settings("masked-reconstruction").objective.channel
    bands = choose_bands(torch.full((DRAWS,), 80), 80, 1, (1, masks.widest), Draw(0), ids(DRAWS), "channel")
    widths = bands.sum(1)
    assert chi_square(torch.bincount(widths, minlength=17)[1:], [DRAWS / 16] * 16) < 37.7  # χ² of 15, p > 1e-3
    starts = bands.byte().argmax(1)[widths == 16]
    assert starts.min() == 0 and starts.max() == 64
    assert starts.float().mean().item() == pytest.approx(32, abs=4 * 18.8 / len(starts) ** 0.5)
    both = choose_bands(torch.full((DRAWS,), 80), 80, masks.count, (1, masks.widest), Draw(1), ids(DRAWS), "channel")
    assert bands.float().mean() < both.float().mean() < 2 * bands.float().mean()  # two bands, which may overlap
    assert both[:, 0].any() and both[:, -1].any()


def test_no_gradient_comes_from_inside_a_slice():
    objective = build_objective(settings("decoar", "nano").objective)
    frames = objective.encoder.frontend(batch_of((24_000,)).waves)
    values = frames.values.requires_grad_()
    start, reach = 40, objective.config.width - 1
    objective._around(Frames(values, frames.lengths))[0, start].square().sum().backward()
    seen = values.grad[0].abs().sum(-1) > 0
    assert not seen[start + 1 : start + reach].any()
    assert seen[: start + 1].any() and seen[start] and seen[start + reach] and seen[start + reach :].any()


def test_the_published_size_of_a_layer():
    with torch.device("meta"):
        assert sum(each.numel() for each in Block(768, 12, 3072, 0.1, 0.1).parameters()) == 7_087_872
