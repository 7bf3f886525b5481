"""The promise: a wrong setting is refused before any data is touched, and the key is named."""

import tomllib

import pytest
from command import refuses
from pydantic import BaseModel

from mockingjay.core import config
from mockingjay.core.errors import ConfigError
from mockingjay.objectives import OBJECTIVES
from mockingjay.settings import preset_names, settings


def leaves(table, above=()):
    """Yield (class, path, value) of every setting of a resolved config."""
    for name in type(table).model_fields:
        value = getattr(table, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, (*above, name))
        else:
            yield type(table), (*above, name), value


@pytest.fixture(scope="module")
def every(request):
    """Every setting once, without --slow a third: (a whole config, its path, its value, its neighbours' names)."""
    found = {}
    for objective in OBJECTIVES:
        for preset in preset_names(objective):
            whole = settings(objective, preset)
            for kind, path, value in leaves(whole):
                found.setdefault((kind, path[-1]), (whole, path, value, set(kind.model_fields)))
    assert len(found) >= 150
    return list(found.values())[:: 1 if request.config.getoption("--slow") else 3]


def refusal(whole, path, change):
    for name in reversed(path[:-1]):
        change = {name: change}
    with pytest.raises(ConfigError) as caught:
        config.overlay(whole, change)
    return str(caught.value)


def spoilings(name, value):
    """Ten values, or names, that no setting of this name and kind may have."""
    yield {name + "x": value}
    yield {f"{name[:-1]}{name[-1]}_": value}
    yield {name: {"value": value}}
    yield {name: [[1], "x"]}
    yield {name: float("nan")}
    yield {name: float("inf")}
    yield {name: 10**30}
    yield {name: -(10**30)}
    yield {name: tomllib.loads("x = 1979-05-27")["x"]}
    yield {name: "\x00" if isinstance(value, str) else "nine"}


def test_every_setting_spoilt_in_ten_ways_is_named(every):
    for whole, path, value, _ in every:
        for change in spoilings(path[-1], value):
            text, (key,) = refusal(whole, path, change), change
            assert text.startswith(".".join((*path[:-1], key))) and "; " in text and "\n" not in text, text
            assert key == path[-1] or "unknown key" in text


def test_misspelt_settings_are_guessed(every):
    """Nine of ten at least get the name that was meant."""
    guesses = []
    for whole, path, value, known in every:
        name = path[-1]
        slips = {name[1:], name[:-1], name + name[-1], name[0] + name, name[1] + name[0] + name[2:]}
        for wrong in slips - known - {""}:
            guesses.append(f"did you mean '{name}'?" in refusal(whole, path, {wrong: value}))
    assert sum(guesses) >= 0.9 * len(guesses)


@pytest.mark.parametrize("verb", ["pretrain", "run"])
def test_the_command_line_refuses_before_it_looks_at_data(verb, tmp_path):
    """The corpus does not exist, and is not asked for."""
    where = (
        ("pretrain", "mockingjay", "--data", tmp_path / "none") if verb == "pretrain" else ("run", tmp_path / "none")
    )
    for change, key in {
        "train.steps=nine": "train.steps", "train.stepz=9": "train.stepz",
        "train.learning_rate=-1": "train.learning_rate",
        "train.learning_rate=nan": "train.learning_rate", "batches.seconds=0": "batches.seconds",
        "objective.encoder.context.layers=1e99": "objective.encoder.context.layers", "upkeep=3": "upkeep",
        "objective.kind=os.system": "objective.kind", "train.seed=-1": "train.seed",
    }.items():  # fmt: skip
        refuses(2, f"ConfigError: {key}: ", *where, "--out", tmp_path / "out", "--preset", "nano", "--set", change)
        if verb == "run":  # both resolve their settings alike
            return
    file = tmp_path / "spoilt.toml"
    for text, sentence in {
        "[train]\nstepz = 9": "train.stepz: unknown key; did you mean 'steps'", "[train": "not TOML",
        "\x00": "not TOML",
        "train = []": "train: input should be", "a = 1\na = 2": "not TOML",
        "[train]\nlearning_rate = '1e-4'": "learning_rate: input should be", "x = " + "[" * 9_999: "not TOML",
    }.items():  # fmt: skip
        file.write_text(text)
        refuses(2, sentence, *where, "--out", tmp_path / "out", "--preset", file)
    file.write_bytes(b"\xff")
    refuses(2, "cannot be read", *where, "--out", tmp_path / "out", "--preset", file)
    assert not (tmp_path / "out").exists()
