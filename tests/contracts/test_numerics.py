"""What every objective promises about numbers: the same on every machine, finite on any sound, untouched by a bad step.

Golden losses are written anew, after a change that is meant to change them or for an objective that has none yet, by

    pytest -n 0 tests/contracts/test_numerics.py -k golden --golden
"""

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from speech_like import batch_of, speech_like

from mockingjay.core.draw import Draw
from mockingjay.core.errors import TrainingError
from mockingjay.core.types import Batch, Utterance, Waves
from mockingjay.objectives import OBJECTIVES, build_objective
from mockingjay.settings import settings
from mockingjay.train.loop import Run

GOLDEN = Path(__file__).parent / "golden"
LENGTHS = (6_000, 12_000)  # samples


@pytest.fixture(params=list(OBJECTIVES))
def name(request):
    return request.param


def begun(name, steps=20):
    torch.manual_seed(1)
    objective = build_objective(settings(name, "nano").objective)
    objective.prepare([batch_of()])
    return Run(objective, Run.Config(steps=steps, learning_rate=1e-3))


def test_golden_losses(name, request):
    """Within a thousandth: processors and torch versions add up in another order, and training amplifies it."""
    run, path = begun(name), GOLDEN / f"{name}.json"
    steps = [(batch_of(LENGTHS, 10 * step),) for step in range(20)]
    losses = [tick.loss for tick in run.ticks(steps)]
    if request.config.getoption("--golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps([float(f"{loss:.7g}") for loss in losses]) + "\n")
    assert all(losses), "nothing is scored"
    assert path.exists(), f"{name} has no golden losses: see the top of this file"
    assert losses == pytest.approx(json.loads(path.read_text()), rel=1e-3)


def test_a_step_that_is_not_finite_leaves_everything_as_it_was(name, monkeypatch):
    """Weights, moments, and what is followed in the forward pass; two steps are no more than it takes."""
    run = begun(name)
    forward = type(run.learner).forward

    def exploding(self, batch, progress, draw):
        loss = forward(self, batch, progress, draw)
        return replace(loss, sum=loss.sum * (torch.nan if batch.epoch == 1 else 1.0))

    monkeypatch.setattr(type(run.learner), "forward", exploding)
    sentence = r"step 2: gradient norm is nan .*\(utterances u10, u11\), .*last whole step 1: "
    with pytest.raises(TrainingError, match=sentence):
        for _ in run.ticks([(batch_of(LENGTHS),), (batch_of(LENGTHS, 10, 1),)]):
            kept = copy.deepcopy((run.learner.state_dict(), run.optimiser.tensors()))
    assert run.step == 1
    for before, after in zip(kept, (run.learner.state_dict(), run.optimiser.tensors())):
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def extremes(samples=4_800):
    """Twenty waves that a reader would let through."""
    time = torch.arange(samples)
    noise, half = speech_like(samples, 0), samples // 2
    click = torch.zeros(samples)
    click[half] = 1.0
    square = (time // 40 % 2) * 2.0 - 1
    return [
        torch.zeros(samples), torch.ones(samples), -torch.ones(samples), torch.full((samples,), 100.0),
        torch.full((samples,), 1e-30), torch.full((samples,), 1e-40), noise * 1e-30, noise * 1e-8, noise * 1e3,
        noise.sign(), square, square * 100, (time % 2) * 2.0 - 1, click, -100 * click, time / samples,
        torch.where(time < half, noise, 0.0), torch.where(time < half, 0.0, noise), 1 + 1e-6 * noise,
        torch.sin(time * 1e-4),
    ]  # fmt: skip


def test_losses_and_gradients_are_finite_on_any_sound(name):
    waves = extremes()
    assert len(waves) == 20
    utterances = tuple(Utterance(f"x{index}", "", len(wave) / 16_000) for index, wave in enumerate(waves))
    run = begun(name)
    loss = run.learner.train()(Batch(Waves.pad(waves), utterances), 0.5, Draw(0))
    loss.sum.backward()
    assert loss.sum.isfinite()
    for key, parameter in run.learner.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), key
    run.learner.eval()
    with torch.no_grad():
        hidden = run.learner.encoder(Waves.pad(waves))
    assert all(layer[hidden.valid].isfinite().all() for layer in hidden.layers)


def test_precisions_agree(name):
    """Double and single precision to 1e-4, bfloat16 (matrix products only) to 3 % of the spread."""
    encoder = begun(name).learner.encoder.eval()
    waves = batch_of(LENGTHS).waves
    with torch.no_grad():
        single = encoder(waves)
        with torch.autocast("cpu", torch.bfloat16):
            brief = encoder(waves)
        double = copy.deepcopy(encoder).double()(replace(waves, samples=waves.samples.double()))
    valid = single.valid
    # A code that is nearly as near as another may be another code.
    share = 0.2 if any("codebook" in key for key in encoder.state_dict()) else 0.03
    for one, two, three in zip(single.layers, double.layers, brief.layers):
        scale = one[valid].std()
        assert (one - two)[valid].abs().max() <= 1e-4 * max(1.0, float(scale)), "double"
        assert (one - three.float())[valid].square().mean().sqrt() <= share * scale, "bfloat16"


def test_one_thread_and_two():
    encoder, waves = begun("tera").learner.encoder.eval(), batch_of(LENGTHS).waves
    with torch.no_grad():
        one = encoder(waves).last
        torch.set_num_threads(2)
        try:
            two = encoder(waves).last
        finally:
            torch.set_num_threads(1)
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


COMPILED = """
import sys
import torch
from torch._dynamo.utils import counters
from speech_like import batch_of
from mockingjay.objectives import build_objective
from mockingjay.settings import settings
from mockingjay.train.loop import Run

def losses(compile):
    torch.manual_seed(1)
    still = [f"objective.encoder.context.{name}=0.0" for name in ("dropout", "attention_dropout")]
    objective = build_objective(settings("mockingjay", "nano", still).objective)
    objective.prepare([batch_of()])
    run = Run(objective, Run.Config(steps=20, learning_rate=1e-3, compile=compile))
    return [tick.loss for tick in run.ticks((batch_of((6_000, 12_000 + 800 * step)),) for step in range(3))]

plain, compiled = losses("off"), losses("on")
assert counters["stats"]["unique_graphs"] > 0, counters
assert all(abs(one - two) < 1e-5 for one, two in zip(plain, compiled)), (plain, compiled)
"""


@pytest.mark.slow
def test_compiled_blocks_train_as_others_do():
    """In a process of its own, for the compiler cannot see through the types that are checked in this one."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)]),
    }
    subprocess.run([sys.executable, "-c", COMPILED], env=environment, check=True, timeout=900)
