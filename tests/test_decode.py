import itertools
import json
import math
from collections import defaultdict

import numpy as np
import pytest
import torch

from mockingjay.downstream.decode import NGram, beam, beams, count_ngrams, greedy
from mockingjay.downstream.edits import confusions, edits, lined_up


def collapsed(path):
    return tuple(unit for unit, _ in itertools.groupby(path) if unit)


def brute(scores, extra=lambda said: 0.0):
    """The likeliest answer by adding up every path there is."""
    sums = defaultdict(float)
    for path in itertools.product(range(scores.shape[1]), repeat=scores.shape[0]):
        sums[collapsed(path)] += math.exp(sum(scores[step, unit].item() for step, unit in enumerate(path)))
    return max(sums, key=lambda said: math.log(sums[said]) + extra(said))


def one_hot(*path, outputs=4):
    return torch.nn.functional.one_hot(torch.tensor(path), outputs).float() * 9


def test_greedy_joins_neighbours_and_leaves_out_blanks():
    logits = torch.stack([one_hot(1, 1, 0, 1, 2, 2, 0), one_hot(0, 3, 3, 2, 1, 1, 1)])
    assert greedy(logits, torch.tensor([7, 7])) == [(1, 1, 2), (3, 2, 1)]
    assert greedy(logits, torch.tensor([4, 3])) == [(1, 1), (3,)]  # nothing is read over padding
    assert greedy(one_hot(0, 0)[None], torch.tensor([2])) == [()]


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_adds_up_every_path(seed):
    scores = (torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)) * 1.5).log_softmax(-1)
    assert beam(scores, 1000) == brute(scores)
    language = NGram(count_ngrams([(1, 2, 1), (2, 2), (1, 2)], 2), 3)

    def extra(said):
        score = sum(language.log_probabilities(said[:place])[unit] for place, unit in enumerate(said))
        return 0.7 * (score + language.log_probabilities(said)[0]) + 0.4 * len(said)

    assert beam(scores, 1000, language, 0.7, 0.4) == brute(scores, extra)


def test_the_likeliest_answer_is_not_the_likeliest_path():
    scores = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()  # blank blank: 0.36; all paths that say 1: 0.64
    assert greedy(scores[None], torch.tensor([2])) == [()] and beam(scores, 2) == (1,)


@pytest.mark.parametrize("read", [greedy, lambda logits, lengths: beams(logits, lengths, 4)], ids=["greedy", "beam"])
def test_batch_mates_and_padding_change_nothing(read):
    lengths = torch.tensor([12, 5, 1])
    logits = torch.randn(3, 15, 5) * 3
    together = read(logits, lengths)
    assert together == [read(each[None, :length], length[None])[0] for each, length in zip(logits, lengths)]
    for row, length in zip(logits, lengths.tolist()):
        row[length:] = torch.randn(15 - length, 5) * 50
    assert read(logits, lengths) == together


def test_an_ngram_is_a_distribution_that_counts():
    sequences = [(1, 2, 3), (1, 2), (1, 1, 2)]
    language = NGram(count_ngrams(sequences, 3), 4)
    for said in ((), (1,), (1, 2), (3, 3, 3), (2, 1, 2, 1)):
        assert sum(map(math.exp, language.log_probabilities(said))) == pytest.approx(1)
    assert language.log_probabilities(())[1] > language.log_probabilities(())[2]
    single = NGram(count_ngrams([(1, 1, 2)], 1), 4)  # 1 twice, 2 once, one end: 4 counts of 3 kinds
    assert math.exp(single.log_probabilities(())[1]) == pytest.approx((2 + 3 / 4) / 7)
    assert math.exp(single.log_probabilities(())[3]) == pytest.approx((3 / 4) / 7)


def test_ngrams_fit_on_a_card():
    units = tuple(np.random.default_rng(0).integers(1000, 10_000, 40_000).tolist())  # as many as characters of Chinese
    ngrams = {" ".join(map(str, gram)): count for gram, count in count_ngrams([units], 6).items()}
    assert 20_000 < len(ngrams) < 30_000 and 900_000 < len(json.dumps({"task": {"ngrams": ngrams}}, indent=1)) < 1 << 20
    assert len(count_ngrams([tuple(unit % 40 for unit in units)], 8)) == 30_000  # of phones all that are kept at all


def test_a_language_settles_what_is_unclear():
    scores = torch.tensor([[0.02, 0.9, 0.04, 0.04], [0.02, 0.0, 0.48, 0.5]]).clamp(min=1e-6).log()
    language = NGram(count_ngrams([(1, 2)] * 9 + [(3,)], 2), 4)
    assert beam(scores, 8) == (1, 3) and beam(scores, 8, language, 1.0) == (1, 2)


# How far from what was meant


def levenshtein(first, second):
    table = np.add.outer(np.arange(len(first) + 1), np.arange(len(second) + 1))
    for i, j in itertools.product(range(1, len(first) + 1), range(1, len(second) + 1)):
        changed = table[i - 1, j - 1] + (first[i - 1] != second[j - 1])
        table[i, j] = min(changed, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return table[-1, -1]


def test_edits_are_the_fewest():
    random = np.random.default_rng(0)
    units = ["a", " ", "b c", "d"]
    meant, said = (
        [[units[n] for n in random.integers(4, size=random.integers(low, 9))] for _ in range(60)] for low in (1, 0)
    )
    assert edits(meant, said).tolist() == [levenshtein(*pair) for pair in zip(meant, said)]
    pairs = lined_up(meant, said)
    assert [[one for one, _ in each if one] for each in pairs] == meant
    assert [[other for _, other in each if other] for each in pairs] == said
    assert [sum(one != other for one, other in each) for each in pairs] == edits(meant, said).tolist()
    report = confusions(pairs)
    assert sum(report[kind] for kind in ("substitutions", "deletions", "insertions")) == edits(meant, said).sum()
    assert report["hits"] + report["substitutions"] + report["deletions"] == report["units"] == sum(map(len, meant))


def test_saying_nothing_costs_every_unit():
    assert edits([["a", "b"], ["c"]], [[], []]).tolist() == [2.0, 1.0]


def test_the_commonest_errors_are_named():
    report = confusions(lined_up([["AH", "T"], ["AH", "S"], ["Z"]], [["IH", "T"], ["IH", "S", "T"], []]))
    assert report["commonest"] == {
        "substitutions": [["AH", "IH", 2]], "deletions": [["Z", 1]], "insertions": [["T", 1]],
    }  # fmt: skip
    assert (report["hits"], report["units"]) == (2, 5)
