"""`mockingjay attack`: attacks on spoofing countermeasures, and what a representation in front of them is worth."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mockingjay.cli.options import Data, Device, Json, Out, Quiet, Seed, Sets, seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from mockingjay.studies.attack.defence import Rebuilding
    from mockingjay.studies.attack.subject import Subject


def attack(
    data: Data,
    out: Out,
    representation: Annotated[
        str | None,
        typer.Argument(metavar="[REPRESENTATION]", help="What is tried as a defence, of sound; none: filters alone."),
    ] = None,
    budget: Annotated[str, typer.Option("--budget", help="Time for everything, for example 30m.")] = "30m",
    size: Annotated[
        Literal["auto", "small", "published"],
        typer.Option("--size", help="Of countermeasures and features; auto: published on CUDA, else small."),
    ] = "auto",
    changes: Sets = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Attack LCNN and SENet by FGSM and PGD, behind several defences, and write a page.

    What reads a spectrum is attacked there and on the waveform; what hears samples on the waveform alone.
    """
    allowed = seconds(budget)
    from mockingjay.cli.output import print_rows, read_corpus, teller
    from mockingjay.core.config import assignments, overlay, to_toml
    from mockingjay.report.attack_report import attack_page, drawings
    from mockingjay.report.figures import save_png
    from mockingjay.report.page import write_page
    from mockingjay.report.tables import write_results
    from mockingjay.studies.attack.rows import claims, headlines, rows
    from mockingjay.studies.attack.study import attack as library_attack
    from mockingjay.studies.attack.subject import SMALL, Config
    from mockingjay.train.distributed import joined

    with joined(device) as group:
        large = size == "published" or (size == "auto" and group.device.type == "cuda")
    config = overlay(Config() if large else SMALL, assignments(changes or ()))
    say = teller(quiet or json)
    subject, found, study = _subject(representation, seed, say), [], None
    how = {"config": config, "budget": allowed, "device": device, "seed": seed, "say": say}
    for study in library_attack(subject, read_corpus(data, say), out, **how):
        found = rows(study)
        write_results(out / "results.json", found)
        page = attack_page(
            data=study.data,
            subject=subject.name,
            features=study.features,
            place=study.place,
            command=shlex.join(["mockingjay", *sys.argv[1:]]),
            rows=found,
            claims=claims(study),
            facts=study.facts,
            notes=study.notes,
            settings=to_toml(config, comments=True),
            budget=allowed,
            finished=study.finished,
        )
        write_page(out / "report" / "index.html", page)
    assert study is not None and study.finished
    for name, drawing in drawings(found):
        save_png(drawing, out / "report" / f"{name}.png")
    print_rows(found if json else headlines(found), json, quiet)
    say(f"report: {out / 'report' / 'index.html'}")


def _subject(name: str | None, seed: int, say: "Callable[[str], None]") -> "Subject":
    """Open a representation; of a run also what it heard, and the head that rebuilds what it hides."""
    from mockingjay.open import open_representation, run_of
    from mockingjay.studies.attack.subject import Subject

    if name is None:
        return Subject("published features")
    run, heard = run_of(name)
    rebuilding = _rebuilding(run, say) if run is not None else None
    return Subject(name, open_representation(name, seed), rebuilding, heard)


def _rebuilding(run: Path, say: "Callable[[str], None]") -> "Rebuilding | None":
    """Take the head of a run's objective; None where it rebuilds something else than it reads, or nothing."""
    from mockingjay.objectives.audio_albert import AudioALBERT
    from mockingjay.objectives.mockingjay import Mockingjay
    from mockingjay.objectives.tera import TERA
    from mockingjay.open import open_objective
    from mockingjay.studies.attack.defence import Rebuilding

    opened = open_objective(run, say)
    learner = opened[0] if opened is not None else None
    if not isinstance(learner, Mockingjay | TERA | AudioALBERT) or getattr(learner, "target", None) is not None:
        return None
    spans = learner.config.hide if isinstance(learner, AudioALBERT) else learner.spans
    return Rebuilding(learner.encoder, learner.head, spans)
