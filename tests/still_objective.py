"""Objectives without dropout, whose numbers are drawn by rank and not by utterance."""

from dataclasses import replace

import torch
from speech_like import batch_of

from mockingjay.core.config import Config
from mockingjay.objectives import OBJECTIVES, build_objective
from mockingjay.settings import settings

DROPPED = ("dropout", "attention_dropout", "skip")

# Every objective as it is, and what it takes for one to hold more, or less.
CASES = {name: (name,) for name in OBJECTIVES} | {
    "cpc within": ("cpc", "objective.negatives.source=sequence"),
    "modified-cpc within": ("modified-cpc", "objective.negatives.source=sequence"),
    "modified-cpc within by batch": (
        "modified-cpc",
        "objective.negatives.source=sequence",
        "objective.encoder.frontend.norm=batch",
    ),
    "npc by step": ("npc", "objective.encoder.context.norm=layer"),
    "autoencoder by batch": ("autoencoder", "objective.encoder.context.norm=true"),
}


def still(config):
    """The same table with nothing dropped."""
    changes = {
        name: still(value) if isinstance(value, Config) else 0.0
        for name, value in config
        if isinstance(value, Config) or (name in DROPPED and isinstance(value, float))
    }
    return config.model_copy(update=changes)


def still_objective(case):
    """Build a case at nano size, prepared; the same weights every time."""
    name, *changes = CASES[case]
    torch.manual_seed(1)
    objective = build_objective(still(settings(name, "nano", changes).objective))
    objective.prepare([batch_of()])
    if objective.draws_from == "batch":
        for parameter_name, parameter in objective.named_parameters():
            if not parameter_name.startswith("encoder."):  # at the start it hardly matters what is drawn
                torch.nn.init.normal_(parameter)
    return objective


def by_one_speaker(batch):
    """The same batch, from which negatives of a speaker's are drawn as those of a batch."""
    return replace(batch, utterances=tuple(replace(each, speaker="one") for each in batch.utterances))


def rows_of(batch, rows):
    """Some of a batch's utterances, padded to the longest of these."""
    lengths = batch.waves.lengths[rows]
    waves = type(batch.waves)(batch.waves.samples[rows, : int(lengths.max())], lengths)
    return replace(batch, waves=waves, utterances=batch.utterances[rows])
