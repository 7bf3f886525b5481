import json
import shutil

import pytest
import soundfile
import torch
from command import refuses, works
from speech_like import batch_of

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames
from mockingjay.encoders.contexts.bidirectional import Bidirectional
from mockingjay.objectives.masked_reconstruction import MaskedReconstruction
from mockingjay.open import open_objective
from mockingjay.settings import settings
from mockingjay.train.loop import Run

LINEAR = {"encoder.context.linear_input.weight", "encoder.context.linear_input.bias"}
SMALL = ["objective.encoder.context.layers=1", "objective.encoder.context.dim=16"]


def small(*changes, preset="base"):
    torch.manual_seed(0)
    return MaskedReconstruction(settings("masked-reconstruction", preset, [*SMALL, *changes]).objective)


def parameters(context):
    return sum(parameter.numel() for parameter in context.parameters())


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_encoder_is_torch_s_bidirectional_stack_on_every_true_length(cell):
    context = Bidirectional(Bidirectional.Config(cell=cell, layers=2, dim=12), 5)
    theirs = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell](5, 6, 2, batch_first=True, bidirectional=True)
    for layer in range(2):
        for mine, suffix in ((context.onward[layer], ""), (context.backward[layer], "_reverse")):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                setattr(theirs, f"{name}_l{layer}{suffix}", getattr(mine.cells[0], f"{name}_l0"))
    assert parameters(context) == parameters(theirs)
    values = torch.randn(2, 9, 5)
    hidden = context(Frames(values, torch.tensor([9, 6])))
    for row, length in enumerate([9, 6]):
        expected, _ = theirs(values[row : row + 1, :length])
        torch.testing.assert_close(hidden.last[row, :length], expected[0])
    assert len(hidden.layers) == context.depth == 2


def test_both_axes_lose_two_bands_and_the_hidden_cells_are_zero():
    objective = small()
    altered = objective._alter(batch_of(), Draw(0))
    cells = altered.cells
    assert (altered.read.values[cells] == 0).all()
    assert torch.equal(altered.read.values[~cells], altered.true.values[~cells])
    assert not cells[~altered.true.valid].any()
    for epoch in range(30):
        altered = objective._alter(batch_of(), Draw(0, epoch))
        steps, channels = altered.steps.sum(1), altered.channels.sum(1)
        assert ((steps >= 1) & (steps <= 80)).all() and ((channels >= 1) & (channels <= 32)).all()
        assert (steps < altered.true.lengths).all()
        assert ((altered.channels[:, 1:] & ~altered.channels[:, :-1]).sum(1) + altered.channels[:, 0] <= 2).all()


def test_the_loss_is_the_mean_squared_error_on_hidden_cells():
    objective = small().eval()
    altered = objective._alter(batch_of(), Draw(0))
    rebuilt = objective.head(objective.encoder.context(altered.read).last)
    by_hand = (rebuilt - altered.true.values).square()[altered.cells]
    loss = objective(batch_of(), 0.0, Draw(0))
    assert loss.mean.item() == pytest.approx(by_hand.mean().item(), rel=1e-5) and loss.weight == by_hand.numel()
    assert set(loss.parts) == {"utterance mean", "copy last", "interpolation"}


def test_prediction_gets_its_gradient_from_hidden_cells_alone():
    objective = small()
    rebuilt = {}
    objective.head.register_forward_hook(lambda module, inputs, output: rebuilt.update(output=output))
    loss = objective(batch_of(), 0.0, Draw(0))
    rebuilt["output"].retain_grad()
    loss.sum.backward()
    cells = objective._alter(batch_of(), Draw(0)).cells
    assert torch.equal(rebuilt["output"].grad != 0, cells[cells.any(-1)])


def test_masks_of_stacked_frames_hide_whole_steps_and_the_same_channels():
    altered = small(preset="nano")._alter(batch_of(), Draw(0))
    bands = altered.channels.unflatten(1, (3, 80))
    assert torch.equal(bands[:, 0], bands[:, 1]) and torch.equal(bands[:, 0], bands[:, 2])
    assert (altered.steps.sum(1) <= 2 * 13).all()


def test_a_linear_input_network_begins_as_nothing():
    plain, linear = small(), small("objective.encoder.context.linear_input=true")
    missing = linear.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert set(missing) == LINEAR
    torch.testing.assert_close(linear(batch_of(), 0.0, Draw(0)).sum, plain(batch_of(), 0.0, Draw(0)).sum)


@pytest.mark.parametrize(("learn", "preset"), [("network", "base"), ("linear-input", "adapt")])
def test_adaptation_moves_the_linear_input_network_alone_and_training_all_else(learn, preset):
    objective = small("objective.encoder.context.linear_input=true", preset=preset)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    run = Run(objective, Run.Config(steps=3, learning_rate=1e-2, warmup=0.0))
    list(run.ticks([(batch_of(),)] * 3))
    moved = {name for name, value in objective.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == (LINEAR if learn == "linear-input" else set(before) - LINEAR)


QUICK = ("--steps", 32, "--set", "upkeep.validate_every=32", "--set", "objective.encoder.context.layers=1")


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    """Noise of two bands that pulse each on its own, below 2 kHz and above; and the same with its spectrum mirrored."""
    generator, time = torch.Generator().manual_seed(0), torch.arange(16_000) / 16_000
    folder, bins = tmp_path_factory.mktemp("audio"), torch.arange(8001)
    for number in range(20):
        spectrum = torch.fft.rfft(torch.randn(16_000, generator=generator))
        rate, begin = 3 + 4 * torch.rand(2, generator=generator), 6.28 * torch.rand(2, generator=generator)
        pulses = torch.exp(2 * torch.sin(6.28 * rate[:, None] * time + begin[:, None]))
        bands = torch.fft.irfft(spectrum * torch.stack([bins < 2000, bins >= 2000]))
        samples = 0.02 * (bands * pulses).sum(0)
        for name, sign in (("here", torch.ones(2)), ("elsewhere", torch.tensor([1.0, -1.0]))):
            (folder / name).mkdir(exist_ok=True)
            soundfile.write(folder / name / f"{number:02d}.wav", (samples * sign.repeat(8000)).numpy(), 16_000, "FLOAT")
    return folder


@pytest.fixture(scope="module")
def adaptable(audio):
    """A run that has a linear input network, at rest."""
    words = ("--preset", "nano", "--set", "train.learning_rate=2e-2", *QUICK)
    linear = ("--set", "objective.encoder.context.linear_input=true")
    works("pretrain", "masked-reconstruction", *words, *linear, "--data", audio / "here", "--out", audio / "run")
    return audio / "run"


def adapting(data, out):
    nano = ("--set", "objective.encoder.context.dim=32", "--set", "batches.seconds=24")
    words = ("--preset", "tiny-adapt", "--set", "train.learning_rate=1e-2", *QUICK, *nano)
    return ("pretrain", "masked-reconstruction", *words, "--data", data, "--out", out)


def held_out(run):
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row["validation"]["model"] for row in rows if "validation" in row]


def test_adaptation_fits_a_run_to_other_audio(adaptable, audio, tmp_path):
    works(*adapting(audio / "elsewhere", tmp_path), "--init", adaptable)
    begun, ended = held_out(tmp_path)
    assert held_out(adaptable)[-1] < 0.9 * begun and ended < 0.9 * begun
    before, after = (open_objective(each, print)[0].state_dict() for each in (adaptable, tmp_path))
    assert {name for name in before if not torch.equal(before[name], after[name])} == LINEAR


def test_adaptation_wants_a_whole_run(adaptable, audio, tmp_path):
    command = adapting(audio / "elsewhere", tmp_path / "adapted")
    refuses(2, "--init: no run to adapt, expected one of this objective, whose heads rest like its encoder", *command)
    shutil.copytree(adaptable / "encoder", tmp_path / "encoder")
    sentence = (
        "an encoder without the head that was trained with it and rests in adaptation, expected a run of masked-rec"
    )
    refuses(2, sentence, *command, "--init", tmp_path / "encoder")
    assert not (tmp_path / "adapted" / "config.toml").exists()


def test_adapting_what_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"learn 'linear-input' without one, expected encoder\.context\.linear_input"):
        settings("masked-reconstruction", "base", ["objective.learn=linear-input"])
