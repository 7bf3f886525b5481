import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from mockingjay.core import errors
from mockingjay.core.config import Config, assignments, overlay, read_toml, to_toml, validate
from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError, MachineError
from mockingjay.core.files import write_atomically, writing
from mockingjay.core.types import Frames, Grid, Hidden, Loss, Utterance, Waves


class Inner(Config):
    depth: int = Field(3, ge=1)
    """How deep."""
    rates: tuple[float, ...] = (0.1, 0.2)


class Outer(Config):
    inner: Inner = Inner(depth=7)
    name: str = "x"
    limit: float | None = None


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("inner.dept=2", "inner.dept: unknown key; did you mean 'depth'?"),
        (
            "inner.depth=0",
            "inner.depth: input should be greater than or equal to 1 (0); change it in the config or with --set",
        ),
        (
            "inner.depth=two",
            "inner.depth: input should be a valid integer ('two'); change it in the config or with --set",
        ),
        ("limit=nan", "limit: input should be a finite number (nan); change it in the config or with --set"),
        ("depth", "--set depth: no assignment, expected path=value; write for example --set train.steps=100"),
        ("name=[", "--set name=[: '[' is not a TOML value; quote strings as path='\"text\"'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(assignment, sentence):
    with pytest.raises(ConfigError) as error:
        overlay(Outer(), assignments([assignment]))
    assert str(error.value) == sentence


def test_overlays_set_leaves_and_leave_siblings():
    config = overlay(Outer(), assignments(["inner.rates=[0.3]"]))
    assert config.inner == Inner(depth=7, rates=(0.3,)) and config.name == "x"


def test_toml_round_trip(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(to_toml(Outer(name='a "quoted" name'), comments=True))
    assert validate(Outer, read_toml(path)) == Outer(name='a "quoted" name')
    assert "# How deep." in path.read_text()
    path.write_text("a = = 1")
    with pytest.raises(ConfigError, match=r"config.toml: not TOML \(.*line 1.*\); mend that line"):
        read_toml(path)
    with pytest.raises(ConfigError, match=r"absent.toml: cannot be read .*; check the path"):
        read_toml(tmp_path / "absent.toml")


def test_draws_depend_on_their_address_alone():
    draw = Draw(seed=1, epoch=2)
    together = draw.uniform(["a", "b"], "mask", 50)
    assert torch.equal(together[1], draw.uniform(["b"], "mask", 50)[0])
    assert torch.equal(together[:, :20], draw.uniform(["a", "b"], "mask", 20))
    for other in (
        Draw(1, 3).uniform(["a"], "mask", 50),
        Draw(2, 2).uniform(["a"], "mask", 50),
        draw.uniform(["a"], "crop", 50),
    ):
        assert not torch.equal(together[0], other[0])


def test_draws_are_uniform_and_uncorrelated():
    numbers = Draw(0).uniform([str(index) for index in range(2000)], "test", 50)
    assert numbers.min() >= 0 and numbers.max() < 1
    histogram = torch.histc(numbers, 100, 0, 1)
    assert ((histogram - 1000) ** 2 / 1000).sum() < 149  # χ² with 99 degrees of freedom, p > 1e-3
    correlation = torch.corrcoef(numbers.T) - torch.eye(50)
    assert correlation.abs().max() < 0.12


def test_waves_are_padded_on_the_right_and_keep_their_lengths():
    waves = Waves.pad([torch.ones(3), torch.ones(5)])
    assert waves.samples.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]] and waves.lengths.tolist() == [3, 5]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=12), st.randoms())
def test_what_is_collated_comes_apart_again(lengths, dice):
    waves = [torch.rand(length) + 1 for length in lengths]
    order = dice.sample(range(len(waves)), len(waves))
    batch = Waves.pad([waves[index] for index in order])
    assert batch.samples.shape == (len(lengths), max(lengths))
    hidden = Hidden((batch.samples[..., None],), batch.lengths)
    for index, found in zip(order, hidden.split()):
        assert torch.equal(found[:, 0], waves[index])
    assert not batch.samples[~hidden.valid].any()


def test_valid_and_split():
    values = torch.arange(12.0).reshape(2, 3, 2)
    lengths = torch.tensor([2, 3])
    assert Frames(values, lengths).valid.tolist() == [[True, True, False], [True, True, True]]
    first, second = Hidden((values, values + 1), lengths).split()
    assert first.tolist() == [[1, 2], [3, 4]] and len(second) == 3


def test_steps_are_tiled_to_their_frames():
    values = torch.arange(12.0).view(2, 3, 2)
    hidden = Hidden((values, -values), torch.tensor([3, 1]))
    tiled = hidden.tiled(3, torch.tensor([11, 4]))
    assert tiled.lengths.tolist() == [11, 4] and torch.equal(tiled.layers[0], -tiled.last)
    expected = [values[0, [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]], values[1, [0, 0, 0, 0]]]  # the left over hold the last
    assert all(torch.equal(one, other) for one, other in zip(tiled.split(0), expected))
    assert torch.equal(hidden.tiled(1, hidden.lengths).split()[0], hidden.split()[0])


def test_loss_is_a_mean_over_what_was_scored():
    assert Loss(torch.tensor(6.0), torch.tensor(4.0)).mean == 1.5


def test_the_grid_turns_steps_into_times_and_back():
    grid = Grid(hop=480, centre=160.0)
    assert grid.times(3).tolist() == pytest.approx([0.01, 0.04, 0.07])
    assert grid.nearest(grid.times(3), 3).tolist() == [0, 1, 2]
    assert grid.nearest(torch.tensor([0.0, 0.024, 0.026, 9.0]), 3).tolist() == [0, 0, 1, 2]


def test_labels_are_read_by_column():
    utterance = Utterance("a", "/a.wav", 1.0, speaker="s", labels={"emotion": "joy"})
    assert (utterance.label("speaker"), utterance.label("emotion"), utterance.label("age")) == ("s", "joy", None)


def test_files_are_whole_or_absent(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(
        MachineError, match=r"file: disk full, 0.0 MB needed, .* MB free; free some space and start the same"
    ):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize(("need", "told"), [(2_500_000, r"2\.5 MB needed, "), (0, "")])
def test_the_room_that_is_needed_is_told_where_it_is_known(need, told, tmp_path):
    said = rf"file: disk full, {told}[\d.]+ MB free; free some space and start the same command again$"
    with pytest.raises(MachineError, match=said), writing(tmp_path / "file", need):
        raise OSError(28, "No space left on device")


def test_every_error_has_its_exit_code():
    codes = {cls.__name__: cls.exit_code for cls in errors.MockingjayError.__subclasses__()}
    assert codes == {
        "ConfigError": 2,
        "RepresentationError": 2,
        "DataError": 3,
        "CheckpointError": 4,
        "MachineError": 5,
        "TrainingError": 6,
    }
