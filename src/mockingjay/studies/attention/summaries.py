"""What one pass over unheard utterances shows: kinds of heads, phone relations, and how alike layers are.

What gets an interval over utterances is kept for each of them until the end. What is picked by what was seen is looked
at anew on other utterances.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mockingjay.core.errors import DataError
from mockingjay.core.representation import Representation
from mockingjay.core.types import Utterance
from mockingjay.data.quarantine import Quarantine
from mockingjay.downstream.scores import bounded
from mockingjay.downstream.tasks import Task
from mockingjay.studies.attention import heads, layers, relations
from mockingjay.studies.attention.passes import Look, looks

SHOWN = {24: 3, 10_000: 1}  # up to so many heads, so many utterances' maps are kept for the page
STEPS = 100  # of each of them
MOST_POINTS = 2048  # steps that layers are compared on
ALIKE = 4  # points for each dimension of a state, for with few points anything is alike
POPULAR = 3  # phones that are named as focus and as neglect


@dataclass(slots=True)
class _Tally:
    """What has been gathered, a list item an utterance, and sums."""

    values: list[Tensor] = field(default_factory=list)  # [4, heads]
    strengths: list[Tensor] = field(default_factory=list)  # [heads]
    divergences: list[Tensor] = field(default_factory=list)  # [layers, layers]
    points: list[Tensor] = field(default_factory=list)  # [depth, points, dim]
    attended: Tensor = field(default_factory=lambda: torch.zeros(()))  # sum, [heads, phones, phones]
    chance: Tensor = field(default_factory=lambda: torch.zeros(()))  # sum, [phones, phones]
    ids: list[str] = field(default_factory=list)
    seconds: float = 0.0


def see(
    representation: Representation,
    utterances: Sequence[Utterance],
    task: Task | None,
    seed: int,
    quarantine: Quarantine,
) -> tuple[dict[str, Any], dict[str, Float[np.ndarray, "layers heads query key"]]]:
    """Look at utterances and sum up.

    Args:
        representation: With attention.
        utterances: Unheard.
        task: Phones, where the utterances are aligned.
        seed: Of the intervals.
        quarantine: Takes in what cannot be read.

    Returns:
        The findings, with the heads to look at again, and a few utterances' maps by id, their first `STEPS` steps.

    Raises:
        DataError: Nothing can be read.
    """
    tally, shown = _Tally(), {}
    each = math.ceil(min(MOST_POINTS, ALIKE * representation.dim) / len(utterances))
    for look in looks(representation, utterances, quarantine):
        count = look.maps.shape[0] * look.maps.shape[1]
        if len(shown) < next(most for limit, most in SHOWN.items() if count <= limit):
            shown[look.utterance.id] = look.maps[:, :, :STEPS, :STEPS].cpu().numpy().astype(np.float16)
        _add(tally, look, task, each, representation)
    quarantine.check(len(utterances))
    if not tally.ids:
        raise DataError(
            f"corpus: none of {len(utterances)} utterances can be read, expected audio; look at the first: "
            f"{utterances[0].path}"
        )
    found = {**_heads(tally, seed), **_layers(tally, seed), "ids": tally.ids, "seconds": tally.seconds}
    if tally.chance.ndim and task is not None:
        found["picked"] = _picked(tally, task.outputs)
    return found, shown


def _add(tally: _Tally, look: Look, task: Task | None, points: int, representation: Representation) -> None:
    maps, steps = look.maps.flatten(0, 1), look.maps.shape[-1]
    tally.ids.append(look.utterance.id)
    tally.seconds += look.utterance.seconds
    tally.values.append(torch.cat([heads.measure(maps), heads.weight(maps)[None]]).cpu())
    tally.strengths.append(look.strengths.flatten().cpu())
    tally.divergences.append(layers.divergence(look.maps).cpu())
    places = torch.linspace(0, steps - 1, min(points, steps)).long().unique()
    tally.points.append(look.hidden[:, places.to(look.hidden.device)].cpu())
    if task is not None:
        for attended, chance in _related(look, slice(None), task, representation):
            tally.attended = tally.attended + attended
            tally.chance = tally.chance + chance


def _heads(tally: _Tally, seed: int) -> dict[str, Any]:
    table = torch.stack(tally.values).double()
    mean = table.mean(0)
    low, high = bounded(table.flatten(1).numpy(), lambda sums: sums / len(table), seed=seed)
    shape = mean.shape
    return {
        "measures": mean.tolist(),
        "low": low.reshape(shape).tolist(),
        "high": high.reshape(shape).tolist(),
        "strengths": torch.stack(tally.strengths).mean(0).tolist(),
        "categories": heads.categories(mean[: len(heads.MEASURES)]).tolist(),
    }


def _layers(tally: _Tally, seed: int) -> dict[str, Any]:
    table = torch.stack(tally.divergences).double()
    low, high = bounded(table.flatten(1).numpy(), lambda sums: sums / len(table), seed=seed)
    owners = torch.cat([torch.full((part.shape[1],), index) for index, part in enumerate(tally.points)])
    grams = layers.gram(torch.cat(tally.points, 1))
    least, most = layers.cka_interval(grams, owners, seed)
    shape = table.shape[1:]
    return {
        "divergence": {
            "value": table.mean(0).tolist(),
            "low": low.reshape(shape).tolist(),
            "high": high.reshape(shape).tolist(),
        },
        "cka": {
            "value": layers.cka(grams).tolist(),
            "low": least.tolist(),
            "high": most.tolist(),
            "points": len(owners),
        },
    }


def _picked(tally: _Tally, phones: tuple[str, ...]) -> list[dict[str, Any]]:
    """Choose the heads whose relations are worth a closer look, say why, and name what they seem to look at."""
    mean = torch.stack(tally.values).mean(0)
    maps = relations.relation_map(tally.attended, tally.chance)
    focus = relations.concentration(maps)
    reasons = {f"the most {kind}": int(row.argmax()) for kind, row in zip(heads.CATEGORIES, mean)}
    reasons["looks most at its own phone"] = int(relations.same_phone(maps).nan_to_num(-1).argmax())
    reasons["looks most at one phone"] = int(focus.nan_to_num(-1).amax(-1).argmax())
    chosen: dict[int, str] = {}
    for reason, head in reasons.items():
        chosen[head] = f"{chosen[head]}, {reason}" if head in chosen else reason
    return [{"head": head, "reason": reason, "named": _named(focus[head], phones)} for head, reason in chosen.items()]


def retest(
    representation: Representation,
    utterances: Sequence[Utterance],
    task: Task | None,
    picked: Sequence[Mapping[str, Any]],
    seed: int,
    quarantine: Quarantine,
) -> dict[str, Any]:
    """Measure the phone relations of picked heads anew, on utterances that they were not picked on.

    Args:
        representation: As `see` had it.
        utterances: Unheard, and others than `see` had.
        task: Phones, where the utterances are aligned.
        picked: From `see`.
        seed: Of the intervals.
        quarantine: Takes in what cannot be read.

    Returns:
        The ids of what could be read, and the relations where there are any.
    """
    pairs, ids, chosen = [], [], [each["head"] for each in picked]
    for look in looks(representation, utterances, quarantine):
        ids.append(look.utterance.id)
        if task is not None and chosen:
            pairs += _related(look, chosen, task, representation)
    if not pairs or task is None:
        return {"tested": ids}
    attended, chance = (torch.stack(part).double() for part in zip(*pairs))
    return {"tested": ids, "relations": _relations(attended, chance, picked, task.outputs, seed)}


def _related(
    look: Look, chosen: slice | Sequence[int], task: Task, representation: Representation
) -> list[tuple[Float[Tensor, "heads phones phones"], Float[Tensor, "phones phones"]]]:
    """Relate chosen heads' attention to phones, and chance's; nothing where the utterance has no phones."""
    phones = relations.shares(task, look.utterance, representation.grid, look.maps.shape[-1])
    if not phones.any():
        return []
    attended, chance = relations.relate(look.maps.flatten(0, 1)[chosen], phones)
    return [(attended.cpu(), chance.cpu())]


def _relations(
    attended: Float[Tensor, "utterances heads phones phones"],
    chance: Float[Tensor, "utterances phones phones"],
    picked: Sequence[Mapping[str, Any]],
    phones: tuple[str, ...],
    seed: int,
) -> dict[str, Any]:
    maps = relations.relation_map(attended.mean(0), chance.mean(0))
    focus = relations.concentration(maps)
    count, pairs = len(attended), chance[0].numel()
    records = []
    for place, each in enumerate(picked):
        sums = torch.cat([attended[:, place].flatten(1), chance.flatten(1)], 1).numpy()

        def concentrations(totals: Float[np.ndarray, "draws kinds"]) -> Float[np.ndarray, "draws phones"]:
            shape = (len(totals), len(phones), len(phones))
            own, even = (torch.from_numpy(part.reshape(shape)) / count for part in np.split(totals, [pairs], 1))
            return relations.concentration(relations.relation_map(own, even)).nan_to_num(0.0).numpy()

        low, high = bounded(sums, concentrations, resamples=200, seed=seed)
        measured = {"map": _plain(maps[place]), "concentration": _plain(focus[place])}
        records.append({**each, **measured, "low": low.tolist(), "high": high.tolist()})
    return {"phones": list(phones), "heads": records, "utterances": count}


def _named(focus: Float[Tensor, " phones"], phones: tuple[str, ...]) -> dict[str, list[str]]:
    known = [index for index in focus.argsort(descending=True).tolist() if not math.isnan(float(focus[index]))]
    return {
        "focus": [phones[index] for index in known[:POPULAR] if focus[index] > 0],
        "neglect": [phones[index] for index in known[::-1][:POPULAR] if focus[index] < 0],
    }


def _plain(values: Float[Tensor, "..."]) -> Any:
    """Turn a tensor into lists; what is not a number becomes None, for JSON has no word for it."""
    if values.ndim:
        return [_plain(row) for row in values]
    return None if math.isnan(float(values)) else round(float(values), 6)
