import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames, Hidden
from mockingjay.encoders.contexts import SubsampledTransformer, Transformer
from mockingjay.encoders.contexts.context import Context
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.windows import read

SMALL = {"layers": 2, "dim": 16, "feedforward": 32, "heads": 2}


class Where(Context):
    """Says what it read in groups of `stride`, and how far from the nearest end of what it was given."""

    def __init__(self, stride):
        super().__init__()
        self.dim, self.depth, self.stride, self.causal = 2, 1, stride, True

    def forward(self, frames):
        steps = frames.values.shape[1] // self.stride
        first = frames.values[:, : steps * self.stride : self.stride, :1]
        place = torch.arange(steps)[None, :, None].expand_as(first).float()
        return Hidden((torch.cat([first, place], -1),), frames.lengths // self.stride)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.lists(st.integers(1, 90), min_size=1, max_size=4))
def test_every_step_is_read_once_and_from_the_middle_of_a_window(stride, half, lengths):
    window = 2 * stride * half
    time = max(lengths)
    values = torch.arange(time).float()[None, :, None].expand(len(lengths), -1, -1)
    hidden = read(Where(stride), Frames(values, torch.tensor(lengths)), window)
    for row, length in enumerate(lengths):
        assert hidden.lengths[row] == length // stride
        said = hidden.layers[0][row, : length // stride]
        assert torch.equal(said[:, 0], torch.arange(length // stride).float() * stride)
        if length > window:
            inner = said[half // 2 + 1 : len(said) - half - 1, 1]
            assert (inner >= half // 2).all() and (inner <= 2 * half - 1 - (half - 1) // 2).all()


def test_short_utterances_are_read_at_once_and_batch_mates_change_nothing():
    context = Transformer(Transformer.Config(**SMALL), inputs=5).eval()
    values, lengths = torch.randn(3, 70, 5), torch.tensor([70, 13, 41])
    together = read(context, Frames(values, lengths), 20)
    for row, length in enumerate(lengths.tolist()):
        alone = Frames(values[row : row + 1, :length], lengths[row : row + 1])
        wanted = context(alone) if length <= 20 else read(context, alone, 20)
        for one, many in zip(wanted.layers, together.layers):
            assert torch.allclose(one[0, :length], many[row, :length], atol=1e-5)


def test_windows_behind_the_end_of_a_batch_mate_leave_gradients_finite():
    """In steps of four frames the shorter one has none there, and every key is padding."""
    context = SubsampledTransformer(
        SubsampledTransformer.Config(filters=2, layers=1, dim=8, feedforward=8, heads=2), inputs=8
    )
    hidden = read(context.train(), Frames(torch.randn(2, 40, 8), torch.tensor([40, 9])), 16)
    assert hidden.lengths.tolist() == [10, 2]
    hidden.last[hidden.valid].square().sum().backward()
    assert all(each.grad.isfinite().all() for each in context.parameters())


def test_a_window_that_cuts_a_step_is_refused():
    with pytest.raises(ConfigError, match=r"objective\.encoder\.window: 7 frames, expected a multiple of 2; windows"):
        Encoder(Encoder.Config(context=Transformer.Config(**SMALL), window=7))
