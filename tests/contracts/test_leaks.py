"""What every frontend promises, over the table and every normalisation it has: its frames know what it declares."""

import itertools

import pytest
import torch
from speech_like import speech_like

from mockingjay.audio import FRAME
from mockingjay.core.types import Waves
from mockingjay.downstream.countermeasures.decibels import Decibels
from mockingjay.encoders.contexts import Recurrent, Transformer
from mockingjay.encoders.frontends import (
    FRONTENDS,
    MFCC,
    Fbank,
    Linear,
    LogMel,
    Posteriors,
    Precomputed,
    Recogniser,
    Stacked,
    Waveform,
)

SAMPLES, NOW, REACH = 24_000, 14_000, 4_000  # samples; the widest reach is that of derivatives
NORMALISED = ("none", "utterance", "global")
LEVELS = (None, -25.0)


def spectral():
    for kind in (LogMel, Linear):
        for by, level in itertools.product(NORMALISED, LEVELS):
            yield kind.Config(normalise=by, level=level)
    for kind in (Fbank, MFCC, Precomputed):
        yield from (kind.Config(normalise=by) for by in NORMALISED)
    yield from (Fbank.Config(normalise=by, deltas=2) for by in NORMALISED)


def learned():
    for norm in ("none", "channel", "layer", "group", "instance", "batch"):
        yield Waveform.Config(channels=4, norm=norm)
        yield Waveform.Config(channels=4, norm=norm, normed="first")


def recognisers(inner):
    every_way = Transformer.Config(layers=1, dim=8, feedforward=8, heads=1)
    for context in (None, Recurrent.Config(layers=1, dim=4), every_way):
        yield Recogniser.Config(phones=("a", "sil"), layers=(-1,), frontend=inner, context=context)


def configs():
    yield from spectral()
    yield from learned()
    for inner in (LogMel.Config(normalise=by, level=level) for by in NORMALISED for level in LEVELS):
        yield Stacked.Config(inner=inner)
        yield Posteriors.Config(inner=inner, units=4, temperature=5.0)
        yield from recognisers(inner)


def named(config):
    inner = getattr(config, "inner", getattr(config, "frontend", config))
    words = [config.kind, *([] if inner is config else [inner.kind])]
    words += [f"{key} {getattr(inner, key)}" for key in ("normalise", "level", "norm", "normed") if hasattr(inner, key)]
    context = getattr(config, "context", None)
    return ", ".join(words) + (f", {context.kind}" if context else "")


def heard(frontend, seed):
    """Sound, or features where they are read."""
    samples = speech_like(SAMPLES, seed)
    if frontend.reads is not None:
        samples = samples.view(-1, FRAME).clone()
        samples[:, frontend.reads :] = 0
    return samples.flatten()


def ready(config):
    frontend = FRONTENDS[config.kind](config).train()
    frontend.fit([Waves.pad([heard(frontend, seed)]) for seed in (1, 2)])
    if isinstance(frontend, Recogniser):
        frontend.inner.fit([Waves.pad([heard(frontend, seed)]) for seed in (1, 2)])
        frontend.shares.fill_(1.0)
        torch.nn.init.normal_(frontend.weight)
    return frontend


def same_past(frontend):
    """Whether frames of the past stay as they are where everything later becomes louder and another sound."""
    samples = heard(frontend, 3)
    changed = torch.cat([samples[:NOW], 3 * heard(frontend, 4)[NOW:]])
    early = (NOW - REACH) // frontend.grid.hop
    with torch.no_grad():
        one, other = (frontend(Waves.pad([each])).values[0] for each in (samples, changed))
    assert early > 10 and not torch.allclose(one[early:], other[early:], atol=1e-3), "the future is no other"
    return torch.allclose(one[:early], other[:early], atol=1e-5)


def test_every_frontend_is_here():
    assert {config.kind for config in configs()} == set(FRONTENDS)


@pytest.mark.parametrize("config", list(configs()), ids=named)
def test_frames_know_of_the_future_what_is_declared(config):
    """The future where something is taken over the utterance, or the batch; nothing where not."""
    frontend = ready(config)
    assert same_past(frontend) == (frontend.leaks == "nothing")


def test_the_countermeasures_frames_know_nothing_of_the_future():
    frontend = Decibels(Decibels.Config())
    assert frontend.leaks == "nothing" and same_past(frontend)
