import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_curve

from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.types import Utterance, Waves
from mockingjay.downstream import detection, spoofing
from mockingjay.downstream.countermeasures import LCNN, Decibels, SENet
from mockingjay.downstream.countermeasures.lcnn import _with_margin
from mockingjay.downstream.scores import bounded

SMALL = LCNN.Config(channels=(4, 4, 4, 4, 4, 8))


def parameters(module):
    return sum(each.numel() for each in module.parameters())


@pytest.mark.parametrize(
    ("channels", "published"), [((32, 48, 64, 32, 32, 80), 10_198_816), ((8, 12, 12, 4, 4, 32), 509_072)]
)
def test_lcnn_is_as_large_as_published(channels, published):
    # The code makes a norm for the input of each group, and never uses them.
    unused = 2 * sum(channels[:4])
    assert parameters(LCNN(LCNN.Config(channels=channels), 600, 863)) + unused == published


@pytest.mark.parametrize(("blocks", "published"), [((1, 2, 3, 1), 478_546), ((3, 4, 6, 3), 1_343_762)])
def test_senet_is_as_large_as_published(blocks, published):
    assert parameters(SENet(SENet.Config(blocks=blocks), 600, 863)) == published


def test_published_features():
    frontend = Decibels(Decibels.Config())
    samples = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(77_870) / 16_000)
    frames = frontend(Waves.pad([samples]))
    assert frames.values.shape == (1, 600, 863)
    window = np.blackman(1725)[:-1]
    excerpt = samples[13_000 - 862 : 13_000 + 862].double().numpy()  # frame 100 is centred on sample 13 000
    expected = 10 * np.log10(np.abs(np.fft.rfft(excerpt * window)) ** 2 + 1e-10)
    loud = expected > -20
    np.testing.assert_allclose(frames.values[0, 100].numpy()[loud], expected[loud], atol=0.05)


@pytest.mark.parametrize("model", [LCNN(SMALL, 20, 24), SENet(SENet.Config(), 20, 24)])
def test_every_weight_learns_and_examples_are_on_their_own(model):
    pictures, answers = torch.randn(6, 20, 24), torch.tensor([0, 1, 0, 1, 1, 0])
    model.scale.fit(pictures)
    model.train().losses(pictures, answers, 0).sum().backward()
    for name, each in model.named_parameters():
        assert each.grad is not None and each.grad.isfinite().all() and each.grad.any(), name
    model.eval()
    scores = model.scores(pictures)
    torch.testing.assert_close(scores[:2], model.scores(pictures[:2]), atol=1e-5, rtol=1e-4)
    logits = model(pictures)
    torch.testing.assert_close(scores, logits[:, 1] - logits[:, 0])


def test_the_margin_is_that_of_the_angle():
    length = torch.tensor([2.0, 3.0, 1.5, 1.0])
    angle = torch.tensor([0.2, 1.0, 1.8, 3.0])
    logits = torch.stack([length * angle.cos(), torch.zeros(4)], 1)
    for update in (0, 100_000):
        share = max(5, 1500 / (1 + 0.1 * update))
        k = (4 * angle / torch.pi).floor()
        psi = (-1) ** k * (4 * angle).cos() - 2 * k
        expected = length * (share * angle.cos() + psi) / (1 + share)
        found = _with_margin(logits, length, torch.zeros(4, dtype=torch.long), update)
        torch.testing.assert_close(found[:, 0], expected, atol=1e-5, rtol=0)
        assert (found[:, 0] <= logits[:, 0] + 1e-6).all() and not found[:, 1].any()


def test_too_small_a_picture_is_refused():
    with pytest.raises(ConfigError, match="LCNN: pictures of 10 steps by 80 values, expected at least 16 of both; rai"):
        LCNN(SMALL, 10, 80)


@pytest.mark.parametrize("seed", range(5))
def test_equal_error_rate_is_where_sklearns_curve_meets_it(seed):
    random = np.random.default_rng(seed)
    bonafide = random.random(60) < 0.3
    scores = np.round(random.normal(size=60) + bonafide, seed % 3)  # some are equal
    fpr, tpr, _ = roc_curve(bonafide, scores, drop_intermediate=False)
    apart = 1 - tpr - fpr
    after = np.argmax(apart <= 0)
    share = apart[after - 1] / (apart[after - 1] - apart[after])
    expected = fpr[after - 1] + share * (fpr[after] - fpr[after - 1])
    assert detection.curve(scores, bonafide).equal_error[0] == pytest.approx(expected)


def test_thresholds_and_costs():
    scores, bonafide = np.array([-2.0, -1.0, 3.0, 4.0]), np.array([False, False, True, True])
    found = detection.curve(scores, bonafide)
    assert found.threshold == 1.0 and found.equal_error[0] == 0 and found.least_cost(detection.Tandem())[0] == 0
    useless = detection.curve(np.zeros(4), bonafide)
    assert useless.equal_error[0] == 0.5 and useless.least_cost(detection.Tandem())[0] == 1
    of_miss, of_alarm = detection.Tandem().weights
    assert of_alarm == 1 and of_miss == pytest.approx(2.406, abs=0.002)  # the challenge's own on logical access
    one_missed = detection.curve(np.array([-2.0, -1.0, -3.0, 4.0]), bonafide)
    assert one_missed.least_cost(detection.Tandem())[0] == pytest.approx(1.0)  # half missed costs 1.2
    counted = detection.curve(
        scores[[0, 1, 2, 3, 3]], bonafide[[0, 1, 2, 3, 3]] & np.array([1, 1, 0, 1, 1], dtype=bool)
    )
    weighed = detection.curve(scores, np.array([False, False, False, True]), np.array([[1.0, 1.0, 1.0, 2.0]]))
    np.testing.assert_allclose(counted.equal_error, weighed.equal_error)
    measured = detection.detection(scores, bonafide, 0)
    assert measured["EER"] == (0.0, [0.0, 0.0]) and list(measured) == ["EER", "min t-DCF"]


def test_errors_at_every_threshold_are_counted_as_they_are_defined():
    random = np.random.default_rng(0)
    bonafide = np.arange(60) % 3 == 0
    scores = random.integers(0, 12, 60) / 4 + bonafide / 2  # many are equal
    drawn = random.integers(0, 4, (20, 60)).astype(float)
    found = detection.curve(scores, bonafide, drawn)
    assert len(found.thresholds) == len(set(scores)) + 1
    for row, misses, alarms in zip(drawn, found.misses, found.alarms):
        below = scores < found.thresholds[:, None]
        np.testing.assert_allclose(misses, (row * below * bonafide).sum(1) / row[bonafide].sum(), atol=1e-12)
        np.testing.assert_allclose(alarms, (row * ~below * ~bonafide).sum(1) / row[~bonafide].sum(), atol=1e-12)
    low, high = bounded(np.eye(60), lambda counts: detection.curve(scores, bonafide, counts).equal_error, seed=1)
    assert detection.detection(scores, bonafide, 1)["EER"][1] == pytest.approx([float(low), float(high)])


def test_the_trials_of_a_challenge_are_measured_in_little_memory():
    trials = 70_000  # a table of them by them would be of 39 GB
    bonafide = np.arange(trials) % 10 == 0
    scores = np.random.default_rng(0).normal(size=trials) + 2 * bonafide
    tracemalloc.start()
    value, (low, high) = detection.detection(scores, bonafide, 0, resamples=40)["EER"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150e6
    assert value == pytest.approx(0.1587, abs=0.01) and low < value < high < low + 0.02  # Φ(−1)


def utterances(column="spoof"):
    values = ["bonafide", "spoof", "spoof", "spoof"]
    return [Utterance(f"u{n}", f"/u{n}.wav", 1.0, labels={column: values[n % 4]}) for n in range(40)]


@pytest.mark.parametrize("column", ["spoof", "label"])
def test_labels_and_balance(column):
    found = utterances(column)
    task = spoofing.spoof_task(found)
    assert task is not None and task.name == f"label:{column}"
    names = [task.names(each)[0] for each in spoofing.balanced(found, task, 30)]
    assert names.count("bonafide") == 10 and names.count("spoof") == 15
    names = [task.names(each)[0] for each in spoofing.balanced(found, task, 30, even=True)]
    assert names.count("bonafide") == names.count("spoof") == 10
    assert spoofing.spoof_task([each for each in found if task.names(each) == ("spoof",)]) is None


def test_stretches(tmp_path):
    import soundfile

    wave = torch.linspace(-0.5, 0.5, 1000)
    found = []
    for number, (label, length) in enumerate([("bonafide", 1000), ("spoof", 300)]):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, wave[:length].numpy(), 16_000, subtype="FLOAT")
        found.append(Utterance(f"u{number}", str(path), length / 16_000, labels={"spoof": label}))
    task = spoofing.spoof_task(found)
    read = spoofing.stretches(found, task, 700)
    torch.testing.assert_close(read.samples[0], wave[:700])
    torch.testing.assert_close(read.samples[1], wave[:300].repeat(3)[:700])
    assert read.answers.tolist() == [1, 0] and read.bonafide.tolist() == [True, False]
    drawn = spoofing.stretches(found, task, 700, crops=3, seed=0)
    assert drawn.ids == ("u0", "u0", "u0", "u1", "u1", "u1") and not drawn.samples[0].equal(drawn.samples[1])
    with pytest.raises(DataError, match="2 stretches of one class only, expected bona fide and spoofed ones"):
        spoofing.stretches([found[0], found[0]], task, 700)


@pytest.mark.parametrize("family", [LCNN, SENet])
def test_training_tells_classes_apart_and_is_a_function_of_its_seed(family):
    answers = torch.arange(48) % 4 // 3  # a quarter is bona fide
    pictures = torch.randn(48, 32, 32) + answers[:, None, None] * torch.linspace(-3, 3, 32)
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        config = (
            LCNN.Config(channels=(4, 4, 4, 4, 4, 16), dropout=0.0, batch=8) if family is LCNN else SENet.Config(batch=8)
        )
        model = family(config, 32, 32)
        learn, dev = (pictures[:32], answers[:32]), (pictures[32:], answers[32:])
        spoofing.train(model, learn, dev, spoofing.Training(), 24, 0)
        found.append(spoofing.scored(model, pictures[32:]))
    torch.testing.assert_close(found[0], found[1])
    right = (found[0] > 0) == (answers[32:] == 1)
    assert right.float().mean() > 0.85 and not model.training
    assert F.softplus(-(2.0 * answers[32:] - 1) * found[0]).mean() < 0.6
