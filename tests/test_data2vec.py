import pytest
import torch
import torch.nn.functional as F
from speech_like import batch_of

from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Frames
from mockingjay.encoders.contexts import Transformer
from mockingjay.encoders.contexts.shared import SharedTransformer
from mockingjay.moves.teach import Pace, Teacher
from mockingjay.objectives import build_objective
from mockingjay.settings import settings
from mockingjay.train.loop import Run

SIZES = {"layers": 3, "dim": 8, "feedforward": 16, "heads": 2}


def nano(*changes):
    torch.manual_seed(0)
    return build_objective(settings("data2vec", "nano", changes).objective)


def frames_of(lengths, dim=5):
    return Frames(torch.randn(len(lengths), max(lengths), dim), torch.tensor(lengths))


def test_settings_are_the_paper_s():
    chosen = settings("data2vec", "base")
    objective = chosen.objective
    assert objective.hide.share / objective.hide.width == pytest.approx(0.065) and objective.hide.width == 10
    assert (objective.top, objective.encoder.context.layers, objective.encoder.context.dim) == (8, 12, 768)
    assert objective.follow.rise * chosen.train.steps == 30_000 and chosen.train.learning_rate == 5e-4


def test_the_pace_rises_along_a_line_and_stays():
    pace = Pace(first=0.9, last=0.99, rise=0.5)
    assert [round(pace.at(progress), 4) for progress in (0.0, 0.25, 0.5, 0.9)] == [0.9, 0.945, 0.99, 0.99]
    assert Pace(first=0.9, last=0.99, rise=0).at(0.0) == 0.99


@pytest.mark.parametrize(("kind", "top"), [(Transformer, 2), (SharedTransformer, 2), (Transformer, 3)])
def test_targets_are_the_mean_of_what_normalised_blocks_say(kind, top):
    student = kind(kind.Config(**SIZES), 5)
    teacher, frames = Teacher(student, top).train(), frames_of([9, 6])
    said = teacher(frames)
    student.eval()
    blocks = [student.block] * 3 if kind is SharedTransformer else [*student.blocks]
    for row, length in enumerate(frames.lengths.tolist()):
        alone = Frames(frames.values[row : row + 1, :length], torch.tensor([length]))
        total = torch.zeros(length, 8)
        for below, block in list(zip(student(alone).layers, blocks))[-top:]:
            middle = block.attention_norm(below + block.attention(below, None))
            answer = block.narrow(F.gelu(block.widen(middle)))[0]  # before it is added to what it answers
            total += (answer - answer.mean(0)) / (answer.var(0, unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(said[row, :length], total / top, atol=1e-4, rtol=1e-4)
    assert not said.requires_grad and not teacher.said


def test_the_teacher_is_the_moving_average():
    student = Transformer(Transformer.Config(**SIZES), 5)
    teacher = Teacher(student, 1)
    before = {name: value.clone() for name, value in teacher.context.state_dict().items()}
    assert not [*teacher.parameters()] and before.keys() == student.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
    teacher.follow(student, 0.75)
    for name, value in teacher.context.state_dict().items():
        torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * student.state_dict()[name])
    teacher.follow(student, 0.0)
    assert all(torch.equal(value, student.state_dict()[name]) for name, value in teacher.context.state_dict().items())


def test_the_run_s_teacher_follows_and_stays_behind():
    objective = nano()
    with torch.no_grad():
        objective.encoder.context.project.weight.mul_(2)  # as an encoder to start from would
    steps, expected = 4, None
    for tick in Run(objective, Run.Config(steps=steps, learning_rate=1e-2)).ticks(
        [(batch_of((8_000, 9_000)),)] * steps
    ):
        now = objective.encoder.context.project.weight.detach().clone()
        stays = objective.config.follow.at((tick.step - 1) / steps)
        expected = now if expected is None else stays * expected + (1 - stays) * now
        torch.testing.assert_close(objective.teacher.context.project.weight, expected)
    assert not torch.equal(now, expected)
    saved = objective.state_dict().keys()
    assert "teacher.context.project.weight" in saved
    assert not any("teacher" in name or "mask" in name for name in objective.encoder.state_dict())


def test_the_teacher_sees_what_the_student_does_not():
    objective, batch, taught, learnt = nano().eval(), batch_of((16_000, 12_000)), [], []
    frames = objective.encoder.frontend(batch.waves)
    selected = objective._select(frames, batch, Draw(0))
    objective.teacher.register_forward_pre_hook(lambda module, inputs: taught.append(inputs[0].values))
    objective.encoder.context.register_forward_pre_hook(lambda module, inputs: learnt.append(inputs[0].values))
    objective(batch, 0.0, Draw(0))
    assert torch.equal(taught[0], frames.values)
    assert (learnt[0][selected] == objective.mask).all() and torch.equal(learnt[0][~selected], frames.values[~selected])
    assert selected.any() and (~selected & frames.valid).any() and not (selected & ~frames.valid).any()


def test_the_loss_counts_hidden_steps_and_has_its_trivial_predictors():
    objective, batch = nano().eval(), batch_of((16_000, 12_000))
    loss = objective(batch, 0.0, Draw(0))
    frames = objective.encoder.frontend(batch.waves)
    selected = objective._select(frames, batch, Draw(0))
    seen = Frames(torch.where(selected[:, :, None], objective.mask, frames.values), frames.lengths)
    said, wanted = objective.head(objective.encoder.context(seen).last), objective.teacher(frames)
    torch.testing.assert_close(loss.sum, (said - wanted)[selected].square().sum())
    assert loss.weight == selected.sum() * objective.encoder.dim
    assert set(loss.parts) == {"utterance mean", "copy last", "interpolation"}


def test_gradients_reach_the_frontend_by_the_student_alone():
    small = ["objective.encoder.frontend.kind=waveform", "objective.encoder.frontend.channels=8"]
    objective = nano(*small)
    objective.teacher.forward = lambda frames: frames.values.new_zeros(*frames.values.shape[:2], objective.encoder.dim)
    objective(batch_of((8_000, 9_000)), 0.0, Draw(0)).sum.backward()
    by_student = objective.encoder.frontend.layers[0].convolve.weight.grad.clone()
    assert by_student.abs().sum() > 0
    again = nano(*small)
    assert not again.teacher(again.encoder.frontend(batch_of((8_000, 9_000)).waves)).requires_grad


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            ["objective.encoder.context.kind=recurrent"],
            r"0 Transformer blocks and 1 frames a step, expected at least top",
        ),
        (
            ["objective.top=3"],
            r"2 Transformer blocks and 1 frames a step, expected at least top = 3 of them and one; set",
        ),
        (["objective.hide.zero=0.5"], r"hide.zero 0.5 leaves frames visible, expected 1"),
    ],
)
def test_contexts_without_a_teacher(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        nano(*changes)
