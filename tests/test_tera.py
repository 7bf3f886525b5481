import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from speech_like import batch_of

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames
from mockingjay.encoders.contexts.transformer import Transformer
from mockingjay.moves.alter import Noise, add_noise, choose_bands, hide_channels
from mockingjay.moves.guess import PREDICTORS
from mockingjay.moves.hide import hide
from mockingjay.moves.rebuild import Altered, prediction_network, trivial
from mockingjay.objectives.tera import TERA
from mockingjay.settings import preset_names, settings

SMALL = [
    "objective.encoder.context.layers=1",
    "objective.encoder.context.dim=32",
    "objective.encoder.context.feedforward=64",
    "objective.encoder.context.heads=2",
]
COMBINATIONS = ["time", "channel", "magnitude", "time-channel", "time-magnitude", "channel-magnitude", "base"]


def small(preset="base", *changes):
    torch.manual_seed(0)
    return TERA(settings("tera", preset, [*SMALL, *changes]).objective)


def ids(count):
    return tuple(f"utterance-{index}" for index in range(count))


def asked(count, channels, widths=None, seed=0):
    widths = widths or (0, int(0.2 * channels))
    return choose_bands(torch.full((count,), channels), channels, 1, widths, Draw(seed), ids(count), "channel")


def edges(row):
    return int(np.abs(np.diff(np.concatenate([[0], row.numpy().astype(int), [0]]))).sum())


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [("base", 21_327_360), ("medium", 42_590_976), ("large", 85_118_208), ("slim", 14_238_336)],
)
def test_published_sizes(preset, parameters):
    with torch.device("meta"):
        context = Transformer(settings("tera", preset).objective.encoder.context, 80)
    assert sum(parameter.numel() for parameter in context.parameters()) == parameters


def test_the_encoder_on_fmllr_has_its_published_size():
    with torch.device("meta"):
        context = Transformer(settings("tera").objective.encoder.context, 40)
    assert sum(parameter.numel() for parameter in context.parameters()) == 21_296_640


def test_the_head_has_its_published_size():
    with torch.device("meta"):
        head = prediction_network(768, 80)
    assert sum(parameter.numel() for parameter in head.parameters()) == 653_648


def test_presets_hold_all_seven_combinations_of_axes():
    assert set(COMBINATIONS) <= set(preset_names("tera"))
    chosen = {settings("tera", preset).objective.axes for preset in COMBINATIONS}
    assert len(chosen) == 7 and settings("tera").objective.axes == ("time", "channel", "magnitude")


@pytest.mark.parametrize("axes", ["[]", '["time", "time"]'])
def test_axes_are_at_least_one_and_different(axes):
    with pytest.raises(ConfigError, match=r"objective: axes \[.*\] must be at least one of them, each at most once"):
        settings("tera", "base", [f"objective.axes={axes}"])


@pytest.mark.parametrize("preset", COMBINATIONS)
def test_what_is_asked_follows_from_the_axes(preset):
    objective = small(preset).train()
    batch = batch_of()
    altered = objective._alter(batch, Draw(3))
    axes, valid = objective.config.axes, altered.true.valid
    names = tuple(utterance.id for utterance in batch.utterances)
    expected = torch.zeros(altered.true.values.shape, dtype=torch.bool)
    if "time" in axes:
        _, spans = hide(altered.true, objective.spans, Draw(3), names)
        expected |= spans[:, :, None]
    if "channel" in axes:
        expected |= choose_bands(torch.full((4,), 80), 80, 1, (0, 16), Draw(3), names, "channel")[:, None, :]
    if axes == ("magnitude",):
        expected[:] = True
    expected &= valid[:, :, None]
    assert torch.equal(altered.cells.expand_as(expected), expected)
    assert objective(batch, 0.0, Draw(3)).weight == expected.sum()


@pytest.mark.parametrize("preset", COMBINATIONS)
def test_what_is_read_differs_from_what_is_true_only_where_the_axes_say(preset):
    objective = small(preset, "objective.magnitude.probability=1.0", "objective.time.random=0.0").train()
    altered = objective._alter(batch_of(), Draw(4))
    read, true = altered.read.values, altered.true.values
    cells = altered.cells.expand_as(true)
    if "magnitude" in objective.config.axes:
        assert ((read != true) | (read == 0))[altered.true.valid].all()
    else:
        assert torch.equal(read[~cells], true[~cells])
    if altered.channels is not None:
        hidden = altered.channels[:, None, :] & altered.true.valid[:, :, None]
        assert hidden.any() and (read[hidden] == 0).all()
    assert (read[~altered.true.valid] == 0).all()


def test_noise_leaves_what_is_asked_as_it_is():
    noisy, plain = small("base", "objective.magnitude.probability=1.0").train(), small("time-channel").train()
    one, other = (objective._alter(batch_of(), Draw(5)) for objective in (noisy, plain))
    assert torch.equal(one.cells, other.cells) and torch.equal(one.true.values, other.true.values)
    assert not torch.equal(one.read.values, other.read.values)


@pytest.mark.parametrize("preset", COMBINATIONS)
def test_prediction_gets_its_gradient_from_asked_cells_alone(preset):
    objective = small(preset).train()
    rebuilt = {}
    rows = objective.head.register_forward_hook(lambda module, inputs, output: rebuilt.update(output=output))
    loss = objective(batch_of(), 0.0, Draw(6))
    rebuilt["output"].retain_grad()
    loss.sum.backward()
    rows.remove()
    cells = objective._alter(batch_of(), Draw(6)).cells.expand(-1, -1, 80)
    assert torch.equal(rebuilt["output"].grad != 0, cells[cells.any(-1)])


def test_the_loss_is_the_mean_absolute_error_on_asked_cells():
    objective = small("base").eval()
    altered = objective._alter(batch_of(), Draw(7))
    rebuilt = objective.head(objective.encoder.context(altered.read).last)
    loss = objective(batch_of(), 0.0, Draw(7))
    by_hand = (rebuilt - altered.true.values).abs()[altered.cells]
    assert loss.mean.item() == pytest.approx(by_hand.mean().item(), rel=1e-5)
    assert loss.weight == by_hand.numel()


@pytest.mark.parametrize("channels", [40, 80])
def test_bands_are_contiguous_uniform_in_width_and_no_wider_than_their_share(channels):
    count = 9000
    bands = asked(count, channels)
    widths = bands.sum(1)
    most = int(0.2 * channels)
    assert all(edges(row) in (0, 2) for row in bands[:500])
    observed = torch.bincount(widths, minlength=most + 1).numpy()
    assert len(observed) == most + 1
    expected = count / (most + 1)
    assert ((observed - expected) ** 2 / expected).sum() < most + 4.5 * (2 * most) ** 0.5  # χ², 4.5 deviations


def test_the_last_channel_is_reached_as_often_as_the_first():
    share = asked(20_000, 40).float().mean(0)
    assert share[0] > 0.01 and share[-1] > 0.01
    assert share[0].item() == pytest.approx(share[-1].item(), abs=0.005)
    assert share[20] > 2 * share[0]


@hypothesis_settings(max_examples=100, deadline=None)
@given(
    extents=st.lists(st.integers(1, 90), min_size=1, max_size=5),
    count=st.integers(1, 3),
    least=st.integers(0, 3),
    more=st.integers(0, 60),
)
def test_properties_of_any_bands(extents, count, least, more):
    widths, names = (least, least + more), ids(len(extents))
    bands = choose_bands(torch.tensor(extents), max(extents) + 2, count, widths, Draw(1), names, "time")
    for row, extent in enumerate(extents):
        assert not bands[row, extent:].any()
        assert not bands[row, :extent].all()  # something stays visible
        assert bands[row].sum() <= count * widths[1] and edges(bands[row]) <= 2 * count
        assert bands[row].any() or least == 0 or extent <= count
        alone = choose_bands(torch.tensor([extent]), extent, count, widths, Draw(1), (names[row],), "time")
        assert torch.equal(alone[0], bands[row, :extent])


def test_hidden_channels_are_zero_for_the_whole_utterance_and_others_are_untouched():
    frames = Frames(torch.randn(3, 20, 40), torch.tensor([20, 11, 7]))
    bands = asked(3, 40, widths=(3, 8))
    hidden = hide_channels(frames, bands).values
    for row in range(3):
        assert (hidden[row][:, bands[row]] == 0).all()
        assert torch.equal(hidden[row][:, ~bands[row]], frames.values[row][:, ~bands[row]])


def test_noise_is_gaussian_and_comes_to_fifteen_percent_of_the_utterances():
    count, time, dim = 2000, 5, 8
    frames = Frames(torch.zeros(count, time, dim), torch.full((count,), time))
    noisy = add_noise(frames, Noise(), Draw(0), ids(count)).values
    altered = (noisy != 0).flatten(1).all(1)
    assert torch.equal(altered, (noisy != 0).flatten(1).any(1))
    assert altered.float().mean().item() == pytest.approx(0.15, abs=0.025)
    cells = (noisy[altered] / 0.2).flatten()
    assert cells.mean().abs() < 0.04 and cells.std().item() == pytest.approx(1.0, abs=0.03)
    for bound, inside in ((1.0, 0.6827), (2.0, 0.9545)):
        assert (cells.abs() < bound).float().mean().item() == pytest.approx(inside, abs=0.015)


def test_noise_depends_on_the_utterance_alone():
    frames = Frames(torch.zeros(3, 9, 5), torch.tensor([4, 9, 6]))
    noisy = add_noise(frames, Noise(probability=1.0), Draw(2), ids(3)).values
    assert (noisy[0, 4:] == 0).all() and (noisy[0, :4] != 0).all()
    alone = add_noise(
        Frames(torch.zeros(1, 4, 5), torch.tensor([4])), Noise(probability=1.0), Draw(2), ("utterance-0",)
    )
    assert torch.equal(alone.values[0], noisy[0, :4])
    assert not torch.equal(add_noise(frames, Noise(probability=1.0), Draw(2, 1), ids(3)).values, noisy)


def test_noise_is_always_drawn_finite():
    edge = torch.tensor([0.0, 1 - 2.0**-24], dtype=torch.float32).double() + 2.0**-25
    assert torch.special.ndtri(edge).isfinite().all()
    assert torch.special.ndtri(edge).sum().abs() < 1e-6


def test_stacked_frames_lose_the_same_channels():
    objective = small("tiny").train()
    altered = objective._alter(batch_of(), Draw(8))
    bands = altered.channels.unflatten(1, (3, 80))
    assert bands.any() and torch.equal(bands[:, 0], bands[:, 1]) and torch.equal(bands[:, 0], bands[:, 2])
    assert objective.spans.widths == (1, 1)


def test_evaluation_shows_nothing_that_is_scored():
    for preset in ("base", "time", "channel", "time-channel"):
        altered = small(preset).eval()._alter(batch_of(), Draw(9))
        assert (altered.read.values[altered.cells.expand_as(altered.read.values)] == 0).all()
    altered = small("magnitude").eval()._alter(batch_of(), Draw(9))
    assert (altered.read.values != altered.true.values)[altered.true.valid].all()


def test_dumb_predictors_see_no_hidden_cell():
    values = torch.randn(2, 30, 8)
    true = Frames(values, torch.tensor([30, 22]))
    steps = torch.zeros(2, 30, dtype=torch.bool)
    steps[:, 5:9] = True
    channels = torch.zeros(2, 8, dtype=torch.bool)
    channels[:, 2:4] = True
    altered = Altered(true, true, steps, channels)
    shifted = Frames(torch.where(altered.cells, values + 1000, values), true.lengths)
    near, far = trivial(altered, "l1"), trivial(Altered(shifted, shifted, steps, channels), "l1")
    assert set(near) == set(PREDICTORS)
    for name in near:  # the guesses are the same, so the error grows by what was added
        assert far[name].item() == pytest.approx(1000 * altered.cells.sum().item(), rel=0.01)


def test_noise_alone_is_compared_with_what_is_read():
    loss = small("magnitude").eval()(batch_of(), 0.0, Draw(0))
    assert set(loss.parts) == {"as read"}
    assert (loss.parts["as read"] / loss.weight).item() == pytest.approx(0.2 * (2 / np.pi) ** 0.5, rel=0.02)
    assert set(small("base").eval()(batch_of(), 0.0, Draw(0)).parts) == set(PREDICTORS)


def test_a_visit_without_a_band_is_asked_nothing_on_channels():
    objective, batch = small("channel", "objective.channel.share=0.02").eval(), batch_of((16_000,))
    weights = set()
    for seed in range(64):  # of 80 channels one is hidden, or none
        loss = objective(batch, 0.0, Draw(seed))
        weights.add(int(loss.weight))
        if not objective._alter(batch, Draw(seed)).channels.any():
            assert loss.weight == 0 and loss.sum == 0
            loss.sum.backward()
    assert weights == {0, 101}


@pytest.mark.parametrize("preset", ["channel", "channel-magnitude"])
def test_a_band_that_never_is_must_not_be_all_that_is_asked(preset):
    said = r"objective\.channel\.share: 0\.01 of 80 channels is less than one, expected one at least .*; raise it or"
    with pytest.raises(ConfigError, match=said):
        small(preset, "objective.channel.share=0.01")
    assert small("base", "objective.channel.share=0.01")(batch_of(), 0.0, Draw(0)).weight > 0
