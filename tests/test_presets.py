import pytest
import torch

from mockingjay.core.errors import ConfigError
from mockingjay.encoders.contexts import build_context
from mockingjay.encoders.frontends import build_frontend
from mockingjay.objectives import OBJECTIVES
from mockingjay.settings import preset_names, settings
from mockingjay.train.schedule import SCHEDULES

EVERY = [(objective, preset) for objective in OBJECTIVES for preset in preset_names(objective)]
SINUSOIDS = ("transformer", "shared-transformer", "subsampled-transformer")
SMALL = [
    (objective, preset)
    for objective, preset in EVERY
    if preset.startswith(("tiny", "nano")) and settings(objective, preset).objective.encoder.context.kind in SINUSOIDS
]
AXES = ["time", "channel", "magnitude", "time-channel", "time-magnitude", "channel-magnitude"]


@pytest.mark.parametrize(("objective", "preset"), EVERY)
def test_every_preset_builds(objective, preset):
    encoder = settings(objective, preset).objective.encoder
    frontend = build_frontend(encoder.frontend)
    with torch.device("meta"):
        assert build_context(encoder.context, frontend.dim).depth >= 1


def test_the_curve_over_span_widths_differs_in_widths_alone():
    chosen = {width: settings("mockingjay", f"tiny-span-{width}") for width in (1, 3, 5, 7, 9, 15)}
    assert all(each.objective.hide.width == width for width, each in chosen.items())
    others = [(each.batches, each.train, each.objective.encoder) for each in chosen.values()]
    assert all(each == others[0] for each in others)
    tiny = settings("mockingjay", "tiny")
    assert others[0][:2] == (tiny.batches, tiny.train) and others[0][2].context == tiny.objective.encoder.context
    assert all(each.objective.hide.share == tiny.objective.hide.share for each in chosen.values())


@pytest.mark.parametrize(("size", "all_three"), [("", "base"), ("tiny-", "tiny")])
def test_axes_are_all_that_tera_s_ablations_change(size, all_three):
    whole = settings("tera", all_three)
    for axes in AXES:
        chosen = settings("tera", size + axes)
        assert chosen.objective.axes == tuple(axes.split("-"))
        assert chosen.batches == whole.batches and chosen.train == whole.train
        assert chosen.objective.model_copy(update={"axes": whole.objective.axes}) == whole.objective


@pytest.mark.parametrize("depth", [3, 6, 12])
@pytest.mark.parametrize("size", ["", "tiny-"])
def test_shared_and_unshared_differ_in_sharing_alone(size, depth):
    shared = settings("audio-albert", "base" if (size, depth) == ("", 6) else f"{size}{depth}-passes")
    own = settings("mockingjay", f"{size}unshared-{depth}")
    assert shared.batches == own.batches and shared.train == own.train
    one, other = shared.objective, own.objective
    assert one.hide == other.hide and other.unit == "step"
    assert (one.encoder.frontend, one.encoder.window) == (other.encoder.frontend, other.encoder.window)
    assert one.target == (other.target or other.encoder.frontend)
    kinds = {"kind": None}
    assert one.encoder.context.model_dump() | kinds == other.encoder.context.model_dump() | kinds
    assert one.encoder.context.layers == depth


@pytest.mark.parametrize(("objective", "preset"), SMALL)  # those of a published size read as their paper says
def test_small_presets_read_no_further_than_the_positions_they_were_trained_on(objective, preset):
    chosen = settings(objective, preset)
    encoder, crop = chosen.objective.encoder, chosen.batches.crop
    hop = build_frontend(encoder.frontend).grid.hop
    assert encoder.window is not None and 0.9 * crop < encoder.window * hop / 16_000 <= crop


def test_fmllr_is_read_as_first_published():
    chosen = settings("tera", "fmllr")
    assert chosen.objective.encoder.frontend.kind == "precomputed" and chosen.objective.encoder.frontend.dim == 40
    assert int(chosen.objective.channel.share * 40) == 8 and chosen.train.clip == 1.0 and chosen.batches.crop == 15.0


@pytest.mark.parametrize("preset", ["base", "code"])
def test_mpc_s_learning_rate_is_the_released_formula(preset):
    train = settings("mpc", preset).train
    schedule = SCHEDULES[train.schedule]
    for number in (1, 500, 2000, 2001, 50_000, 470_000):  # steps, counted from 1
        published = 0.3 * 512**-0.5 * min(number**-0.5, number * 2000**-1.5)
        assert train.learning_rate * schedule(number - 1, train.steps, train.warmup) == pytest.approx(
            published, rel=1e-4
        )


def test_the_inverse_root_needs_no_warm_up():
    assert [round(SCHEDULES["inverse-root"](step, 100, 0.0), 3) for step in (0, 3, 99)] == [1.0, 0.5, 0.1]


def test_a_preset_extends_another(tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "nano"\n[objective.encoder.context]\nlayers = 7\n')
    chosen, nano = settings("mockingjay", str(tmp_path / "mine.toml")), settings("mockingjay", "nano")
    assert chosen.objective.encoder.context == nano.objective.encoder.context.model_copy(update={"layers": 7})
    assert chosen.batches == nano.batches


def test_presets_that_extend_nothing_or_themselves_are_refused(tmp_path):
    one, other = tmp_path / "one.toml", tmp_path / "other.toml"
    one.write_text(f'extends = "{other}"\n')
    other.write_text(f'extends = "{one}"\n')
    with pytest.raises(ConfigError, match=r"one.toml: extends itself by way of other.toml, expected a chain; break it"):
        settings("apc", str(one))
    one.write_text('extends = "huge"\n')
    with pytest.raises(ConfigError, match=r"one.toml: extends 'huge': no such preset, expected one of base, .*; check"):
        settings("apc", str(one))
    one.write_text("extends = 3\n")
    with pytest.raises(ConfigError, match=r"one.toml: extends is 3, expected a preset's name; write it as text"):
        settings("apc", str(one))
