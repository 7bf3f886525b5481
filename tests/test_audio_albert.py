import copy

import pytest
import torch
from speech_like import batch_of

from mockingjay.core.config import validate
from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames
from mockingjay.encoders.attention import attentions, prune, watch
from mockingjay.encoders.contexts.shared import SharedTransformer
from mockingjay.encoders.contexts.transformer import Transformer
from mockingjay.objectives.audio_albert import AudioALBERT
from mockingjay.settings import Settings, settings
from mockingjay.train.optimiser import Optimiser

TOY = SharedTransformer.Config(layers=3, dim=16, feedforward=32, heads=4)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def frames():
    return Frames(torch.randn(2, 12, 5), torch.tensor([12, 8]))


def unshared(shared, layers):
    """The Transformer of separate layers with the same weights in each."""
    plain = Transformer(Transformer.Config(**{**TOY.model_dump(exclude={"kind"}), "layers": layers}), 5)
    plain.project.load_state_dict(shared.project.state_dict())
    plain.norm.load_state_dict(shared.norm.state_dict())
    for block in plain.blocks:
        block.load_state_dict(shared.block.state_dict())
    return plain


@pytest.mark.parametrize("preset", ["base", "3-passes", "12-passes"])
def test_the_published_size_does_not_depend_on_the_passes(preset):
    chosen = settings("audio-albert", preset).objective
    with torch.device("meta"):
        context = SharedTransformer(chosen.encoder.context, 480)
    assert count(context) == 7_458_816
    assert context.depth == {"base": 7, "3-passes": 4, "12-passes": 13}[preset]


def test_sharing_saves_ninety_one_percent_of_twelve_layers():
    with torch.device("meta"):
        shared, plain = (
            SharedTransformer(SharedTransformer.Config(), 480),
            Transformer(Transformer.Config(layers=12), 480),
        )
    assert 1 - count(shared) / count(plain) == pytest.approx(0.9127, abs=1e-4)


def test_passes_are_layers_with_the_same_weights():
    shared, inputs = SharedTransformer(TOY, 5), frames()
    plain = unshared(shared, 3)
    for mine, theirs in zip(shared(inputs).layers, plain(inputs).layers):
        torch.testing.assert_close(mine, theirs)


def test_gradients_of_all_passes_add_up_in_the_one_block():
    shared, inputs = SharedTransformer(TOY, 5), frames()
    plain = unshared(shared, 3)
    weights = torch.randn(2, 12, 16)
    for context in (shared, plain):
        (context(inputs).last * weights).sum().backward()
    for name, parameter in shared.block.named_parameters():
        total = sum(dict(block.named_parameters())[name].grad for block in plain.blocks)
        torch.testing.assert_close(parameter.grad, total, atol=1e-4, rtol=1e-4)


def test_every_weight_is_held_once_and_a_copy_shares_as_well():
    shared, inputs = SharedTransformer(TOY, 5), frames()
    assert sum(value.numel() for value in shared.state_dict().values()) == count(shared)
    copied = copy.deepcopy(shared)
    assert count(copied) == count(shared)
    with torch.no_grad():
        copied.block.narrow.weight.zero_()
        copied.block.attention.out.weight.zero_()
    for value in (copied, unshared(copied, 3)):
        torch.testing.assert_close(value(inputs).last, copied(inputs).last)
    assert not torch.equal(copied(inputs).last, shared(inputs).last)
    assert len(Optimiser(shared, Optimiser.Config()).parameters) == len(list(shared.parameters()))


def test_attention_is_watched_pass_by_pass():
    shared = SharedTransformer(TOY, 5).eval()
    with watch(shared) as seen:
        shared(frames())
    assert len(seen) == 3 and not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("heads", [{0: [1]}, {1: [0, 3]}, {2: [2]}, {0: [0], 2: [1, 2, 3]}, {}])
def test_heads_are_pruned_pass_by_pass(heads):
    shared = SharedTransformer(TOY, 5).eval()
    plain, inputs = unshared(shared, 3).eval(), frames()
    with prune(shared, heads), prune(plain, heads):
        for _ in range(2):  # every forward pass begins at the lowest layer
            ours, theirs = shared(inputs), plain(inputs)
            for layer, same in zip(ours.layers, theirs.layers):
                torch.testing.assert_close(layer, same)
    assert torch.equal(ours.last, shared(inputs).last) == (not heads)
    assert len(attentions(shared)) == len(attentions(plain)) == 3


def test_the_default_is_the_first_authors_recipe():
    chosen = settings("audio-albert", "base")
    objective, train = chosen.objective, chosen.train
    assert objective == settings("audio-albert").objective == AudioALBERT.Config()
    assert (objective.hide.share, objective.hide.width, objective.hide.placement) == (0.15, 1, "disjoint")
    assert objective.encoder.context.dropout == objective.encoder.context.attention_dropout == 0.0
    assert (train.steps, train.learning_rate, train.warmup, train.clip) == (1_000_000, 5e-5, 0.1, 10.0)


def test_single_stacked_steps_that_never_touch_are_hidden_and_linear_spectra_rebuilt():
    chosen = settings("audio-albert", "nano")
    objective = AudioALBERT(chosen.objective).eval()
    altered = objective._alter(batch_of(), Draw(0))
    assert altered.steps.any() and not (altered.steps[:, 1:] & altered.steps[:, :-1]).any()
    assert (altered.read.values[altered.steps] == 0).all()
    assert objective.head[-1].out_features == 3 * 201 and objective.encoder.grid.hop == 480


def test_prediction_gets_its_gradient_from_selected_steps_alone():
    objective = AudioALBERT(settings("audio-albert", "nano").objective).train()
    seen = {}
    objective.encoder.context.register_forward_hook(lambda module, inputs, hidden: seen.update(hidden=hidden.last))
    loss = objective(batch_of(), 0.0, Draw(0))
    seen["hidden"].retain_grad()
    loss.sum.backward()
    steps = objective._alter(batch_of(), Draw(0)).steps
    assert torch.equal(seen["hidden"].grad.abs().sum(-1) > 0, steps)
    assert loss.weight == steps.sum() * 603


def test_an_input_rebuilt_from_itself_is_computed_once():
    objective = AudioALBERT(settings("audio-albert", "tiny").objective)
    assert objective.target is None
    altered = objective._alter(batch_of(), Draw(0))
    assert altered.true.values.shape == altered.read.values.shape


def test_a_target_off_the_input_s_steps_is_refused():
    with pytest.raises(ConfigError, match=r"objective: target has its steps on Grid\(hop=200.*expected the encoder's"):
        validate(Settings, {"objective": {"kind": "audio-albert", "target": {"kind": "log-mel"}}})
