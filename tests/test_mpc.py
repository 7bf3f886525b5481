import pytest
import torch
from speech_like import batch_of

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames
from mockingjay.encoders.contexts.subsampled import MaskedBatchNorm, SubsampledTransformer
from mockingjay.objectives.mpc import MPC
from mockingjay.settings import settings

TOY = SubsampledTransformer.Config(
    filters=4, layers=1, dim=16, feedforward=32, heads=2, dropout=0.0, attention_dropout=0.0
)


def nano(*changes):
    torch.manual_seed(0)
    objective = MPC(settings("mpc", "nano", changes).objective)
    objective.prepare([batch_of()])
    return objective


def test_the_default_is_as_published():
    chosen = settings("mpc").objective
    context, hide = chosen.encoder.context, chosen.hide
    assert (context.filters, context.layers, context.dim, context.feedforward, context.heads) == (512, 12, 512, 1280, 8)
    assert chosen.encoder.frontend.mels == 40 and chosen.encoder.frontend.normalise == "global"
    assert (hide.share, hide.zero, hide.random, hide.per) == (0.15, 0.8, 0.1, "frame")
    code = settings("mpc", "code").objective.hide
    assert (code.share, code.zero, code.random) == (0.2, 1.0, 0.0)


def test_the_size_is_that_of_its_layers():
    with torch.device("meta"):
        context = SubsampledTransformer(SubsampledTransformer.Config(), 40)
    convolutions = 9 * 512 + 9 * 512 * 512 + 4 * 512
    layer = 4 * (512 * 512 + 512) + 2 * 512 * 1280 + 1280 + 512 + 4 * 512
    assert sum(each.numel() for each in context.parameters()) == convolutions + 5120 * 512 + 512 + 12 * layer


def test_four_frames_a_step_and_a_tail_that_fills_none_is_dropped():
    context = SubsampledTransformer(TOY, 40).eval()
    values = torch.randn(1, 27, 40)
    hidden = context(Frames(values, torch.tensor([27])))
    assert hidden.lengths.tolist() == [6] and hidden.last.shape == (1, 6, 16)
    values[:, 24:] += 1.0
    assert torch.equal(context(Frames(values, torch.tensor([27]))).last, hidden.last)


@pytest.mark.parametrize("frames", [1, 3, 4, 7])
def test_utterances_too_short_for_a_step_give_none(frames):
    context = SubsampledTransformer(TOY, 40).eval()
    hidden = context(Frames(torch.randn(2, frames, 40), torch.tensor([frames, 1])))
    assert hidden.lengths.tolist() == [frames // 4, 0] and hidden.last.isfinite().all()


def test_a_step_of_the_convolutions_reads_seven_frames_from_its_first():
    context = SubsampledTransformer(TOY, 40).eval()
    values = torch.randn(1, 32, 40, requires_grad=True)
    context(Frames(values, torch.tensor([32]))).layers[0][0, 3].sum().backward()
    touched = values.grad[0].abs().sum(-1).nonzero()[:, 0].tolist()
    assert min(touched) == 12 and max(touched) == 18


def test_batch_normalisation_counts_valid_steps_only():
    norm, torch_norm = MaskedBatchNorm(3), torch.nn.BatchNorm2d(3)
    images = 3 + 2 * torch.randn(2, 3, 6, 5)
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])[:, None, :, None]
    normalised = norm(images, valid)
    kept = images.transpose(1, 2)[valid[:, 0, :, 0]]  # [steps, filters, columns]
    expected = torch_norm(kept.transpose(0, 1)[None])[0].transpose(0, 1)
    torch.testing.assert_close(normalised.transpose(1, 2)[valid[:, 0, :, 0]], expected, atol=1e-5, rtol=1e-5)
    louder = torch.where(valid, images, images * 100)
    assert torch.equal(MaskedBatchNorm(3)(louder, valid)[valid.expand_as(images)], normalised[valid.expand_as(images)])
    torch.testing.assert_close(norm.mean, torch_norm.running_mean)


def test_frontends_too_narrow_to_halve_twice_are_refused():
    with pytest.raises(ConfigError, match=r"context: frames of 3 channels, expected at least 4 to halve twice; choose"):
        SubsampledTransformer(TOY, 3)


def test_chunks_are_aligned_with_steps_and_hide_their_frames_whole():
    objective = nano().eval()
    altered = objective._alter(batch_of(), Draw(0))
    frames = altered.at_frame_rate()
    zero = (frames.read.values == 0).all(-1) & frames.true.valid
    assert torch.equal(zero, altered.steps.repeat_interleave(4, 1))
    share = altered.steps.sum() / altered.true.lengths.sum()
    assert 0.1 < share < 0.2 and altered.true.values.shape[2] == objective.head.out_features == 160
    assert objective.encoder.grid.hop == 640


def test_chunks_become_zero_or_another_chunk_or_stay():
    torch.manual_seed(0)
    objective = nano().train()
    fates = torch.zeros(3)
    for epoch in range(120):
        altered = objective._alter(batch_of(), Draw(0, epoch))
        read, true = altered.read.values[altered.steps], altered.true.values[altered.steps]
        zero, stays = (read == 0).all(-1), (read == true).all(-1)
        fates += torch.stack([zero.sum(), (~zero & ~stays).sum(), stays.sum()])
    expected = torch.tensor([0.8, 0.1, 0.1]) * fates.sum()
    # A chunk replaced by itself counts as untouched: one in thirty.
    assert ((fates - expected).abs() < 4 * expected.sqrt()).all()


def test_the_loss_is_the_mean_absolute_error_on_hidden_chunks():
    objective = nano().eval()
    altered = objective._alter(batch_of(), Draw(0))
    hidden = objective.encoder.context(altered.at_frame_rate().read).last
    by_hand = (objective.head(hidden) - altered.true.values).abs()[altered.steps]
    loss = objective(batch_of(), 0.0, Draw(0))
    assert loss.mean.item() == pytest.approx(by_hand.mean().item(), rel=1e-5) and loss.weight == by_hand.numel()
    assert set(loss.parts) == {"utterance mean", "copy last", "interpolation"}


def test_prediction_gets_its_gradient_from_hidden_chunks_alone():
    objective = nano().train()
    seen = {}
    objective.encoder.context.register_forward_hook(lambda module, inputs, hidden: seen.update(hidden=hidden.last))
    loss = objective(batch_of(), 0.0, Draw(0))
    seen["hidden"].retain_grad()
    loss.sum.backward()
    assert torch.equal(seen["hidden"].grad.abs().sum(-1) > 0, objective._alter(batch_of(), Draw(0)).steps)


def test_masks_are_fresh_at_every_visit_unless_they_are_static():
    dynamic, static = nano(), nano("objective.masks=static")
    first, second = (dynamic._alter(batch_of(), Draw(0, epoch)).steps for epoch in (0, 1))
    assert not torch.equal(first, second)
    first, second = (static._alter(batch_of(), Draw(0, epoch)) for epoch in (0, 1))
    assert torch.equal(first.steps, second.steps) and torch.equal(first.read.values, second.read.values)


def test_the_corpus_s_statistics_are_fitted_before_the_first_step():
    objective = MPC(settings("mpc", "tiny").objective)
    with pytest.raises(ConfigError, match="'global' without statistics"):
        objective(batch_of(), 0.0, Draw(0))
    objective.prepare([batch_of()])
    assert objective(batch_of(), 0.0, Draw(0)).mean.isfinite()
