"""`mockingjay probe`, `finetune` and `predict`: what a representation knows, and what it says of a file."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from mockingjay.cli.options import Data, Device, Json, Out, Quiet, Seed, Sets

Name = Annotated[str, typer.Argument(help="mel, a run's folder, random:…; see `mockingjay list`.")]
TaskName = Annotated[str, typer.Option("--task", help="phone, phone:39, pitch, energy, label:<column>, phones, text.")]
Head = Annotated[str, typer.Option("--head", help="linear, linear256, mlp1, mlp2, gru; of sequences blstm, blstm1024.")]


def probe(
    representation: Name,
    data: Data,
    task: TaskName,
    out: Out,
    read: Annotated[str, typer.Option("--read", help="last, layer:<index>, or mix (and probe.weights).")] = "mix",
    tune: Annotated[str, typer.Option("--tune", help="head, or all to train the encoder too.")] = "head",
    head: Head = "linear",
    changes: Sets = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit a probe on a representation and measure it on speech it has not seen."""
    from mockingjay.cli.output import print_rows, read_corpus, teller
    from mockingjay.core.config import assignments, overlay, to_toml
    from mockingjay.data.quarantine import Quarantine
    from mockingjay.downstream.fit import Config, fit_probe
    from mockingjay.downstream.partition import partition
    from mockingjay.downstream.questions import keep_scores
    from mockingjay.downstream.storage import save_probe
    from mockingjay.downstream.tasks import open_task
    from mockingjay.downstream.transcribe import keep_errors
    from mockingjay.open import kept_name, open_representation
    from mockingjay.report.probe_report import write_probe_page
    from mockingjay.report.tables import number, write_results
    from mockingjay.train.distributed import device_called

    config = overlay(Config(), {"seed": seed, "probe": {"read": read, "tune": tune, "head": head}})
    config = overlay(config, assignments(changes or ()))
    question, place = open_task(task), device_called(device)
    say = teller(quiet or json)
    corpus = read_corpus(data, say)
    parts = partition(corpus.utterances, question, seed)
    opened = open_representation(representation, seed, parts.train).to(place)
    parts.write(out / "splits.json")
    quarantine = Quarantine(out / "quarantine.jsonl", anew=True)
    sets = (parts.train, parts.dev, parts.test)
    result = fit_probe(opened, question, *sets, config, representation, corpus.name, quarantine)
    for text in quarantine.texts:
        say(text)
    if result.infeasible:
        lost, first = len(result.infeasible), result.infeasible[0]
        say(f"task {task}: {lost} of {len(parts.train)} training utterances have more units than steps (first {first})")
    tested = set(result.scores.ids)
    keep_errors(result.probe, [each for each in parts.test if each.id in tested], out, quarantine)
    keep_scores(result.scores, out)
    save_probe(result.probe, out, kept_name(opened, representation, seed, out), result.row)
    rows = [result.row, *result.others]
    write_results(out / "results.json", rows)
    page = write_probe_page(out, shlex.join(["mockingjay", *sys.argv[1:]]), to_toml(config, comments=True))
    sweep = result.row["sweep"]
    if len(sweep) > 1:
        tried = ", ".join(f"{rate} {number(value, result.row['metric'])}" for rate, value in sweep.items())
        say(f"learning rates on dev: {tried}")
    print_rows(rows, json, quiet)
    say(f"report: {page}")


def finetune(
    representation: Name,
    data: Data,
    task: TaskName,
    out: Out,
    head: Head = "linear",
    changes: Sets = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train an encoder and a head together; `--set live.epochs=N` for other than two epochs.

    One learning rate is tried, 4e-4. `--set live.learning_rates=[1e-4,4e-4,4e-3]` tries each with the first seed and
    lets dev choose, at the cost of a whole training for every further rate; results.json says under `sweep` what dev
    said of each.
    """
    probe(representation, data, task, out, "last", "all", head, changes, seed, device, json, quiet)


def predict(
    folder: Annotated[Path, typer.Argument(metavar="PROBE", help="A folder that `probe` or `finetune` wrote.")],
    files: Annotated[list[Path], typer.Argument(help="Audio files.")],
    json: Json = False,
) -> None:
    """Say what a probe hears in files it has never seen."""
    import json as encoder
    from dataclasses import asdict

    from mockingjay.downstream.predict import predict as library_predict
    from mockingjay.open import open_representation

    for prediction in library_predict(folder, files, open_representation):
        if json:
            print(encoder.dumps(asdict(prediction)))
        elif prediction.label is not None:
            print(f"{prediction.path}\t{prediction.label}\t{prediction.probability:.3f}")
        elif prediction.text is not None:
            print(f"{prediction.path}\t{prediction.text}")
        else:
            for start, end, name in prediction.segments:
                print(f"{prediction.path}\t{start:.3f}\t{end:.3f}\t{name}")
