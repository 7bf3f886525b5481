import math

import pytest
import torch
import torch.nn.functional as F
from speech_like import batch_of

from mockingjay.core.draw import Draw
from mockingjay.core.types import Frames, Utterance, pad
from mockingjay.moves.contrast import Contrast, Drawn, Negatives, binary_nce, compare, draw_negatives, info_nce
from mockingjay.moves.predict import LinearPredictors, TransformerPredictors, build_predictors

LENGTHS = (9, 6, 2)


def frames_of(lengths=LENGTHS, dim=4):
    return Frames(*pad([torch.randn(length, dim) for length in lengths]))


def people(*speakers):
    return tuple(Utterance(f"u{row}", f"/{row}", 1.0, speaker=speaker) for row, speaker in enumerate(speakers))


def drawn(source, frames=None, utterances=None, count=40, epoch=0):
    frames = frames_of() if frames is None else frames
    return draw_negatives(Negatives(count=count, source=source), frames, Draw(0, epoch), utterances or people(*"aba"))


@pytest.mark.parametrize(
    "source, pools", [("sequence", [{0}, {1}, {2}]), ("speaker", [{0, 2}, {1}, {0, 2}]), ("batch", [{0, 1, 2}] * 3)]
)
def test_negatives_are_all_other_frames_of_their_pool_equally_often(source, pools):
    frames = frames_of()
    counts = torch.zeros(3, 9, 27)
    for epoch in range(40):
        index = drawn(source, frames, epoch=epoch).frames
        counts.scatter_add_(2, index.clamp(0, 26), torch.ones(index.shape))
    for row, length in enumerate(LENGTHS):
        allowed = [9 * other + step for other in pools[row] for step in range(LENGTHS[other])]
        for step in range(length):
            wanted = torch.zeros(27)
            wanted[[place for place in allowed if place != 9 * row + step]] = 1
            assert not counts[row, step][wanted == 0].any()
            found = counts[row, step][wanted == 1]
            expected = 1600 / wanted.sum()
            assert ((found - expected).abs() < 5 * expected.sqrt()).all()


def test_own_negatives_are_the_same_alone_longer_padded_and_in_any_order():
    frames, utterances = frames_of(), people("a", None, "b")
    whole = drawn("sequence", frames, utterances)
    assert whole.own
    for row, length in enumerate(LENGTHS):
        alone = Frames(frames.values[row : row + 1, :length], frames.lengths[row : row + 1])
        own = drawn("sequence", alone, utterances[row : row + 1]).frames
        assert torch.equal(own[0], whole.frames[row, :length] - 9 * row)
    other = drawn("sequence", frames, utterances, epoch=1).frames
    assert not torch.equal(other, whole.frames)
    assert drawn("speaker", frames, utterances).own  # for no two share a speaker; unknown ones are nobody's
    assert not drawn("speaker", frames, people("a", "b", "a")).own


@pytest.mark.parametrize("source", ["speaker", "batch"])
def test_the_order_of_batch_mates_changes_no_negative(source):
    frames, utterances, order = frames_of(), people("a", "a", "a"), [2, 0, 1]
    one = drawn(source, frames, utterances).frames
    turned = Frames(frames.values[order], frames.lengths[order])
    other = drawn(source, turned, [utterances[row] for row in order]).frames
    for row, place in enumerate(order):
        mine, theirs = (
            each.values.flatten(0, 1)[index] for each, index in ((turned, other[row]), (frames, one[place]))
        )
        assert torch.equal(mine[: LENGTHS[place]], theirs[: LENGTHS[place]])


def test_negatives_say_what_a_loss_depends_on():
    depends = {source: Negatives(source=source).draws_from for source in ("sequence", "speaker", "batch")}
    assert depends == {"sequence": "utterance", "speaker": "batch", "batch": "batch"}


@pytest.mark.parametrize("own, count", [(True, 3), (True, 60), (False, 3), (False, 60)])
@pytest.mark.parametrize("first, steps", [(1, 4), (3, 2), (1, 1), (8, 3)])
def test_scores_and_losses_are_what_loops_find(own, count, first, steps):
    frames = frames_of()
    negatives = drawn("sequence" if own else "batch", frames, count=count)
    told = torch.randn(3, 9, steps, 4, requires_grad=True)
    values = frames.values.clone().requires_grad_()
    contrast = compare(told, Frames(values, frames.lengths), negatives, first)
    pool = values.flatten(0, 1)
    cross_entropy, logistic, pairs = torch.zeros(()), torch.zeros(()), 0
    for row, length in enumerate(LENGTHS):
        for step in range(length):
            for k in range(steps):
                there = step + first + k
                if there >= length:
                    continue
                assert contrast.asked[row, there, k]
                candidates = torch.cat([values[row, there][None], pool[negatives.frames[row, there]]])
                scores = candidates @ told[row, step, k]
                torch.testing.assert_close(contrast.scores[row, there, k], scores, atol=1e-5, rtol=1e-5)
                cross_entropy = cross_entropy + F.cross_entropy(scores[None], torch.tensor([0]))
                labels = (torch.arange(len(scores)) == 0).float()
                logistic = logistic + F.binary_cross_entropy_with_logits(scores, labels, reduction="sum")
                pairs += 1
    assert contrast.asked.sum() == pairs
    for loss, expected in ((info_nce(contrast, False), cross_entropy), (binary_nce(contrast, False), logistic)):
        assert loss.weight == pairs and loss.sum.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
        if pairs:
            wanted = torch.autograd.grad(expected, [told, values], retain_graph=True)
            for mine, theirs in zip(torch.autograd.grad(loss.sum, [told, values], retain_graph=True), wanted):
                torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def contrast_of(scores):
    return Contrast(scores, torch.ones(scores.shape[:3], dtype=torch.bool))


def test_closed_forms():
    even = contrast_of(torch.full((2, 5, 3, 11), 0.7))
    assert info_nce(even, True).mean.item() == pytest.approx(math.log(11))
    assert info_nce(even, True).parts["chance"] / 30 == pytest.approx(math.log(11))
    silent = contrast_of(torch.zeros(2, 5, 3, 11))
    assert binary_nce(silent, True).mean.item() == pytest.approx(11 * math.log(2))
    # The best answer that does not depend on the candidate is the share of true ones, a logit of −log 10.
    marginal = binary_nce(contrast_of(torch.full((2, 5, 3, 11), -math.log(10))), True)
    assert marginal.mean.item() == pytest.approx(marginal.parts["chance"].item() / 30)
    sure = torch.full((2, 5, 3, 11), -30.0)
    sure[..., 0] = 30.0
    for score in (info_nce, binary_nce):
        assert score(contrast_of(sure), True).mean < 1e-6


def test_accuracy_is_counted_for_each_distance():
    scores = torch.zeros(1, 4, 2, 3)
    scores[0, :2, 0, 0] = 1.0  # right twice of three times at the first distance, and never at the second
    asked = torch.tensor([[[True, True]] * 3 + [[False, False]]])
    loss = info_nce(Contrast(scores, asked), False)
    assert set(loss.parts) == {"accuracy 1", "accuracy 2"}
    assert (loss.parts["accuracy 1"] / loss.weight).item() == pytest.approx(2 / 3) and loss.parts["accuracy 2"] == 0


def test_an_utterance_without_a_later_frame_is_not_scored():
    frames = frames_of((1,))
    frames.values.requires_grad_()
    told = torch.randn(1, 1, 2, 4, requires_grad=True)
    loss = info_nce(compare(told, frames, drawn("sequence", frames, people("a"), count=3)), False)
    assert loss.sum == 0 and loss.weight == 0 and not any(part.isnan() for part in loss.parts.values())
    loss.sum.backward()
    assert told.grad.abs().sum() == 0


def test_a_frame_without_others_costs_what_chance_costs_and_teaches_nothing():
    frames = frames_of((1,))
    told = torch.randn(1, 1, 1, 4, requires_grad=True)
    loss = info_nce(compare(told, frames, drawn("sequence", frames, people("a"), count=3), first=0), True)
    assert loss.weight == 1 and loss.sum.item() == pytest.approx(math.log(4))
    assert loss.parts["chance"].item() == pytest.approx(math.log(4))
    loss.sum.backward()
    assert told.grad.abs().max() < 1e-6


def test_gradients_reach_true_frames_and_negatives_alike():
    frames = frames_of((6,))
    values = frames.values.clone().requires_grad_()
    told = torch.zeros(1, 6, 1, 4)
    told[0, 1] = 1.0
    negatives = Drawn(torch.full((1, 6, 2), 4), own=True)
    info_nce(compare(told, Frames(values, frames.lengths), negatives), False).sum.backward()
    assert values.grad[0].abs().sum(-1).nonzero()[:, 0].tolist() == [2, 4]  # true, and its negative


def test_linear_predictors_are_a_matrix_each_and_start_even():
    predictors = LinearPredictors(LinearPredictors.Config(), 256, 512, 12)
    assert sum(each.numel() for each in predictors.parameters()) == 1_572_864  # 12 × 512 × 256
    hidden = torch.randn(1, 3, 256)
    told = predictors(hidden)
    assert told.shape == (1, 3, 12, 512)
    torch.testing.assert_close(told[0, 1, 4], predictors.maps.weight[4 * 512 : 5 * 512] @ hidden[0, 1])
    assert (told @ torch.randn(512)).std() < 0.2


def test_transformer_predictors_read_the_past_at_any_length():
    config = TransformerPredictors.Config(heads=2, feedforward=16, reach=5, dropout=0.0)
    predictors = build_predictors(config, 8, 8, 3)
    hidden = torch.randn(2, 20, 8)
    told = predictors(hidden)
    assert told.shape == (2, 20, 3, 8)
    torch.testing.assert_close(predictors(hidden[:, :11]), told[:, :11])
    changed = hidden.clone()
    changed[:, 11:] += 1.0
    torch.testing.assert_close(predictors(changed)[:, :11], told[:, :11])


def test_a_transformer_predictor_is_what_a_loop_finds():
    config = TransformerPredictors.Config(heads=2, feedforward=16, reach=3, dropout=0.0)
    layer = build_predictors(config, 4, 4, 1).layers[0]
    torch.nn.init.normal_(layer.distances)
    values = torch.randn(1, 6, 4)
    query, key, value = layer.query_key_value(values[0]).chunk(3, -1)
    mixed = torch.zeros(6, 4)
    for head in (slice(0, 2), slice(2, 4)):
        for step in range(6):
            far = [layer.distances[min(step - other, 2)] for other in range(step + 1)]
            keys = key[: step + 1, head] + torch.stack(far)
            chances = (keys @ query[step, head] / 2**0.5).softmax(0)
            mixed[step, head] = chances @ value[: step + 1, head]
    attended = F.layer_norm(values[0] + layer.out(mixed), (4,))
    expected = F.layer_norm(attended + layer.narrow(layer.widen(attended).relu()), (4,))
    torch.testing.assert_close(layer(values)[0], expected, atol=1e-5, rtol=1e-5)


def test_ranks_divide_own_negatives_without_changing_them():
    batch = batch_of()
    frames = frames_of((20, 30, 24, 26))
    whole = drawn("sequence", frames, batch.utterances, count=7).frames
    for rank in range(2):
        part = Frames(frames.values[rank::2], frames.lengths[rank::2])
        mine = drawn("sequence", part, batch.utterances[rank::2], count=7).frames
        rows = 30 * torch.arange(4)[:, None, None]
        assert torch.equal(mine - rows[:2], (whole - rows)[rank::2])
