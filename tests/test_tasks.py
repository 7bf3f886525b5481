import json

import numpy as np
import pytest
import torch

from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.types import Grid, Utterance
from mockingjay.downstream.partition import partition
from mockingjay.downstream.tasks import Label, Phone, Targets, build_task, open_task

# 0–35 ms a, 35–80 ms b, 80–95 ms nothing, 95–120 ms c: points at 5, 15, 25 | 35, 45, …, 75 | 85 none | 95, 105, 115
ALIGNMENT = ((0.0, 0.035, "a"), (0.035, 0.080, "b"), (0.095, 0.120, "c"))
SPOKEN = "aaabbbbb.ccc"


def utterance(id="u", seconds=0.12, alignment=ALIGNMENT, **other):
    return Utterance(id=id, path=f"/{id}.wav", seconds=seconds, alignment=alignment, **other)


def counted(targets, outputs):
    """Targets as one dictionary of class → points per row."""
    return [
        {outputs[c]: int(n) for c, n in zip(classes, counts) if n}
        for classes, counts in zip(targets.answers.tolist(), targets.counts.tolist())
    ]


def naive(grid, steps):
    rows = [{} for _ in range(steps)]
    for point, phone in enumerate(SPOKEN):
        if phone != ".":
            centres = (np.arange(steps) * grid.hop + grid.centre) / 16_000
            distance = np.round(np.abs(centres - (point + 0.5) * 0.01), 9)
            row = rows[len(distance) - 1 - distance[::-1].argmin()]  # of two equally near, the later
            row[phone] = row.get(phone, 0) + 1
    return rows


@pytest.mark.parametrize("hop", [160, 200, 320, 480])
@pytest.mark.parametrize("centre", [0.0, 80.0, 200.0, 240.0])
def test_phones_meet_steps_by_time(hop, centre):
    grid, steps = Grid(hop, centre), max(1, int((1920 - centre) // hop))
    task = Phone(Phone.Config(), ("a", "b", "c"))
    targets = task.targets(utterance(), grid, steps)
    assert targets.answers.shape[0] == steps
    assert counted(targets, task.outputs) == naive(grid, steps)
    assert targets.counts.sum() == 11  # the same points whatever the hop


def test_ten_milliseconds_by_hand():
    targets = Phone(Phone.Config(), ("a", "b", "c")).targets(utterance(), Grid(160, 80.0), 12)
    assert "".join("abc"[c] if n else "." for (c,), (n,) in zip(targets.answers, targets.counts)) == SPOKEN


def test_thirty_milliseconds_by_hand():
    targets = Phone(Phone.Config(), ("a", "b", "c")).targets(utterance(), Grid(480, 240.0), 4)
    assert counted(targets, "abc") == [{"a": 3}, {"b": 3}, {"b": 2}, {"c": 3}]


def test_steps_that_miss_the_end_still_answer_for_it():
    targets = Phone(Phone.Config(), ("a", "b", "c")).targets(utterance(), Grid(480, 240.0), 2)
    assert counted(targets, "abc") == [{"a": 3}, {"b": 5, "c": 3}]


def test_points_beyond_the_audio_do_not_exist():
    targets = Phone(Phone.Config(), ("a", "b", "c")).targets(utterance(seconds=0.05), Grid(160, 80.0), 5)
    assert targets.counts.sum() == 5


def test_folding_renames_and_leaves_out():
    task = Phone(Phone.Config(fold={"a": "vowel", "c": ""}))
    learnt = task.learn([utterance()])
    assert learnt.outputs == ("b", "vowel")
    assert counted(learnt.targets(utterance(), Grid(480, 240.0), 4), learnt.outputs) == [
        {"vowel": 3},
        {"b": 3},
        {"b": 2},
        {},
    ]


def test_counts_give_the_sum_over_points():
    torch.manual_seed(0)
    task = Phone(Phone.Config(), ("a", "b", "c"))
    fine, coarse = (
        task.targets(utterance(), grid, steps) for grid, steps in ((Grid(160, 80.0), 12), (Grid(480, 240.0), 4))
    )
    logits = torch.randn(4, 3)
    repeated = logits.repeat_interleave(3, 0)
    one, other = task.score(logits, coarse), task.score(repeated, fine)
    torch.testing.assert_close(one.sum, other.sum)
    assert one.weight == other.weight == 11
    assert task.earned(logits, coarse).sum() == task.earned(repeated, fine).sum()


def test_targets_join_and_pad():
    one = Targets(torch.tensor([[1]]), torch.tensor([[1.0]]))
    two = Targets(torch.tensor([[0, 2], [1, 0]]), torch.tensor([[2.0, 1.0], [3.0, 0.0]]))
    joined = Targets.join([one, two])
    assert joined.answers.tolist() == [[1, 0], [0, 2], [1, 0]]
    padded = Targets.pad([one, two], 3)
    assert padded.counts.sum((1, 2)).tolist() == [1.0, 6.0]
    assert padded.answers.shape == (2, 3, 2)


def test_classes_are_sorted_by_name():
    utterances = [utterance(id=name, speaker=name) for name in ("zoe", "ann", "mia")]
    assert Label(Label.Config()).learn(utterances).outputs == ("ann", "mia", "zoe")
    assert Label(Label.Config()).learn(utterances[::-1]).outputs == ("ann", "mia", "zoe")


def test_grouped_labels():
    groups = {"negative": ("anger", "sadness"), "positive": ("happiness",)}
    task = Label(Label.Config(column="emotion", classes=groups))
    said = {"anger": ("negative",), "happiness": ("positive",), "boredom": ()}
    for value, names in said.items():
        assert task.names(utterance(labels={"emotion": value})) == names
    task = task.learn([utterance(labels={"emotion": value}) for value in said])
    assert task.targets(utterance(labels={"emotion": "sadness"}), Grid(160, 80.0), 12).answers.tolist() == [[0]]
    assert task.targets(utterance(labels={"emotion": "boredom"}), Grid(160, 80.0), 12).counts.tolist() == [[0.0]]


def test_a_value_in_two_groups_is_refused():
    values = {"kind": "label", "column": "emotion", "classes": {"a": ["x"], "b": ["x", "y"]}}
    with pytest.raises(ConfigError, match=r"'x' is in two classes, expected one"):
        build_task(values)


def test_one_class_only():
    with pytest.raises(
        DataError, match=r"task label:speaker: one class only \('a'\) in 2 training utterances, expected at least two"
    ):
        Label(Label.Config()).learn([utterance(speaker="a"), utterance(id="v", speaker="a")])


def test_no_labels():
    with pytest.raises(DataError, match=r"task phone: none of 1 training utterances has a label"):
        Phone(Phone.Config()).learn([utterance(alignment=None)])


def test_names_open_tasks():
    assert open_task("phone").name == "phone"
    assert open_task("label:emotion").name == "label:emotion"
    for text in ("phon", "label", "label:", "phone:x"):
        with pytest.raises(
            ConfigError, match=f"task {text}: unknown task, expected phone, pitch, energy or label:<column>"
        ):
            open_task(text)


def test_tasks_are_rebuilt_from_their_config():
    task = Label(Label.Config(column="mood", classes={"b": ("x",), "a": ("y", "z")}), ("a", "b"))
    again = build_task(task.config.model_dump(mode="json"), task.outputs)
    assert (again.name, again.config, again.outputs) == (task.name, task.config, task.outputs)


def corpus(speakers=10, each=6, **other):
    return [
        utterance(id=f"{s}-{i}", speaker=f"s{s}", labels={"mood": "ab"[(s + i) % 2]}, **other)
        for s in range(speakers)
        for i in range(each)
    ]


@pytest.mark.parametrize("task", ["phone", "label:mood"])
def test_test_speakers_are_new(task):
    parts = partition(corpus(), open_task(task), seed=1)
    heard = [{each.speaker for each in part} for part in (parts.train, parts.dev, parts.test)]
    assert parts.rule == "speaker"
    assert not heard[0] & heard[1] and not heard[0] & heard[2] and not heard[1] & heard[2]
    assert len(parts.train) + len(parts.dev) + len(parts.test) == 60


@pytest.mark.parametrize("task", ["phone", "label:mood"])
def test_one_utterance_without_a_speaker_leaves_the_others_apart(task):
    for seed in range(5):
        parts = partition([*corpus(), utterance(id="stray", labels={"mood": "a"})], open_task(task), seed)
        heard = [{each.speaker for each in part} - {None} for part in (parts.train, parts.dev, parts.test)]
        assert parts.rule == "speaker" and len(set().union(*heard)) == sum(map(len, heard)) == 10
        assert len(parts.train) + len(parts.dev) + len(parts.test) == 61
    two_known = [
        utterance(id=str(number), speaker=("x", "y", None)[number % 3], labels={"mood": "ab"[number % 2]})
        for number in range(30)
    ]
    assert partition(two_known, open_task(task)).rule == "utterance"


def test_speakers_are_divided_within():
    parts = partition(corpus(), open_task("label:speaker"))
    for part in (parts.train, parts.dev, parts.test):
        assert {each.speaker for each in part} == {f"s{index}" for index in range(10)}
    assert parts.rule == "utterance"


def test_partition_does_not_depend_on_the_order():
    one, other = corpus(), corpus()[::-1]
    for task in ("phone", "label:speaker"):
        ids = [{each.id for each in partition(utterances, open_task(task)).test} for utterances in (one, other)]
        assert ids[0] == ids[1]


def given(split_of):
    return [utterance(id=each.id, speaker=each.speaker, split=split_of(each)) for each in corpus()]


def test_a_given_split_decides_and_dev_is_cut_from_train():
    parts = partition(
        given(lambda each: "test-clean" if each.speaker in ("s0", "s1") else "train-clean-100"), open_task("phone")
    )
    assert parts.rule == "given"
    assert {each.speaker for each in parts.test} == {"s0", "s1"}
    assert parts.dev and not {each.speaker for each in parts.dev} & {each.speaker for each in parts.train}


def test_a_given_dev_is_kept_and_strays_are_counted():
    names = {"s0": "test", "s1": "dev", "s2": "other"}
    parts = partition(given(lambda each: names.get(each.speaker, "train")), open_task("phone"))
    assert {each.speaker for each in parts.dev} == {"s1"}
    assert len(parts.dropped["in no split"]) == 6


def test_a_split_with_new_speakers_cannot_serve_a_speaker_task():
    parts = partition(given(lambda each: "test" if each.speaker == "s0" else "train"), open_task("label:speaker"))
    assert parts.rule == "utterance"
    assert {each.speaker for each in parts.test} == {f"s{index}" for index in range(10)}


def test_unlabelled_utterances_are_counted_and_named():
    parts = partition([*corpus(), utterance(id="bare", alignment=None, speaker="s0")], open_task("phone"))
    assert parts.dropped == {"no label": ("bare",)}
    with pytest.raises(DataError, match=r"task label:nothing: 60 of 60 utterances have no label: first '0-0'"):
        partition(corpus(), open_task("label:nothing"))


def test_splits_are_written_down(tmp_path):
    parts = partition(corpus(), open_task("phone"))
    parts.write(tmp_path / "splits.json")
    record = json.loads((tmp_path / "splits.json").read_text())
    assert record["rule"] == "speaker"
    assert record["test"] == [each.id for each in parts.test]


def test_too_few_utterances():
    with pytest.raises(DataError, match=r"expected at least one"):
        partition(corpus(speakers=2, each=1), open_task("label:speaker"))
