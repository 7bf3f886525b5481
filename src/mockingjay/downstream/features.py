"""Hidden states computed once: a frozen encoder says the same every epoch.

Utterances are represented in order of duration, a few of nearly the same length at a time: on a CPU padding costs more
than small batches do; long recordings come alone and in stretches. What a head reads of them lies in one flat tensor,
rows of training sets shuffled once, so that a minibatch is a slice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mockingjay import audio
from mockingjay.core.draw import address
from mockingjay.core.errors import DataError
from mockingjay.core.representation import Representation
from mockingjay.core.types import SAMPLE_RATE, Hidden, Utterance, Waves
from mockingjay.data.quarantine import Quarantine, Refusal
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.recordings import is_long, joined, represent_long
from mockingjay.downstream.tasks import Targets
from mockingjay.train.checkpoint import fingerprint_of

SECONDS = {"cpu": 10.0, "cuda": 300.0}  # of audio in one forward pass; ours
TIGHT = 0.95  # the shortest of a batch over the longest


@dataclass(frozen=True, slots=True)
class Piece:
    """What a head is given at once."""

    stack: Float[Tensor, "layers batch rows dim"]
    lengths: Int[Tensor, " batch"]  # rows
    targets: Targets  # [batch, guesses, choices]
    owners: Int[Tensor, "batch guesses"]  # index of the utterance each guess is about


@dataclass(frozen=True, slots=True)
class Cache:
    """The thinned hidden states of a set of utterances, row after row, and what to guess from them."""

    stack: Float[Tensor, "layers rows dim"]
    offsets: Int[Tensor, " bounds"]  # rows of sequence s: offsets[s] to offsets[s + 1]; of use where `sequential`
    targets: Targets  # [guesses, choices]
    owners: Int[Tensor, " guesses"]
    sequential: bool  # a guess is about a whole sequence, not about a row
    utterances: int

    def pieces(self, size: int, generator: torch.Generator | None = None, full: bool = False) -> Iterator[Piece]:
        """Walk through the cache.

        Args:
            size: Guesses in a piece.
            generator: Shuffles the pieces, and where the first begins; without it they come in the order of the rows.
            full: Leave out, at either end, what does not fill a piece.
        """
        count = len(self.owners)
        choices = count % size + 1 if full else size
        first = 0 if generator is None or count <= size else int(torch.randint(choices, (), generator=generator))
        bounds = [0, *range(first, count, size), count] if first else [*range(0, count, size), count]
        if full and count > size:
            bounds = list(range(first, count + 1, size))
        order = (
            range(len(bounds) - 1)
            if generator is None
            else torch.randperm(len(bounds) - 1, generator=generator).tolist()
        )
        for index in order:
            yield self._piece(bounds[index], bounds[index + 1])

    def only(self, utterances: Sequence[int]) -> "Cache":
        """Keep what is about some of the utterances, by their indices; rows stay in their order."""
        about = torch.isin(self.owners, torch.tensor(utterances, device=self.owners.device))
        kept = about.nonzero()[:, 0]
        rows, offsets = kept, self.offsets
        if self.sequential:
            lengths = self.offsets.diff()
            rows = about.repeat_interleave(lengths).nonzero()[:, 0]
            offsets = torch.cat([lengths.new_zeros(1), lengths[kept].cumsum(0)])
        return Cache(
            self.stack[:, rows],
            offsets,
            self.targets.take(kept),
            self.owners[kept],
            self.sequential,
            self.utterances,
        )

    def _piece(self, begin: int, end: int) -> Piece:
        chosen = slice(begin, end)
        targets, owners = self.targets.take(chosen), self.owners[chosen]
        if not self.sequential:
            lengths = torch.full((1,), end - begin, device=self.stack.device)  # not copied: the host does not wait
            return Piece(
                self.stack[:, None, chosen], lengths, Targets(targets.answers[None], targets.counts[None]), owners[None]
            )
        bounds = self.offsets[begin : end + 1].tolist()
        rows = [self.stack[:, low:high].transpose(0, 1) for low, high in pairwise(bounds)]
        stack = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).permute(2, 0, 1, 3)
        lengths = self.offsets[begin + 1 : end + 1] - self.offsets[begin:end]
        return Piece(stack, lengths, Targets(targets.answers[:, None], targets.counts[:, None]), owners[:, None])


def device_of(representation: Representation) -> torch.device:
    """Find where a representation lives; one without parameters and buffers lives on the CPU."""
    tensor = next(chain(representation.parameters(), representation.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def fingerprint(representation: Representation) -> str:
    """Name a representation by its parameters, for a run may be trained anew under the same name.

    Buffers are left out: what an untrained frontend measures of a corpus may differ from one processor to another.
    """
    return fingerprint_of(dict(representation.named_parameters()))[:16]


def load(utterance: Utterance) -> Float[Tensor, " samples"]:
    """Read an utterance's samples.

    Raises:
        DataError: The file is missing or bad.
    """
    return audio.read(utterance.path, utterance.start, utterance.seconds)


def represent(
    representation: Representation, utterances: Sequence[Utterance], quarantine: Quarantine | None = None
) -> Iterator[tuple[list[int], Hidden]]:
    """Compute hidden states in evaluation mode, in order of duration; each batch comes with its utterances' indices.

    Args:
        representation: Where it lives is where the states are.
        utterances: Each long enough to give one step.
        quarantine: Takes in the files that cannot be used; without it the first of them is raised.

    Raises:
        DataError: A file is missing or bad.
    """
    representation.eval()
    device = device_of(representation)
    for indices in _batches(utterances, SECONDS.get(device.type, 10.0)):
        read: dict[int, Tensor] = {}
        for index in indices:
            try:
                if is_long(utterances[index]):
                    yield [index], joined(represent_long(representation, utterances[index], device)[1])
                    continue
                read[index] = load(utterances[index])
            except audio.AudioError as error:
                if quarantine is None:
                    raise
                quarantine.add(Refusal.of(error, utterances[index].id))
        if read:
            with torch.no_grad():
                hidden = representation(Waves.pad(list(read.values())).to(device))
            yield list(read), hidden


def cache(
    probe: Probe, utterances: Sequence[Utterance], seed: int | None = None, quarantine: Quarantine | None = None
) -> Cache:
    """Compute what a probe's head reads of utterances.

    Args:
        probe: Frozen; its task says what to guess.
        utterances: At least one.
        seed: Shuffles the rows where their order is free; without it they stay as the utterances are.
        quarantine: Takes in the files that cannot be used, which give no rows; without it the first of them is raised.

    Raises:
        DataError: A file is missing or bad, or all are, or no label lies within the audio.
    """
    return filled(gather(probe, utterances, range(len(utterances)), seed, quarantine), utterances)


def filled(found: Cache | None, utterances: Sequence[Utterance]) -> Cache:
    """Refuse a set in which there is nothing to guess: it would be gone through without end.

    Raises:
        DataError: None of its files can be read, or no label lies within the audio of any.
    """
    if found is None:
        raise unreadable(utterances)
    if not len(found.owners):
        raise unlabelled(len(utterances))
    return found


def unreadable(utterances: Sequence[Utterance]) -> DataError:
    """Say that of a set nothing can be read."""
    return DataError(
        f"corpus: none of {len(utterances)} utterances can be read, expected audio; look at the first: "
        f"{utterances[0].path}"
    )


def unlabelled(count: int) -> DataError:
    """Say that of a set of so many utterances nothing has a label where there is audio."""
    return DataError(
        f"corpus: no label lies within what can be read of {count} utterances, expected one at least; write alignments "
        "in seconds from the utterance's start, or give other utterances"
    )


def gather(
    probe: Probe,
    utterances: Sequence[Utterance],
    chosen: Sequence[int],
    seed: int | None = None,
    quarantine: Quarantine | None = None,
    share: float = 1.0,
) -> Cache | None:
    """Compute what a probe's head reads of some utterances of a set; None where none of them can be read.

    Args:
        probe: As for `cache`.
        utterances: All of the set.
        chosen: Indices of some; owners are among these.
        seed: As for `cache`; also addresses which rows are kept.
        quarantine: As for `cache`.
        share: Of an utterance's labelled rows, drawn at random, that are kept; of sequences all are.

    Raises:
        DataError: A file is missing or bad.
    """
    representation, task, head = probe.representation, probe.task, probe.head
    layers: list[list[Tensor]] = [[] for _ in probe.mix.layers]
    targets: list[Targets] = []
    lengths: list[int] = []
    owners: list[Tensor] = []
    for indices, hidden in represent(representation, [utterances[place] for place in chosen], quarantine):
        stack, kept = head.thin(probe.mix.take(hidden), hidden.lengths)
        for place, (index, steps, rows) in enumerate(zip(indices, hidden.lengths.tolist(), kept.tolist())):
            utterance = utterances[chosen[index]]
            wanted = task.targets(utterance, representation.grid, steps)
            values = stack[:, place, :rows]
            if not head.sequential:  # rows without a label are of no use
                useful = wanted.counts.sum(-1) > 0
                if share < 1:
                    useful &= torch.rand(len(useful), generator=generator_at("rows", seed, utterance.id)) < share
                wanted, values = wanted.take(useful.nonzero()[:, 0]), values[:, useful.to(values.device)]
            for pile, layer in zip(layers, values):
                pile.append(layer.clone())
            targets.append(wanted)
            lengths.append(values.shape[1])
            owners.append(torch.full((len(wanted.answers),), chosen[index]))
    if not targets:
        return None
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    order = (
        None
        if seed is None or head.sequential
        else torch.randperm(int(offsets[-1]), generator=torch.Generator().manual_seed(seed))
    )
    joined, owner = Targets.join(targets), torch.cat(owners)
    if order is not None:
        joined, owner = joined.take(order), owner[order]
    device = device_of(representation)
    return Cache(
        _flatten(layers, order),
        offsets.to(device),
        joined.to(device),
        owner.to(device),
        head.sequential,
        len(utterances),
    )


def _flatten(layers: list[list[Tensor]], order: Int[Tensor, " rows"] | None) -> Float[Tensor, "layers rows dim"]:
    """Join the pieces of each layer, freeing them as it goes: at most one layer is held twice."""
    stack = None
    for index in range(len(layers)):
        joined = torch.cat(layers[index])
        layers[index].clear()
        stack = joined.new_empty(len(layers), *joined.shape) if stack is None else stack
        stack[index] = joined if order is None else joined[order.to(joined.device)]
    assert stack is not None
    return stack


def _batches(utterances: Sequence[Utterance], seconds: float) -> Iterator[list[int]]:
    """Indices of utterances of nearly one length, up to so many seconds of audio together; the longest first."""
    order = sorted(range(len(utterances)), key=lambda index: (-utterances[index].seconds, utterances[index].id))
    batch: list[int] = []
    for index in order:
        longest = utterances[batch[0]].seconds if batch else 0.0
        if batch and ((len(batch) + 1) * longest > seconds or utterances[index].seconds < TIGHT * longest):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def generator_at(*parts: object) -> torch.Generator:
    """Make a generator with an address."""
    return torch.Generator().manual_seed(address(*parts) & (2**63 - 1))


def rows_needed(probe: Probe, utterances: Sequence[Utterance]) -> list[int]:
    """Estimate how many rows a cache has of each utterance."""
    hop = probe.representation.hop / SAMPLE_RATE
    return [probe.head.kept(round(utterance.seconds / hop)) for utterance in utterances]


def bytes_needed(probe: Probe, utterances: Sequence[Utterance]) -> int:
    """Estimate the size of a cache."""
    return 4 * len(probe.mix.layers) * probe.representation.dim * sum(rows_needed(probe, utterances))
