import pytest
import torch
from speech_like import batch_of

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames, pad
from mockingjay.objectives import build_objective
from mockingjay.settings import settings

SMALL = ["objective.encoder.context.dim=24", "objective.encoder.context.layers=2", "objective.head_dim=16"]


def small(*changes):
    torch.manual_seed(0)
    return build_objective(settings("decoar", changes=[*SMALL, *changes]).objective).eval()


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_sizes():
    with torch.device("meta"):
        objective = build_objective(settings("decoar").objective)
    assert size(objective.encoder) == 67_257_344 and size(objective.heads) == 19_622_304


def test_the_defaults_are_the_released_model_s():
    chosen = settings("decoar", "base")
    assert chosen.objective == settings("decoar").objective
    assert (chosen.train.steps, chosen.train.learning_rate, chosen.train.warmup) == (100_000, 1e-4, 0.08)
    assert chosen.train.optimiser.betas == (0.9, 0.98)


def test_only_the_encoder_is_kept(tmp_path):
    objective = small()
    objective.encoder.save(tmp_path)
    kept = type(objective.encoder).load(tmp_path)
    assert size(kept) == size(objective.encoder.context) and (kept.dim, kept.depth) == (24, 3)


def test_the_frames_inside_a_slice_are_hidden_and_its_ends_are_not():
    objective = small()
    frames = objective.encoder.frontend(batch_of((24_000,)).waves)
    before = objective._around(frames)
    start = 30
    for place in range(18):
        changed = Frames(frames.values.clone(), frames.lengths)
        changed.values[:, start + place] += 1.0
        after = objective._around(changed)
        assert torch.equal(before[:, start], after[:, start]) == (0 < place < 17)
    inside = Frames(frames.values.clone(), frames.lengths)
    inside.values[:, start + 1 : start + 17] = torch.randn(1, 16, 80)
    assert torch.equal(before[:, start], objective._around(inside)[:, start])
    assert not torch.equal(before[:, start - 1], objective._around(inside)[:, start - 1])


def test_every_slice_is_enumerated():
    objective = small()
    batch = batch_of()
    frames = objective.encoder.frontend(batch.waves)
    assert objective._around(frames).shape[1] == int(frames.lengths.max()) - 17
    assert objective(batch, 0.0, Draw(0)).weight == (frames.lengths - 17).sum() * 18 * 80


def test_the_loss_is_a_loop_over_slices_and_positions():
    objective = small("objective.width=4")
    batch = batch_of((4000, 2800))
    frames = objective.encoder.frontend(batch.waves)
    onward, backward = objective.encoder.context(frames).last.chunk(2, -1)
    mean = [values[:length].mean(0) for values, length in zip(frames.values, frames.lengths)]
    error, expected = 0.0, dict.fromkeys(("copy last", "utterance mean", "interpolation"), 0.0)
    for row, length in enumerate(frames.lengths.tolist()):
        values = frames.values[row]
        for start in range(length - 3):
            around = torch.cat([onward[row, start], backward[row, start + 3]])
            for place in range(4):
                true = values[start + place]
                line = values[start] + (values[start + 3] - values[start]) * place / 3
                guesses = {"copy last": values[start], "utterance mean": mean[row], "interpolation": line}
                error += (objective.heads[place](around) - true).abs().sum().item()
                for name, guess in guesses.items():
                    expected[name] += (guess - true).abs().sum().item()
    loss = objective(batch, 0.0, Draw(0))
    assert loss.sum.item() == pytest.approx(error, rel=1e-4)
    assert {name: part.item() for name, part in loss.parts.items()} == pytest.approx(expected, rel=1e-4)
    assert objective.train()(batch, 0.0, Draw(0)).parts == {}


def test_an_utterance_shorter_than_a_slice_is_not_scored():
    objective = small()
    batch = batch_of((2800,))  # 16 frames
    loss = objective(batch, 0.0, Draw(0))
    loss.sum.backward()
    assert loss.sum == 0 and loss.weight == 0 and all(part == 0 for part in loss.parts.values())
    assert all(parameter.grad.abs().sum() == 0 for parameter in objective.parameters())
    assert not objective.picture(batch, Draw(0)).hidden.any()


def test_a_picture_rebuilds_slices_end_to_end():
    objective = small()
    batch = batch_of((24_000, 16_000))
    frames = objective.encoder.frontend(batch.waves)
    picture = objective.picture(batch, Draw(0))
    around = objective._around(frames)[0]
    visible = torch.arange(len(picture.true)) % 17 == 0
    covered = torch.arange(len(picture.true)) < 17 * ((len(picture.true) - 1) // 17)
    assert torch.equal(picture.hidden, covered & ~visible)
    assert torch.equal(picture.rebuilt[~picture.hidden], picture.true[~picture.hidden])
    assert not picture.altered[picture.hidden].any()
    torch.testing.assert_close(picture.rebuilt[17 + 5], objective.heads[5](around[17]))


def test_padding_between_slices_and_their_ends_is_never_read():
    objective = small()
    values, lengths = pad([torch.randn(40, 80), torch.randn(30, 80)])
    clean = objective._around(Frames(values, lengths))
    values[1, 30:] = 9.0
    torch.testing.assert_close(objective._around(Frames(values, lengths))[1, :13], clean[1, :13])


@pytest.mark.parametrize("kind", ["transformer", "recurrent"])
def test_a_context_that_mixes_directions_or_has_one_is_refused(kind):
    with pytest.raises(ConfigError, match=rf"objective: encoder\.context\.kind '{kind}' would see into the slice"):
        settings("decoar", changes=[f"objective.encoder.context.kind={kind}"])
