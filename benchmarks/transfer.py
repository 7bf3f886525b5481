"""Transfer across languages: pre-train on each language alone, probe phones of every language, beside the controls.

    OMP_NUM_THREADS=1 uv run python benchmarks/transfer.py --out DIR [--objective bidirectional-cpc] [--preset tiny]
        [--budget SECONDS] [--data CORPUS]... [--languages en,de] [--json FILE]

Without --data the embedded corpus speaks; with it, corpora whose `lang` column names the language, German and English
speech for example. No utterance that a probe is tested on is trained on; the controls are log-mel and the untrained
encoder. A folder that holds finished runs is read again and not trained.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import torch
from timing import machine, write

from mockingjay.core.types import Utterance
from mockingjay.data.corpora import open_corpus
from mockingjay.data.scan import scan
from mockingjay.data.talking import talking
from mockingjay.downstream.fit import Config, fit_probe
from mockingjay.downstream.partition import Partition, partition
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.tasks import Phone
from mockingjay.encoders.encoder import random_encoder
from mockingjay.open import open_representation
from mockingjay.pretrain import pretrain
from mockingjay.settings import settings


def by_language(corpora: list[Path], languages: list[str], least: float) -> dict[str, list[Utterance]]:
    """Group the utterances of all corpora by their `lang` column."""
    found = defaultdict(list)
    for path in corpora:
        for utterance in scan(open_corpus(path), least).corpus.utterances:
            if utterance.label("lang") in languages:
                found[utterance.label("lang")].append(utterance)
    missing = [language for language in languages if language not in found]
    if missing:
        raise SystemExit(f"{', '.join(missing)}: no utterance in the corpora, expected a `lang` column that names it")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--objective", default="bidirectional-cpc")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--budget", type=float, default=300.0)
    parser.add_argument("--data", type=Path, action="append")
    parser.add_argument("--languages", default="en,de")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    languages = arguments.languages.split(",")
    chosen = settings(arguments.objective, arguments.preset, seed=arguments.seed)
    untrained = random_encoder(chosen.objective.encoder, arguments.seed)
    spoken = by_language(arguments.data or [talking(workers=2)], languages, untrained.receptive / 16_000)
    parts: dict[str, Partition] = {
        language: partition([each for each in own if each.alignment], Phone(Phone.Config()), arguments.seed)
        for language, own in spoken.items()
    }
    opened = {"mel": open_representation("mel"), "untrained": untrained}
    for language in languages:
        tested = {each.id for each in parts[language].test}
        learnt = [each for each in spoken[language] if each.id not in tested]
        folder = arguments.out / language
        if not (folder / "encoder" / "config.json").is_file():
            trained = pretrain(chosen, learnt, folder, budget=arguments.budget, say=print)
            if trained.stopped:
                raise SystemExit(trained.stopped)
        opened[f"trained on {language}"] = open_representation(str(folder))
    config = Config(probe=Probe.Config(read="mix"), unseen="drop", seed=arguments.seed)
    rows = []
    for name, representation in opened.items():
        for language in languages:
            own = parts[language]
            task = Phone(Phone.Config())
            rows.append(fit_probe(representation, task, own.train, own.dev, own.test, config, name, language).row)
            value, low, high = (100 * each for each in (rows[-1]["value"], *rows[-1]["ci95"]))
            print(f"{name:16} phones of {language}: {value:.1f} [{low:.1f}, {high:.1f}]", flush=True)
    write({"machine": machine(), "objective": chosen.model_dump(mode="json"), "rows": rows}, arguments.json)


if __name__ == "__main__":
    main()
