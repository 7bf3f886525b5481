import pytest
import torch
from speech_like import batch_of

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames
from mockingjay.encoders.contexts.bidirectional import Bidirectional
from mockingjay.objectives.masked_reconstruction import MaskedReconstruction
from mockingjay.settings import settings
from mockingjay.train.loop import Run

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
    assert missing == ["encoder.context.linear_input.weight", "encoder.context.linear_input.bias"]
    torch.testing.assert_close(linear(batch_of(), 0.0, Draw(0)).sum, plain(batch_of(), 0.0, Draw(0)).sum)


@pytest.mark.parametrize(("learn", "preset"), [("network", "base"), ("linear-input", "adapt")])
def test_adaptation_moves_the_linear_input_network_alone_and_training_all_else(learn, preset):
    objective = small("objective.encoder.context.linear_input=true", preset=preset)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    run = Run(objective, Run.Config(steps=3, learning_rate=1e-2, warmup=0.0))
    list(run.ticks([(batch_of(),)] * 3))
    moved = {name for name, value in objective.state_dict().items() if not torch.equal(value, before[name])}
    linear = {"encoder.context.linear_input.weight", "encoder.context.linear_input.bias"}
    assert moved == (linear if learn == "linear-input" else set(before) - linear)


def test_adapting_what_is_not_there_is_refused():
    with pytest.raises(ConfigError, match=r"learn 'linear-input' without one, expected encoder\.context\.linear_input"):
        settings("masked-reconstruction", "base", ["objective.learn=linear-input"])
