import pytest
import torch

from mockingjay.core.errors import DataError
from mockingjay.studies import noise

CLEAN = {id: [torch.randn(7, 5), torch.randn(7, 4)] for id in ("a", "b", "c")}
SILENT = {**CLEAN, "b": [torch.randn(7, 5), torch.zeros(7, 4)]}


@pytest.mark.parametrize("norm", noise.NORMS)
def test_lnsr(norm):
    louder = {id: [1.25 * layer for layer in layers] for id, layers in CLEAN.items()}
    found = noise.lnsr(noise.ratios(CLEAN, louder, norm))
    assert found.mean == pytest.approx([0.25, 0.25], abs=1e-6)
    assert found.sum == pytest.approx([0.75, 0.75], abs=1e-6)
    assert found.low == pytest.approx(found.mean, abs=1e-6) and found.high == pytest.approx(found.mean, abs=1e-6)
    assert noise.lnsr(noise.ratios(CLEAN, CLEAN, norm)).mean == [0, 0]


def test_a_mean_lies_within_its_interval_and_a_sum_grows():
    louder = {id: [(1 + 0.1 * number) * layer for layer in CLEAN[id]] for number, id in enumerate(CLEAN, 1)}
    found = noise.lnsr(noise.ratios(CLEAN, louder), seed=1)
    assert found.mean == pytest.approx([0.2, 0.2], abs=1e-6) and found.sum == pytest.approx([0.6, 0.6], abs=1e-6)
    assert 0.1 - 1e-6 <= found.low[0] < 0.2 < found.high[0] <= 0.3 + 1e-6


def test_ratios_by_hand_and_of_other_lengths():
    clean, altered = torch.tensor([[3.0, 0], [0, 4]]), torch.tensor([[3.0, 3], [0, 0], [9, 9]])
    assert noise.noise_to_signal(clean, altered) == pytest.approx(1.0)  # √(9 + 16) / √(9 + 16)
    assert noise.noise_to_signal(clean, altered, "spectral") == pytest.approx(5 / 4)
    assert noise.noise_to_signal(clean, altered, "frame") == pytest.approx(1.0)


@pytest.mark.parametrize(("below", "name"), [(True, "layer 0"), (False, "layer 1")])
def test_what_is_silent_is_named_or_left_out(below, name):
    sentence = f"b, {name}: all of 7 steps are zero, expected states to compare with; leave this one out"
    with pytest.raises(DataError, match=f"^{sentence}$"):
        noise.ratios(SILENT, CLEAN, below=below)
    assert noise.silent(SILENT, below=below) == {"b": f"b is left out of LNSR: nothing but zeros in {name}."}
    assert noise.silent(CLEAN) == {} and noise.ratios({}, CLEAN).shape == (0, 0)
    assert noise.lnsr(noise.ratios({}, CLEAN)) == noise.LNSR([], [], [], [])
