"""`mockingjay attention`: what a trained network looks at, which heads it needs, and how alike its layers are."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mockingjay.cli.options import Data, Json, Out, Quiet, Seed, seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from mockingjay.studies.attention.pruning import Pretext
    from mockingjay.studies.attention.study import Subject


def attention(
    representations: Annotated[
        list[str], typer.Argument(metavar="REPRESENTATION…", help="With self-attention; several share the time.")
    ],
    data: Data,
    out: Out,
    budget: Annotated[str, typer.Option("--budget", help="Time for everything, for example 30m.")] = "30m",
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Study attention heads, phone relations, segmentation, pruning, spans and layers, and write a page."""
    allowed = seconds(budget)
    from mockingjay.cli.output import print_rows, read_corpus, teller
    from mockingjay.report.attention_report import attention_page, drawings
    from mockingjay.report.figures import save_png
    from mockingjay.report.page import write_page
    from mockingjay.report.tables import write_results
    from mockingjay.studies.attention.rows import headlines, rows
    from mockingjay.studies.attention.study import attention as library_attention

    say = teller(quiet or json)
    subjects = [_subject(name, seed, say) for name in representations]
    command = shlex.join(["mockingjay", *sys.argv[1:]])
    study, found = None, []
    for study in library_attention(subjects, read_corpus(data, say), out, budget=allowed, seed=seed, say=say):
        found = rows(study)
        write_results(out / "results.json", found)
        page = attention_page(
            data=study.data,
            command=command,
            findings=study.findings,
            maps=study.maps,
            absent=study.absent,
            budget=allowed,
            finished=study.finished,
        )
        write_page(out / "report" / "index.html", page)
    assert study is not None and study.finished
    for name, drawing in drawings(study.findings, study.maps):
        save_png(drawing, out / "report" / f"{name}.png")
    print_rows(found if json else headlines(found), json, quiet)
    say(f"report: {out / 'report' / 'index.html'}")


def _subject(name: str, seed: int, say: "Callable[[str], None]") -> "Subject":
    """Open a representation; of a run also what it heard, and its pre-training task."""
    from mockingjay.core.representation import Representation
    from mockingjay.open import open_representation, run_of
    from mockingjay.studies.attention.study import Subject

    representation = open_representation(name, seed)
    run, heard = run_of(name)
    pretext = _pretext(run, say) if run is not None else None
    if pretext is not None:
        inside = next(part for part in pretext.learner.modules() if isinstance(part, Representation))
        inside.load_state_dict(representation.state_dict())
        representation = inside.eval()
    return Subject(name, representation, heard, pretext)


def _pretext(run: Path, say: "Callable[[str], None]") -> "Pretext | None":
    """Rebuild a run's objective with its head from its last checkpoint; None where it cannot be scored alone."""
    from mockingjay.open import open_objective
    from mockingjay.studies.attention.pruning import Pretext

    opened = open_objective(run, say)
    if opened is None or opened[0].draws_from != "utterance":
        return None
    learner, settings = opened
    return Pretext(learner, settings.batches.crop)
