"""`mockingjay plot`: pictures and sounds of a run or any representation, as files and as one page."""

import json
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mockingjay.cli.options import Data, Out, Quiet, Seed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mockingjay.core.representation import Representation
    from mockingjay.core.types import Utterance
    from mockingjay.data.manifest import Corpus
    from mockingjay.objectives.objective import Objective
    from mockingjay.studies.pictures import Rebuilt


def plot(
    representation: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or any representation.")],
    data: Data,
    out: Out,
    layer: Annotated[int | None, typer.Option("--layer", min=0, help="Laid out in the plane; the last.")] = None,
    count: Annotated[int, typer.Option("--utterances", min=1, help="That are shown rebuilt.")] = 3,
    probes: Annotated[
        list[Path] | None, typer.Option("--probe", help="A probe's folder, for its layer weights; may repeat.")
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write an event file too.")] = False,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Draw what a network hides and rebuilds, its layers, phones and voices in the plane, and layer weights."""
    from mockingjay.audio.write import write
    from mockingjay.cli.output import read_corpus, teller
    from mockingjay.core.errors import ConfigError
    from mockingjay.core.types import SAMPLE_RATE
    from mockingjay.open import encoder_folder, open_objective, open_representation
    from mockingjay.report.figures import save_png
    from mockingjay.report.page import write_page
    from mockingjay.report.plot_report import drawings, plot_page
    from mockingjay.studies import pictures

    say = teller(quiet)
    corpus = read_corpus(data, say)
    run = Path(representation)
    learner = open_objective(run, say) if run.is_dir() else None
    unfinished = learner is not None and encoder_folder(run) is None
    opened = (
        learner[0].encoder if learner and unfinished else open_representation(representation, seed, corpus.utterances)
    )
    if layer is not None and layer >= opened.depth:
        raise ConfigError(f"--layer {layer}: expected 0 to {opened.depth - 1}; choose one of them")
    chosen = pictures.some(_unheard(run, corpus, opened), seed)
    shown = _rebuilt(learner[0], chosen[:count], seed) if learner else []
    for number, each in enumerate(shown, 1):
        for name, wave in each.sounds.items():
            write(out / f"{number}-{name}.wav", wave)
    place = opened.depth - 1 if layer is None else layer
    say(f"laying {len(chosen)} utterances out in the plane, layer {place}")
    metrics = list(_metrics(run))
    found = drawings(
        metrics=metrics,
        rebuilt=[(each.id, each.panels, each.sounds) for each in shown],
        layers=(chosen[0].id, pictures.layers(opened, chosen[0]), opened.hop / SAMPLE_RATE),
        maps=_maps(opened, chosen, place, seed),
        weights=_weights(run, probes or []),
    )
    files = {f"{name}.png": drawing for section in found.values() for name, drawing in section.items()}
    for name, drawing in files.items():
        save_png(drawing, out / name)
    said = [f"{len(files)} pictures of {representation} on {corpus.name}, {len(chosen)} utterances."]
    command = shlex.join(["mockingjay", *sys.argv[1:]])
    write_page(out / "index.html", plot_page(title=f"Pictures of {run.name}", command=command, found=found, said=said))
    if tensorboard:
        _events(out, metrics, files)
        say(f"events: tensorboard --logdir {out}")
    say(f"pictures: {out / 'index.html'}")


def _unheard(run: Path, corpus: "Corpus", opened: "Representation") -> "list[Utterance]":
    """Keep what a run was not trained on, where anything is left, and what gives a step.

    Raises:
        DataError: Nothing is left.
    """
    from mockingjay.core.errors import DataError
    from mockingjay.core.types import SAMPLE_RATE
    from mockingjay.data.manifest import read_manifest
    from mockingjay.data.scan import check_reads

    check_reads((each.path for each in corpus.utterances), opened.reads)
    long = [each for each in corpus.utterances if round(each.seconds * SAMPLE_RATE) >= opened.receptive]
    if not long:
        raise DataError(f"{corpus.name}: no utterance is long enough to give a step, expected one; give others")
    listed = run / "corpus.jsonl"
    if not listed.is_file():
        return long
    heard = {each.id for each in read_manifest(listed).utterances if each.split == "train"}
    return [each for each in long if each.id not in heard] or long


def _rebuilt(learner: "Objective", utterances: "list[Utterance]", seed: int) -> "list[Rebuilt]":
    """Show utterances rebuilt; what is rebuilt is what the encoder reads, but for methods with another target."""
    from mockingjay.encoders.frontends import Frontend
    from mockingjay.studies.pictures import rebuilt

    target = getattr(learner, "target", None)
    frontend = target if isinstance(target, Frontend) else learner.encoder.frontend
    return [rebuilt(learner, frontend, each, seed) for each in utterances]


def _maps(opened: "Representation", utterances: "list[Utterance]", layer: int, seed: int) -> dict[str, dict[str, Any]]:
    """Lay the same stretches out by a layer and, where it reads sound, by log-mel frames without normalisation."""
    from mockingjay.encoders.frontends import build_frontend
    from mockingjay.encoders.frontends.log_mel import TERA_80
    from mockingjay.representations.features import Features
    from mockingjay.studies.pictures import maps, stretches

    drawn, shown = stretches(utterances, seed), [(f"layer {layer}", opened, layer)]
    if opened.reads is None:
        plain = build_frontend(TERA_80.model_copy(update={"normalise": "none"}))
        shown.append(("log-mel", Features(plain).eval(), 0))
    return {name: {**maps(each, utterances, drawn, place, seed)} for name, each, place in shown}


def _metrics(run: Path) -> "Iterator[dict[str, Any]]":
    """Read what a run has logged; a line that a crash tore is passed over."""
    file = run / "metrics.jsonl"
    for line in file.read_text("utf-8").splitlines() if file.is_file() else ():
        with suppress(ValueError):
            yield json.loads(line)


def _weights(run: Path, probes: "list[Path]") -> dict[str, list[float]]:
    """Read the layer weights of a run's own probes and of others."""
    from mockingjay.core.untrusted import read_record

    found = {}
    for folder in [*sorted(each.parent for each in run.glob("probes/*/probe.json")), *probes]:
        card = read_record(folder / "probe.json")
        layers = card.get("layers", {})
        if len(layers) > 1:
            row, first = card.get("row") or {}, next(iter(layers))
            left_out = min(int(first), 99) if first.isdecimal() else 0  # these weigh nothing
            weights = [0.0] * left_out + [float(value) for value in layers.values()]
            found[f"{row['task']}, {row['data']}" if row else folder.name] = weights
    return found


def _events(out: Path, metrics: "list[dict[str, Any]]", files: "dict[str, Any]") -> None:
    from mockingjay.report.tensorboard import write_events

    pictures = {name.removesuffix(".png"): (out / name).read_bytes() for name in files}
    step = max((int(line["step"]) for line in metrics), default=0)
    write_events(out, metrics, pictures, step)
