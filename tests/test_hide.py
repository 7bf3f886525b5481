import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mockingjay.core.config import validate
from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames
from mockingjay.moves.guess import copy_last, interpolation, utterance_mean
from mockingjay.moves.hide import Spans, hide


def batch(lengths, dim=3, time=None):
    time = time or max(lengths)
    values = torch.randn(len(lengths), time, dim)
    frames = Frames(values, torch.tensor(lengths))
    return Frames(values * frames.valid[:, :, None], frames.lengths)


def ids(count, start=0):
    return tuple(f"utterance-{start + index}" for index in range(count))


def runs(row):
    padded = np.concatenate([[0], row.numpy().astype(int), [0]])
    edges = np.flatnonzero(np.diff(padded))
    return edges[1::2] - edges[::2]


def test_published_share_is_about_fourteen_percent_at_width_seven_and_exact_when_disjoint():
    frames = batch([300] * 2500)
    for placement, low, high in (("overlapping", 0.135, 0.15), ("disjoint", 0.145, 0.155)):
        _, selected = hide(frames, Spans(placement=placement), Draw(1), ids(2500))
        share = selected.float().mean().item()
        assert low < share < high, (placement, share)


def test_disjoint_share_is_exact_on_average_at_awkward_lengths():
    for length in (23, 47, 100):
        _, selected = hide(batch([length] * 4000), Spans(placement="disjoint"), Draw(2), ids(4000))
        # At least one span is hidden, so very short utterances lie above the share.
        assert abs(selected.float().mean().item() - max(0.15, 7 / length)) < 0.006


def test_fates_have_their_frequencies_and_never_mix_within_an_utterance():
    count = 10_000
    frames = batch([40] * count)
    altered, selected = hide(frames, Spans(), Draw(3), ids(count))
    changed = (altered.values != frames.values).any(-1)
    zeroed = (altered.values == 0).all(-1)
    untouched = ~changed.any(1)
    silenced = (zeroed == selected).all(1)
    replaced = ~untouched & ~silenced
    observed = np.array([silenced.sum(), replaced.sum(), untouched.sum()])
    expected = np.array([0.8, 0.1, 0.1]) * count
    assert ((observed - expected) ** 2 / expected).sum() < 13.8  # χ² with 2 degrees of freedom, p > 1e-3
    assert (selected.sum(1) > 0).all()


def test_fates_mix_per_frame_where_asked():
    frames = batch([2000])
    altered, selected = hide(frames, Spans(per="frame", share=0.5, width=1), Draw(3), ids(1))
    changed = (altered.values != frames.values).any(-1)
    zeroed = (altered.values == 0).all(-1)[selected]
    assert 0.75 < zeroed.float().mean() < 0.85
    assert 0.05 < (~changed[selected]).float().mean() < 0.15


def test_replacements_are_frames_of_the_same_utterance_in_spans():
    frames = batch([60, 90])
    altered, selected = hide(frames, Spans(zero=0.0, random=1.0), Draw(4), ids(2))
    for row, length in enumerate([60, 90]):
        originals = {tuple(frame) for frame in frames.values[row, :length].tolist()}
        assert all(tuple(frame) in originals for frame in altered.values[row, :length].tolist())
    assert torch.equal(altered.values[~selected], frames.values[~selected])
    assert not torch.equal(altered.values, frames.values)


def test_the_last_frame_and_every_other_are_reachable():
    _, selected = hide(batch([30] * 3000), Spans(), Draw(5), ids(3000))
    share = selected.float().mean(0)
    assert (share > 0).all()
    # A frame at the edge is covered by a single start, one inside by seven.
    assert 0.01 < share[-1] < 0.1 and 0.01 < share[0] < 0.1


def test_spans_are_fresh_every_epoch_and_repeatable():
    frames = batch([200, 150])
    first = hide(frames, Spans(), Draw(6, 0), ids(2))
    again = hide(frames, Spans(), Draw(6, 0), ids(2))
    later = hide(frames, Spans(), Draw(6, 1), ids(2))
    assert torch.equal(first[1], again[1]) and torch.equal(first[0].values, again[0].values)
    assert not torch.equal(first[1], later[1])


@pytest.mark.parametrize("placement", ["overlapping", "disjoint"])
@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 120), min_size=1, max_size=6),
    least=st.integers(1, 20),
    more=st.integers(0, 5),
    share=st.floats(0.02, 0.6),
)
def test_properties_of_any_selection(placement, lengths, least, more, share):
    spans = Spans(width=(least, least + more), share=share, placement=placement)
    frames = batch(lengths, time=max(lengths) + 3)
    altered, selected = hide(frames, spans, Draw(7), ids(len(lengths)))
    for row, length in enumerate(lengths):
        chosen = selected[row]
        assert not chosen[length:].any()
        assert chosen.any() == (length > 1)
        if placement == "overlapping" and length > 1:
            assert (runs(chosen) >= min(least, length - 1)).all()
        if placement == "disjoint" and length > 1:
            assert not chosen[:length].all()
            assert (runs(chosen) >= min(least, length - 1)).all() and (runs(chosen) <= min(least + more, length)).all()
        alone = hide(
            Frames(frames.values[row : row + 1, :length], torch.tensor([length])), spans, Draw(7), (f"utterance-{row}",)
        )
        assert torch.equal(alone[1][0], chosen[:length])
        assert torch.equal(alone[0].values[0], altered.values[row, :length])


def test_impossible_spans_are_refused():
    with pytest.raises(ConfigError, match="width 0 must be at least 1"):
        validate(Spans, {"width": 0})
    with pytest.raises(ConfigError, match="must not exceed 1 together"):
        validate(Spans, {"zero": 0.8, "random": 0.3})


def test_dumb_predictors_by_hand():
    values = torch.arange(8.0)[None, :, None].repeat(1, 1, 2)
    values[0, :, 1] = 5.0
    frames = Frames(values, torch.tensor([7]))
    hidden = torch.tensor([[True, False, False, True, True, False, True, False]])
    assert copy_last(frames, hidden)[0, :7, 0].tolist() == [1, 1, 2, 2, 2, 5, 5]
    assert interpolation(frames, hidden)[0, :7, 0].tolist() == pytest.approx([1, 1, 2, 3, 4, 5, 5])
    assert utterance_mean(frames, hidden)[0, 0].tolist() == pytest.approx([8 / 3, 5.0])


def test_interpolation_is_exact_on_a_straight_line():
    frames = batch([50])
    line = Frames(torch.arange(50.0)[None, :, None].repeat(1, 1, 3), frames.lengths)
    _, hidden = hide(frames, Spans(), Draw(9), ids(1))
    hidden[0, 0] = hidden[0, -1] = False
    torch.testing.assert_close(interpolation(line, hidden), line.values)
