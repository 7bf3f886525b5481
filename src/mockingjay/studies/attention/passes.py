"""One look at an utterance through a representation: what every head attends to, and every layer's states.

Utterances are looked at one by one, so that no map holds padding. What is longer than a network reads at once, or than
ten seconds, is looked at from its beginning.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mockingjay import audio
from mockingjay.core.errors import RepresentationError
from mockingjay.core.representation import Representation
from mockingjay.core.types import SAMPLE_RATE, Utterance, Waves
from mockingjay.data.quarantine import Quarantine, Refusal
from mockingjay.downstream.features import device_of
from mockingjay.encoders.attention import Attention, attentions, watch
from mockingjay.encoders.encoder import Encoder

LONGEST = 10.0  # seconds; maps grow with the square of it


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen; layer l of the maps leads from hidden layer l to l + 1, and rows of a map sum to one."""

    utterance: Utterance  # cut to what was read
    hidden: Float[Tensor, "depth time dim"]
    maps: Float[Tensor, "layers heads time time"]
    strengths: Float[Tensor, "layers heads"]  # mean length of what a head adds to a step, its output matrix included


def heads_of(representation: Representation, name: str) -> tuple[int, int]:
    """Count layers with attention, and heads in each.

    Raises:
        RepresentationError: It has no attention, or not the same number of heads in every layer.
    """
    counts = [layer.heads for layer in attentions(representation)]
    if not counts:
        raise RepresentationError(
            f"{name}: has no self-attention, expected a representation with Transformer layers; choose another"
        )
    if len(set(counts)) > 1:
        raise RepresentationError(
            f"{name}: its layers have {', '.join(map(str, counts))} heads, expected the same number in each; "
            "choose another"
        )
    return len(counts), counts[0]


def reach(representation: Representation) -> float:
    """Seconds of an utterance that are looked at, at most."""
    if isinstance(representation, Encoder) and representation.config.window is not None:
        whole = (representation.config.window - 1) * representation.frontend.grid.hop / SAMPLE_RATE
        return min(LONGEST, max(whole, representation.receptive / SAMPLE_RATE))
    return LONGEST


def looks(
    representation: Representation, utterances: Sequence[Utterance], quarantine: Quarantine | None = None
) -> Iterator[Look]:
    """Look at utterances one after the other, in evaluation mode.

    Args:
        representation: With attention.
        utterances: Each long enough to give one step.
        quarantine: Takes in the files that cannot be read; without it the first of them is raised.

    Raises:
        DataError: A file is missing or bad.
    """
    representation.eval()
    device, longest = device_of(representation), reach(representation)
    for whole in utterances:
        utterance = replace(whole, seconds=min(whole.seconds, longest))
        try:
            wave = audio.read(utterance.path, utterance.start, utterance.seconds)
        except audio.AudioError as error:
            if quarantine is None:
                raise
            quarantine.add(Refusal.of(error, utterance.id))
            continue
        with torch.no_grad(), watch(representation) as maps, strengths(representation) as found:
            hidden = representation(Waves.pad([wave]).to(device))
        states = torch.stack([layer[0].float() for layer in hidden.layers])
        yield Look(utterance, states, torch.cat(maps).float(), torch.stack(found))


@contextmanager
def strengths(module: nn.Module) -> Iterator[list[Float[Tensor, " heads"]]]:
    """Collect how much each head of each layer, in calling order, adds to a step on average.

    That is the length of its mixed values times its columns of the output matrix.
    """
    found: list[Tensor] = []

    def measure(layer: Attention, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        (mixed,) = given
        heads = mixed.unflatten(-1, (layer.heads, -1)).movedim(-2, 0).flatten(1, 2)
        weights = layer.out.weight.unflatten(1, (layer.heads, -1)).movedim(1, 0)
        # |W x|² = x' (W'W) x: a head is narrow where its output is wide.
        squared = ((heads @ (weights.transpose(1, 2) @ weights)) * heads).sum(-1)
        found.append(squared.clamp(min=0).sqrt().mean(-1).float())

    layers = dict.fromkeys(attentions(module))
    hooks = [layer.out.register_forward_pre_hook(partial(measure, layer)) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
