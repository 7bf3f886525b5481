import math

import pytest
import torch
import torch.nn.functional as F
from speech_like import batch_of

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames
from mockingjay.moves.random_projection import RandomProjection
from mockingjay.objectives import build_objective
from mockingjay.settings import settings
from mockingjay.train.loop import Run


def nano(*changes):
    torch.manual_seed(0)
    return build_objective(settings("best-rq", "nano", changes).objective)


def test_the_nearest_unit_vector_is_what_a_loop_finds():
    found, values = RandomProjection(RandomProjection.Config(codes=9, dim=4), 6), torch.randn(2, 5, 6)
    for row, codes in zip(values, found(values)):
        for value, code in zip(row, codes):
            turned = F.normalize(value @ found.projection, dim=0)
            assert code == min(range(9), key=lambda each: (turned - found.codebook[each]).norm().item())
    torch.testing.assert_close(found.codebook.norm(dim=1), torch.ones(9))


def test_questions_are_a_function_of_their_seed_and_never_learned():
    sizes = {"codes": 9, "dim": 4}
    one, same, other = (RandomProjection(RandomProjection.Config(seed=seed, **sizes), 6) for seed in (1, 1, 2))
    assert torch.equal(one.projection, same.projection) and torch.equal(one.codebook, same.codebook)
    assert not torch.equal(one.projection, other.projection) and not [*one.parameters()]
    objective = nano()
    before = {name: value.clone() for name, value in objective.quantiser.state_dict().items()}
    objective.prepare([batch_of((8_000, 9_000))])
    list(Run(objective, Run.Config(steps=2)).ticks([(batch_of((8_000, 9_000)),)] * 2))
    assert set(before) == {"projection", "codebook"}
    assert all(torch.equal(value, objective.quantiser.state_dict()[name]) for name, value in before.items())


def test_masks_and_codes_are_the_paper_s():
    objective = settings("best-rq").objective
    assert (objective.quantiser.codes, objective.quantiser.dim, objective.deviation) == (8192, 16, 0.1)
    assert objective.hide.share / objective.hide.width == pytest.approx(0.01)  # spans that begin, for each frame
    assert objective.hide.width * 10 == 400  # ms


def test_what_is_hidden_is_noise_and_the_rest_as_it_was():
    objective = nano("objective.hide.share=0.3")
    values = torch.randn(4, 300, objective.encoder.frontend.dim)
    frames, batch = Frames(values, torch.tensor([300, 200, 100, 50])), batch_of()
    seen, selected = objective._hide(frames, batch, Draw(0))
    assert torch.equal(seen.values[~selected], values[~selected]) and not (selected & ~frames.valid).any()
    noise = seen.values[selected]
    assert noise.std().item() == pytest.approx(0.1, rel=0.02) and noise.mean().item() == pytest.approx(0, abs=0.002)
    assert selected.float().sum().item() == pytest.approx(0.3 * 650, rel=0.1)


def test_the_loss_is_the_cross_entropy_of_hidden_steps_alone():
    objective, batch = nano().eval(), batch_of()
    objective.prepare([batch])
    loss = objective(batch, 0.0, Draw(0))
    frames = objective.encoder.frontend(batch.waves)
    seen, selected = objective._hide(frames, batch, Draw(0))
    codes, logits = objective.quantiser(frames.values), objective.head(objective.encoder.context(seen).last)
    counts = torch.zeros(32)
    for row, length in zip(codes, frames.lengths):
        for code in row[:length]:
            counts[code] += 1
    assert torch.equal(counts, objective.counts)
    shares = (counts + 1) / (counts + 1).sum()
    total = marginal = 0.0
    for row, step in selected.nonzero().tolist():
        total -= logits[row, step].log_softmax(-1)[codes[row, step]]
        marginal -= shares[codes[row, step]].log()
    torch.testing.assert_close(loss.sum, total)
    torch.testing.assert_close(loss.parts["marginal"], marginal)
    assert loss.weight == selected.sum() and loss.parts["chance"] == pytest.approx(loss.weight.item() * math.log(32))
    assert loss.parts["marginal"] < loss.parts["chance"]
    parts = objective.train()(batch, 0.0, Draw(0)).parts
    assert set(parts) == {"accuracy", "target perplexity"} and 1 < parts["target perplexity"] / loss.weight <= 32


def test_settings_it_cannot_follow():
    with pytest.raises(ConfigError, match=r"hide.zero 0.8 leaves frames visible, expected 1"):
        settings("best-rq", changes=["objective.hide.zero=0.8"])
    with pytest.raises(ConfigError, match=r"'subsampled-transformer' has 4 frames a step, expected one, .*; stack"):
        build_objective(
            settings(
                "best-rq",
                changes=[
                    "objective.encoder.context.kind=subsampled-transformer",
                    "objective.encoder.context.filters=2",
                ],
            ).objective
        )
