import os
import socket

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy_learner import forked

from mockingjay.core.draw import Draw
from mockingjay.encoders.bottlenecks import Discrete, Narrow, Noisy
from mockingjay.encoders.quantise import Quantiser, perplexity
from mockingjay.train.distributed import joined

IDS = ("a", "b")
VALID = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


def quantiser(codes=8, dim=4, **settings):
    torch.manual_seed(0)
    found = Quantiser(Quantiser.Config(codes=codes, **settings), dim)
    with torch.no_grad():
        found.codebook.normal_()
    return found


def step(found, vectors, valid=VALID, ids=IDS):
    codes = found(vectors).codes
    found.note(vectors, codes, valid, Draw(0).uniform(ids, "restart", vectors.shape[1]))
    return codes


def test_the_nearest_code_is_what_a_loop_finds():
    found, vectors = quantiser(), torch.randn(2, 5, 4)
    for row, codes in zip(vectors, found(vectors).codes):
        for vector, code in zip(row, codes):
            assert code == min(range(8), key=lambda each: (vector - found.codebook[each]).norm().item())


def test_the_straight_through_gradient_is_the_identity():
    found, vectors = quantiser(), torch.randn(2, 5, 4, requires_grad=True)
    said = found(vectors)
    torch.testing.assert_close(said.values, found.codebook[said.codes], atol=1e-6, rtol=0)
    wanted = torch.randn_like(vectors)
    own, codes = torch.autograd.grad((said.values * wanted).sum(), [vectors, found.codebook], allow_unused=True)
    assert torch.equal(own, wanted) and codes is None


def test_codebook_and_commitment_touch_their_own_side_alone():
    found, vectors = quantiser(), torch.randn(2, 5, 4, requires_grad=True)
    said = found(vectors)
    assert torch.equal(said.codebook, said.commitment)
    own, codes = torch.autograd.grad(
        said.codebook.sum(), [vectors, found.codebook], allow_unused=True, retain_graph=True
    )
    by_hand = torch.zeros_like(found.codebook).index_add_(
        0, said.codes.flatten(), 2 * (found.codebook[said.codes] - vectors).flatten(0, 1).detach()
    )
    assert own is None
    torch.testing.assert_close(codes, by_hand)
    own, codes = torch.autograd.grad(said.commitment.sum(), [vectors, found.codebook], allow_unused=True)
    assert codes is None
    torch.testing.assert_close(own, 2 * (vectors - found.codebook[said.codes]).detach())


def test_the_moving_average_is_the_loop_s():
    found = quantiser(learn="average", decay=0.9, restart=0.0)
    before, usage, total = found.codebook.clone(), torch.zeros(8), torch.zeros(8, 4)
    for number in range(3):
        vectors = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(number))
        codes = step(found, vectors)
        found.follow()
        chosen, summed = torch.zeros(8), torch.zeros(8, 4)
        for vector, code in zip(vectors[VALID], codes[VALID]):
            chosen[code] += 1
            summed[code] += vector
        usage, total = 0.9 * usage + 0.1 * chosen, 0.9 * total + 0.1 * summed
    torch.testing.assert_close(found.usage, usage)
    used = usage > 0
    smoothed = (usage + 1e-5) / (usage.sum() + 8e-5) * usage.sum()
    torch.testing.assert_close(found.codebook[used], (total / smoothed[:, None])[used])
    assert not used.all() and torch.equal(found.codebook[~used], before[~used])


@pytest.mark.parametrize("learn", ["gradient", "average"])
def test_codes_begin_at_vectors(learn):
    found, vectors = quantiser(codes=10, learn=learn), torch.randn(2, 5, 4)
    step(found, vectors)
    before = found.codebook[8:].clone()
    found.begin()
    assert {tuple(code) for code in found.codebook[:8].tolist()} == {tuple(each) for each in vectors[VALID].tolist()}
    assert torch.equal(found.codebook[8:], before) and (found.usage == 1).all() and (found._lots == -1).all()


@pytest.mark.parametrize("learn", ["gradient", "average"])
def test_dead_codes_start_anew_at_vectors_of_the_step(learn):
    found, vectors = quantiser(codes=6, learn=learn), torch.randn(2, 5, 4)
    with torch.no_grad():
        found.codebook[1:] += 100.0  # one code for all
    assert perplexity(step(found, vectors), VALID, 6) == 1
    found.follow()
    offered = vectors[VALID].tolist()
    moved = [code.tolist() for code in found.codebook.detach()[1:]]
    assert all(any(code == pytest.approx(each, rel=1e-3) for each in offered) for code in moved)
    assert len({tuple(code) for code in moved}) == 5
    assert perplexity(step(found, vectors), VALID, 6) > 3
    # Those with the highest lots, whatever the order of the utterances.
    lots = Draw(0).uniform(IDS, "restart", 5).masked_fill(~VALID, -1.0)
    assert moved[0] == pytest.approx(vectors.flatten(0, 1)[lots.flatten().argmax()].tolist(), rel=1e-3)


def test_a_split_batch_moves_the_codes_alike():
    together, apart = (quantiser(learn="average") for _ in range(2))
    vectors = torch.randn(2, 5, 4)
    step(together, vectors)
    for row in (1, 0):
        step(apart, vectors[row : row + 1], VALID[row : row + 1], ids=IDS[row : row + 1])
    for found in (together, apart):
        found.follow()
    for name, value in together.state_dict().items():
        torch.testing.assert_close(value, apart.state_dict()[name])
    assert set(together.state_dict()) == {"codebook", "total", "usage"}


def followed(out, rows, environment):
    """Follow the codes for three steps as a rank that sees these rows of each batch, and write what they came to."""
    os.environ.update(environment)
    with joined("cpu"):
        for learn in ("average", "gradient"):
            found = quantiser(learn=learn, restart=0.1)
            with torch.no_grad():
                found.codebook[5:] += 100.0  # nobody's
            for number in range(3):
                vectors = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(number))
                step(found, vectors[rows], VALID[rows], IDS[rows])
                found.follow()
            save_file(found.state_dict(), out.with_suffix(f".{learn}"))


def test_two_ranks_move_the_codes_as_one_would(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        forked(followed, tmp_path / f"rank-{rank}", slice(rank, rank + 1), {**shared, "RANK": str(rank)})
        for rank in range(2)
    ]
    followed(tmp_path / "whole", slice(0, 2), {})
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    for learn in ("average", "gradient"):
        whole, one, other = (load_file(tmp_path / f"{name}.{learn}") for name in ("whole", "rank-0", "rank-1"))
        assert whole["codebook"].abs().max() < 10, "no code is nobody's any more"
        for name, value in whole.items():
            assert torch.equal(one[name], other[name]), (learn, name)
            torch.testing.assert_close(one[name], value, msg=f"{learn} {name}")


def test_padding_is_neither_counted_nor_offered():
    one, other = (quantiser(learn="average") for _ in range(2))
    vectors = torch.randn(2, 5, 4)
    step(one, vectors)
    step(other, torch.where(VALID[..., None], vectors, 50.0))
    for found in (one, other):
        found.follow()
    assert torch.equal(one.codebook, other.codebook) and torch.equal(one.usage, other.usage)


def test_perplexity_counts_the_codes_in_use():
    codes = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]])
    assert perplexity(codes, torch.ones(2, 4, dtype=torch.bool), 16).item() == pytest.approx(4)
    assert perplexity(codes, codes < 2, 16).item() == pytest.approx(2)


def through(bottleneck, projected, progress=1.0):
    return bottleneck(projected, VALID, progress, Draw(0), IDS)


def test_the_narrow_one_costs_its_norm_at_most():
    projected = torch.randn(2, 5, 4)
    assert through(Narrow(Narrow.Config(), 4), projected).cost.sum() == 0
    passed = through(Narrow(Narrow.Config(norm=2.0), 4), projected)
    torch.testing.assert_close(passed.cost, 2 * (projected.norm(dim=-1) - 1).abs())
    assert torch.equal(passed.values, projected)


def test_the_noisy_one_costs_its_divergence():
    bottleneck, projected = Noisy(Noisy.Config(free=1.0, warmup=0.5), 4), torch.randn(2, 5, 8)
    centre, spread = projected.chunk(2, -1)
    normal = torch.distributions.Normal(centre, (spread / 2).exp())
    known = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    cost = (known - 1).clamp(min=0)
    torch.testing.assert_close(through(bottleneck, projected).cost, cost)
    torch.testing.assert_close(through(bottleneck, projected, 0.25).cost, cost / 2)
    assert through(bottleneck, projected, 0.0).cost.sum() == 0
    assert torch.equal(bottleneck.layers(projected)[0], centre)


def test_the_noise_is_addressed_and_normal():
    bottleneck, projected = Noisy(Noisy.Config(), 400), torch.zeros(2, 50, 800)
    valid = torch.ones(2, 50, dtype=torch.bool)
    first, same = (bottleneck(projected, valid, 1.0, Draw(0), IDS).values for _ in range(2))
    assert torch.equal(first, same)
    assert first.mean().item() == pytest.approx(0, abs=0.02) and first.std().item() == pytest.approx(1, abs=0.02)
    short = bottleneck(projected[:, :20], valid[:, :20], 1.0, Draw(0), IDS).values
    assert torch.equal(short, first[:, :20])
    assert not torch.equal(first, bottleneck(projected, valid, 1.0, Draw(1), IDS).values)


def test_the_discrete_one_costs_both_distances_or_the_commitment_alone():
    projected = torch.randn(2, 5, 4)
    for learn, share in (("gradient", 1.25), ("average", 0.25)):
        torch.manual_seed(0)
        bottleneck = Discrete(Discrete.Config(quantiser=Quantiser.Config(codes=8, learn=learn)), 4).eval()
        passed = through(bottleneck, projected)
        found = bottleneck.quantiser(projected)
        torch.testing.assert_close(passed.cost, share * found.commitment)
        before, after = bottleneck.layers(projected)
        assert torch.equal(before, projected) and torch.equal(after, bottleneck.quantiser.codebook[found.codes])
        assert passed.figures["perplexity"] >= 1
        assert bottleneck.quantiser._chosen.sum() == 0  # nothing is noted in evaluation


@pytest.mark.parametrize("learn", ["gradient", "average"])
def test_a_gradient_reaches_what_is_below_the_codes_shown(learn):
    bottleneck = Discrete(Discrete.Config(quantiser=Quantiser.Config(codes=8, learn=learn)), 4).eval()
    projected, wanted = torch.randn(2, 5, 4, requires_grad=True), torch.randn(2, 5, 4)
    (bottleneck.layers(projected)[1] * wanted).sum().backward()
    assert torch.equal(projected.grad, wanted)
