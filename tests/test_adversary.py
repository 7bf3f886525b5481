from dataclasses import replace

import pytest
import torch
from torch import nn

from mockingjay.core.draw import Draw
from mockingjay.core.types import Frames
from mockingjay.downstream.countermeasures import LCNN, Countermeasure, SENet
from mockingjay.downstream.spoofing import Training, train
from mockingjay.encoders.contexts.transformer import Transformer
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.log_mel import LogMel
from mockingjay.moves.hide import Spans
from mockingjay.studies.attack import adversary, defence
from mockingjay.studies.attack.countermeasures import Pipeline
from mockingjay.studies.attack.plan import WEALTH, Costs, outlay, seconds

CLEAN = torch.randn(5, 12, 8, generator=torch.Generator().manual_seed(0)) * 20
WEIGHTS = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))


def curved(values, call=0):
    return (values * WEIGHTS).sum((1, 2)).sin() * 10 + (values * WEIGHTS.flip(0)).square().sum((1, 2))


def generator():
    return torch.Generator().manual_seed(2)


@pytest.mark.parametrize("epsilon", [0.1, 0.3, 1e-3, 7.7, 8.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_value_moves_further_than_allowed(epsilon, dtype):
    clean = CLEAN.to(dtype) * 1.1
    losses = lambda values, call: curved(values.float(), call)  # noqa: E731
    for altered in (
        adversary.fast_gradient_sign(losses, clean, epsilon),
        adversary.projected_gradient(losses, clean, epsilon, steps=3, restarts=2, generator=generator()),
        adversary.random_signs(clean, epsilon, generator()),
    ):
        moved = (altered.double() - clean.double()).abs()
        assert altered.dtype == dtype and moved.max() <= epsilon and moved.max() > 0.98 * epsilon


@pytest.mark.parametrize("epsilon", [0.003, 0.25])
def test_samples_beyond_full_scale_move_no_further_than_allowed(epsilon):
    clean = CLEAN / 20
    assert clean.abs().max() > 2 and (clean.abs() > 1).any((1, 2)).all()
    for altered in (
        adversary.fast_gradient_sign(curved, clean, epsilon, (-1.0, 1.0)),
        adversary.projected_gradient(curved, clean, epsilon, restarts=2, generator=generator(), bounds=(-1.0, 1.0)),
        adversary.random_signs(clean, epsilon, generator(), (-1.0, 1.0)),
    ):
        assert ((altered.double() - clean.double()).abs() <= epsilon).all()
        assert (altered.abs() <= clean.abs().clamp(min=1)).all()  # no sample is carried beyond full scale, or further
        inside = clean.abs() < 1 - epsilon
        assert (altered != clean)[inside].float().mean() > 0.99 and (altered != clean)[clean.abs() > 1].any()


def test_one_step_of_the_whole_bound_from_the_example_is_fgsm():
    once = adversary.projected_gradient(curved, CLEAN, 0.5, steps=1, step=0.5, restarts=5, generator=None)
    fgsm = adversary.fast_gradient_sign(curved, CLEAN, 0.5)
    assert once.equal(fgsm)
    given = CLEAN.clone().requires_grad_(True)
    curved(given).sum().backward()
    torch.testing.assert_close(fgsm, CLEAN + 0.5 * given.grad.sign(), atol=1e-5, rtol=0)


def test_every_example_keeps_its_own_best_start():
    how = {"steps": 2, "step": 0.4}
    drawn = generator()
    starts = [adversary.projected_gradient(curved, CLEAN, 2.0, restarts=1, generator=drawn, **how) for _ in range(4)]
    best = adversary.projected_gradient(curved, CLEAN, 2.0, restarts=4, generator=generator(), **how)
    reached = torch.stack([curved(each) for each in starts])
    torch.testing.assert_close(curved(best), reached.max(0).values)
    assert len(set(reached.argmax(0).tolist())) > 1  # no start is best for all
    alone = adversary.projected_gradient(curved, CLEAN, 2.0, restarts=4, generator=generator(), **how)
    assert alone.equal(best)


def test_stronger_attacks_raise_the_loss_more_and_noise_hardly():
    losses = lambda values, call: (values * WEIGHTS).sum((1, 2))  # noqa: E731
    reached = [
        losses(adversary.fast_gradient_sign(losses, CLEAN, each), 0) - losses(CLEAN, 0) for each in (0.1, 1.0, 10.0)
    ]
    assert (reached[0] > 0).all() and (reached[1] > reached[0]).all() and (reached[2] > reached[1]).all()
    noise = losses(adversary.random_signs(CLEAN, 10.0, generator()), 0) - losses(CLEAN, 0)
    assert (noise < 0.5 * reached[2]).all()


@pytest.fixture(scope="module", params=["LCNN", "SENet"])
def countermeasure(request):
    """A small network that tells apart two tones in noise, after a few updates."""
    answers = torch.arange(32) % 2
    pictures = torch.randn(32, 16, 16, generator=generator())
    pictures[answers == 1, :, 4:8] += 2
    pictures[answers == 0, :, 10:14] += 2
    torch.manual_seed(0)
    lcnn = LCNN.Config(channels=(4, 4, 4, 4, 4, 8), dropout=0.2, batch=16)
    senet = SENet.Config(blocks=(1, 1, 1, 1), widths=(4, 4, 8, 8), batch=16)
    model = LCNN(lcnn, 16, 16) if request.param == "LCNN" else SENet(senet, 16, 16)
    train(model, (pictures, answers), (pictures, answers), Training(), 40, 0)
    return model, pictures, answers


def test_success_on_countermeasures_rises_with_the_bound_and_noise_has_less(countermeasure):
    model, pictures, answers = countermeasure
    line = Pipeline("x", defence.undefended(), model, 0.0)
    losses, modes = line.losses(answers, 0), set()
    hooks = [each.register_forward_pre_hook(lambda own, given: modes.add(own.training)) for each in model.modules()]

    def let_through(altered):
        return float((losses(altered, 0) > 0).float().mean())

    bounds = (0.0, 0.2, 0.5, 2.0)
    how = {"steps": 4, "restarts": 2}
    fgsm = [let_through(adversary.fast_gradient_sign(losses, pictures, each)) for each in (0.0, 0.5)]
    pgd = [
        let_through(adversary.projected_gradient(losses, pictures, each, generator=generator(), **how))
        for each in bounds
    ]
    noise = let_through(adversary.random_signs(pictures, 2.0, generator()))
    for hook in hooks:
        hook.remove()
    assert modes == {False}  # neither dropout nor a norm over the batch
    assert pgd == sorted(pgd) and pgd[0] < 0.1 and pgd[-1] == 1, pgd
    assert fgsm[0] == pgd[0] and fgsm[1] > fgsm[0] + 0.2 and pgd[2] >= fgsm[1] and noise < pgd[3] - 0.2, (
        fgsm,
        pgd,
        noise,
    )


def test_signal_to_noise():
    clean = torch.tensor([[[5.0], [7.0], [5.0], [7.0]]])  # varies by 1 around 6
    assert adversary.signal_to_noise(clean, clean + 0.1).item() == pytest.approx(20, abs=1e-4)


class Mean(Countermeasure):
    """Scores by the mean: pictures high in value are bona fide."""

    def forward(self, pictures):
        score = pictures.mean((1, 2)) * 1e4  # so sure that cross-entropy has no gradient
        return torch.stack([torch.zeros_like(score), score], 1)

    def losses(self, pictures, answers, update):
        raise AssertionError


def test_an_attacker_is_not_stopped_by_a_network_that_is_sure():
    line = Pipeline("x", defence.simple_defences()[0], Mean(), 0.0)
    clean = torch.ones(4, 6, 6)
    answers = torch.tensor([1, 1, 0, 0])
    altered = adversary.fast_gradient_sign(line.losses(answers, 0), clean, 0.5)
    assert altered[:2].equal(clean[:2] - 0.5) and altered[2:].equal(clean[2:] + 0.5)


def test_filters_against_loops():
    frames = torch.randn(2, 6, 5, generator=generator())
    mean = {each.name: each.view(frames, Draw(0)) for each in defence.simple_defences()}
    for t in range(6):
        for d in range(5):
            rows, columns = ([min(max(x + o, 0), top) for o in (-1, 0, 1)] for x, top in ((t, 5), (d, 4)))
            cells = torch.stack([frames[:, i, j] for i in rows for j in columns])
            torch.testing.assert_close(mean["mean filter"][:, t, d], cells.mean(0))
            torch.testing.assert_close(mean["median filter"][:, t, d], cells.median(0).values)
            taps = torch.tensor([-1.0, 0, 1]).square().mul(-0.5).exp()
            weights = torch.outer(taps, taps).flatten()[:, None]
            torch.testing.assert_close(mean["Gaussian filter"][:, t, d], (cells * weights / weights.sum()).sum(0))
    assert mean["no defence"] is frames and mean["adversarial training"] is frames


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    context = Transformer.Config(layers=1, dim=8, heads=2, feedforward=16)
    return Encoder(Encoder.Config(frontend=LogMel.Config(mels=4, deltas=1), context=context)).eval()


def test_networks_in_front(encoder):
    frames = torch.randn(3, 20, 8, generator=generator()).requires_grad_(True)
    seen = defence.states("net", encoder, 1).view(frames, Draw(0))
    torch.testing.assert_close(seen, encoder.context(Frames(frames, torch.full((3,), 20))).last)
    (gradient,) = torch.autograd.grad(seen.square().sum(), frames)
    assert gradient.abs().amax((1, 2)).min() > 0


def test_rebuilding_puts_answers_where_it_has_hidden(encoder):
    head = nn.Linear(8, 8)
    hides = defence.Rebuilding(encoder, head, Spans(share=0.3, width=2))
    rebuilt = defence.rebuilt("net", hides, 1, rounds=1)
    frames = torch.randn(3, 21, 8, generator=generator()).requires_grad_(True)
    once = rebuilt.view(frames, Draw(4))
    changed = (once != frames).any(-1)
    assert 0.1 < changed.float().mean() < 0.6 and (once != frames)[changed].all()
    assert once.equal(rebuilt.view(frames, Draw(4))) and not once.equal(rebuilt.view(frames, Draw(4, 1)))
    thrice = defence.rebuilt("net", hides, 1).view(frames, Draw(4))
    assert (thrice != frames).any(-1).float().mean() > changed.float().mean()
    # A hidden frame tells the answer in its own place nothing.
    (gradient,) = torch.autograd.grad(once[0][changed[0]].sum(), frames)
    assert not gradient[0][changed[0]].any() and gradient[0][~changed[0]].abs().min() > 0
    stacked = defence.stack(frames, 3)
    assert stacked.values.shape == (3, 7, 24)
    assert stacked.values[:, 2, 8:16].equal(frames[:, 7])


def test_expectation_over_draws(encoder):
    hides = defence.Rebuilding(encoder, nn.Linear(8, 8), Spans(share=0.3, width=2))
    line = Pipeline("x", defence.rebuilt("net", hides, 1, rounds=1), Mean(), 0.0)
    frames, answers = torch.randn(2, 20, 8, generator=generator()), torch.tensor([1, 0])
    each = torch.stack([line.scores(frames, Draw(5, epoch)) for epoch in (6, 7, 8)])
    expected = torch.tensor([-1.0, 1.0]) * each.mean(0)
    torch.testing.assert_close(line.losses(answers, 5, draws=3)(frames, 2), expected)
    assert not each[0].equal(each[1])


def test_the_richest_plan_that_fits():
    costs = Costs(
        update={"LCNN": 0.1, "SENet": 0.1},
        gradient={(family, name): 0.01 for family in ("LCNN", "SENet") for name in ("no defence", "net, rebuilt")},
        view={"no defence": 0.001, "net, rebuilt": 0.001},
        wave={"LCNN": 0.01, "SENet": 0.01},
        examples=100,
    )
    chosen = [outlay(budget, costs, "no defence", ("net, rebuilt",)) for budget in (1.0, 200.0, 1000.0, 1e6)]
    places = [WEALTH.index(each) for each in chosen]
    assert places[0] == len(WEALTH) - 1 and places[-1] == 0 and places == sorted(places, reverse=True)
    assert len(set(places)) == 4
    told = [seconds(each, costs, "no defence", ()) for each in (WEALTH[0], replace(WEALTH[0], restarts=1))]
    per_start = 4 * WEALTH[0].adaptive * len(WEALTH[0].decibels) * WEALTH[0].steps * 0.01
    assert told[0] - told[1] > 4 * per_start  # starts are paid for by who knows a defence as well
    heard = seconds(WEALTH[0], replace(costs, waveform=True), "no defence", ())
    assert heard < told[0]
    assert all({8.0, 16.0} <= set(plan.decibels) for plan in WEALTH)
