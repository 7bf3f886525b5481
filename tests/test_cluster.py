import math

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.types import Frames, pad
from mockingjay.encoders.k_means import k_means, squared_distances
from mockingjay.moves.cluster import Clusters
from mockingjay.settings import settings


def planted(count=60, units=5, dim=4, spread=0.3):
    """Clusters of unequal sizes around places far apart."""
    places = 6 * torch.randn(units, dim)
    labels = torch.arange(count * units) % (2 * units) % units
    return places[labels] + spread * torch.randn(len(labels), dim), labels


@pytest.mark.parametrize("seed", range(4))
def test_planted_clusters_are_found_as_well_as_sklearn_finds_them(seed):
    torch.manual_seed(seed)
    frames, labels = planted()
    apart, nearest = squared_distances(frames, k_means(frames, 5, seed)).min(1)
    reference = KMeans(5, n_init=10, random_state=seed).fit(frames.numpy())
    assert adjusted_rand_score(nearest.numpy(), labels.numpy()) == 1.0
    assert adjusted_rand_score(nearest.numpy(), reference.labels_) == 1.0
    assert apart.sum().item() == pytest.approx(reference.inertia_, rel=1e-4)


def test_without_planted_clusters_it_is_not_far_behind_sklearn():
    frames = torch.randn(400, 6)
    apart = squared_distances(frames, k_means(frames, 8, 0)).min(1).values.sum().item()
    assert apart <= 1.05 * KMeans(8, n_init=10, random_state=0).fit(frames.numpy()).inertia_


def fitted(frames, lengths, **settings):
    clusters = Clusters(Clusters.Config(units=5, **settings), frames.shape[-1])
    batch = Frames(*pad(frames.split(lengths)))
    batch.values[~batch.valid] = 50.0  # padding that would be noticed
    clusters.fit([batch])
    return clusters, batch


def test_every_frame_has_the_nearest_centroid_and_padding_none():
    frames, labels = planted()
    clusters, batch = fitted(frames, [200, 60, 40])
    codes = clusters(batch)
    for row in range(3):
        for step in range(0, int(batch.lengths[row]), 7):
            apart = [(batch.values[row, step] - each).norm().item() for each in clusters.centroids]
            assert codes[row, step] == apart.index(min(apart))
    assert adjusted_rand_score(codes[batch.valid].numpy(), labels.numpy()) == 1.0
    assert clusters.centroids.abs().max() < 25
    torch.testing.assert_close(clusters.shares, codes[batch.valid].bincount(minlength=5) / 300)
    assert set(clusters.state_dict()) == {"centroids", "shares"} and not list(clusters.parameters())


def test_no_more_frames_are_taken_than_are_needed():
    taken = []

    def batches():
        for number in range(100):
            taken.append(number)
            yield Frames(torch.randn(1, 20, 3), torch.tensor([20]))

    clusters = Clusters(Clusters.Config(units=4, frames=50), 3)
    clusters.fit(batches())
    assert len(taken) == 3 and clusters.shares.sum().item() == pytest.approx(1)
    assert (clusters.shares * 50).frac().abs().max() < 1e-4 and math.isfinite(clusters.centroids.sum().item())


@pytest.mark.parametrize(
    ("objective", "changes", "said"),
    [
        ("hubert", ("clusters.frames=7",), r"objective\.clusters: the 7 frames .* must be at least units, 8"),
        (
            "hubert",
            ("clusters.frames=8", "rounds=2", "later_units=9"),
            r"objective: the 8 frames .* must be at least later_units, 9",
        ),
        (
            "slu-bert",
            ("encoder.frontend.frames=7",),
            r"objective\.encoder\.frontend: the 7 frames .* must be at least units, 16",
        ),
    ],
)
def test_fewer_frames_to_look_in_than_units_are_refused(objective, changes, said):
    with pytest.raises(ConfigError, match=f"^{said}; change it in the config or with --set$"):
        settings(objective, "nano", [f"objective.{change}" for change in changes])
    enough = ["objective.clusters.frames=8", "objective.later_units=9"]  # of rounds that do not come
    assert settings("hubert", "nano", enough).objective.clusters.frames == 8


def test_too_few_frames_are_refused():
    with pytest.raises(
        DataError, match=r"clusters: 6 frames in the corpus, expected at least one for each of 9 units; add audio or"
    ):
        Clusters(Clusters.Config(units=9), 2).fit([Frames(torch.randn(1, 6, 2), torch.tensor([6]))])
