"""One run as one page, in reading order: what was done and found, the evidence, and all it takes to do it again.

Every sentence about success is generated from the numbers, and what is missing is said in words.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mockingjay.report import figures
from mockingjay.report.page import Block, Code, Page, Section, key_values
from mockingjay.report.tables import SETTINGS, Row, interval, metric, names, number, results_table
from mockingjay.train.validation import predictors

REFERENCES = ("mel", "log-mel")  # the features as they are: the bar for every learned representation
UNTRAINED = "random:"  # the same network before training
PRECOMPUTED = "precomputed:"  # features made elsewhere, as they are


def run_page(
    *,
    title: str,
    command: str,
    health: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    measure: str = "loss",
    spectrogram: Mapping[str, Any] | None,
    rows: Sequence[Row],
    weights: Mapping[str, Sequence[float]],
    settings_toml: str,
    provenance: Mapping[str, Any],
) -> Page:
    """Assemble the report of a run.

    Args:
        title: The page's title.
        command: What reproduces the run.
        health: What is known of the corpus; `durations` (seconds) and `levels` (dB re full scale) are drawn,
            `utterances` and `hours` quoted, all else listed.
        metrics: Logged lines, as for `figures.training_curve`.
        measure: What is measured on held-out speech, as for `figures.training_curve`.
        spectrogram: The arguments of `figures.spectrograms`; None where the method rebuilds none.
        rows: Result rows, as for `tables.results_table`.
        weights: Mixing weights per layer, by task.
        settings_toml: The resolved configuration.
        provenance: Versions, seeds and fingerprints; nesting is allowed.
    """
    sections = (
        _results(rows),
        _learning(metrics, measure),
        _spectrogram(spectrogram),
        _weights(weights),
        _health(health),
        Section("Settings", "Every setting of the run, defaults included.", (_settings(settings_toml),)),
        _provenance(provenance),
    )
    summary = "\n\n".join((_done(metrics, measure, health), headline(rows)))
    return Page(title, summary, command, sections)


def headline(rows: Sequence[Row]) -> str:
    """Say per task what the best trained representation reaches beside plain features and the untrained network."""
    if not rows:
        return "No probe was trained, for want of labels: whether the representation is useful has not been measured."
    by_task: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        by_task.setdefault((row["task"], row["metric"], row["data"]), []).append(row)
    return "\n\n".join(_verdict(*key, alike) for key, alike in by_task.items())


def validation_sentence(metrics: Sequence[Mapping[str, Any]], measure: str = "loss") -> str:
    """Say how the model stands against the dumb predictors at the last validation."""
    last = next((line for line in reversed(metrics) if line.get("validation")), None)
    if last is None:
        return "No validation has been logged, so nothing can be said about held-out speech."
    model, scores = last["validation"]["model"], predictors(last["validation"])
    begin = f"On held-out speech at step {last['step']:,} the model’s {measure} is {model:.3f}"
    if not scores:
        return f"{begin}; no dumb predictor was measured beside it, so this says little."
    name = min(scores, key=scores.__getitem__)
    rival = f"{scores[name]:.3f} for {name}, the best of {len(scores)} predictors that learn nothing"
    if model < scores[name]:
        return f"{begin}, below {rival}."
    return f"{begin}, not below {rival}: nothing beyond it has been learnt yet."


def _verdict(task: str, measure: str, data: str, rows: Sequence[Row]) -> str:
    alike: dict[str, list[Row]] = {}
    for row, name in zip(rows, names(rows, [key for key in SETTINGS if key != "seed"])):
        alike.setdefault(name, []).append(row)
    scores = [_Score(name, group) for name, group in alike.items()]
    begin = f"{task[:1].upper()}{task[1:]} {measure} on {data}"
    trained = [score for score in scores if not score.rival]
    if not trained:
        return f"{begin}: only baselines were measured."
    sign = -1 if metric(measure).better == "lower" else 1
    best = max(trained, key=lambda score: sign * score.value)
    among = f", the best of {len(trained)} trained representations," if len(trained) > 1 else ""
    verdicts: dict[str, list[str]] = {}
    for score in scores:
        if score.rival:
            verdicts.setdefault(best.against(score), []).append(f"{score.name} at {score.amount}")
    beside = "; ".join(f"{verdict} {' and '.join(rivals)}" for verdict, rivals in verdicts.items())
    majority = next((row["majority"] for row in rows if row.get("majority") is not None), None)
    bound = f" Always giving the commonest answer reaches {number(majority, measure)}." if majority is not None else ""
    beside = beside or "with no baseline measured beside it"
    return f"{begin}: {best.name}{among} reaches {best.amount}, {beside}.{bound}"


class _Score:
    """What one representation reaches on one task, over all its seeds."""

    def __init__(self, name: str, rows: Sequence[Row]):
        self.name, self.metric = name, rows[0]["metric"]
        self.value = sum(row["value"] for row in rows) / len(rows)
        self.seeds = len(rows)
        self.rival = _is_rival(rows[0]["representation"])
        bounds = [row["ci95"] for row in rows]
        # Over several seeds the widest reach of their intervals: never narrower than any of them.
        known = None not in bounds
        self.bounds = (min(low for low, _ in bounds), max(high for _, high in bounds)) if known else None

    @property
    def amount(self) -> str:
        """The value with its interval, and of how many measurements it is the mean."""
        mean = f" (mean of {self.seeds})" if self.seeds > 1 else ""
        return " ".join(filter(None, (number(self.value, self.metric), interval(self.bounds, self.metric)))) + mean

    def against(self, other: "_Score") -> str:
        """Say by the intervals how this compares; a phrase to be followed by the other's name."""
        if self.bounds is None or other.bounds is None:
            return "with no verdict, for want of intervals, on"
        if self.bounds[0] <= other.bounds[1] and other.bounds[0] <= self.bounds[1]:
            return "not distinguishable by overlapping intervals from"
        better, above = metric(self.metric).better, self.value > other.value
        if better is None:
            return f"{'above' if above else 'below'}, with intervals apart,"
        return f"{'better' if above == (better == 'higher') else 'worse'}, with intervals apart, than"


def _is_rival(name: str) -> bool:
    return name in REFERENCES or name.startswith((UNTRAINED, PRECOMPUTED))


def _done(metrics: Sequence[Mapping[str, Any]], measure: str, health: Mapping[str, Any]) -> str:
    if not metrics:
        return "No training step has been logged."
    corpus = f" on {_time(health['hours'])} of speech" if "hours" in health else ""
    corpus += f" ({health['utterances']:,} utterances)" if corpus and "utterances" in health else ""
    steps = f"{metrics[-1]['step']:,} steps"
    return f"An encoder was pre-trained without labels for {steps}{corpus}. {validation_sentence(metrics, measure)}"


def _time(hours: float) -> str:
    return f"{hours:.2f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _results(rows: Sequence[Row]) -> Section:
    if not rows:
        return Section("Results", headline(rows))
    text = (
        "Each value is of a probe trained on the training part of the labelled speech and scored on its test part. "
        "Where two intervals overlap, they alone do not tell the two apart."
    )
    return Section("Results", text, (results_table(rows), figures.inline(figures.results_intervals(rows), "results")))


def _learning(metrics: Sequence[Mapping[str, Any]], measure: str) -> Section:
    title = "Learning curve"
    if not metrics:
        return Section(title, "No training step has been logged.")
    drawn = {name for line in metrics for name in predictors(line.get("validation") or {})}
    text = validation_sentence(metrics, measure)
    if "interpolation" in drawn:
        text = (
            "Neighbouring frames are so alike that repeating or interpolating them already comes close: "
            "only what lies below those lines has been learnt."
        )
    elif drawn:
        text = "The other lines are of predictors that learn nothing: only what lies below them has been learnt."
    return Section(title, text, (figures.inline(figures.training_curve(metrics, measure), "curve"),))


def _spectrogram(spectrogram: Mapping[str, Any] | None) -> Section:
    title = "Masked and rebuilt"
    if spectrogram is None:
        return Section(title, "This method rebuilds no spectrogram, or no held-out utterance was there to show.")
    drawing = figures.spectrograms(**spectrogram)
    return Section(title, "One held-out utterance, as the network saw it.", (figures.inline(drawing, "spectrograms"),))


def _weights(weights: Mapping[str, Sequence[float]]) -> Section:
    title = "Layer weights"
    if not weights:
        return Section(title, "No probe that mixes layers was trained.")
    text = "What each probe takes from each layer; weights compare layers as far as their values are of one size."
    return Section(title, text, (figures.inline(figures.layer_weights(weights), "weights"),))


def _health(health: Mapping[str, Any]) -> Section:
    if not health:
        return Section("Corpus health", "The corpus was not examined.")
    durations, levels = health.get("durations", ()), health.get("levels", ())
    listed = {key: value for key, value in health.items() if key not in ("durations", "levels")}
    plain = {key: value for key, value in listed.items() if not isinstance(value, Mapping)}
    tables = {key: value for key, value in listed.items() if isinstance(value, Mapping) and value}
    blocks: list[Block] = [key_values(plain)] if plain else []
    if len(durations) or len(levels):
        blocks.append(figures.inline(figures.health_histograms(durations, levels), "health"))
    blocks += [key_values(counts, name.replace("_", " ").capitalize()) for name, counts in tables.items()]
    return Section("Corpus health", "What was read, before anything was learnt from it.", tuple(blocks))


def _provenance(provenance: Mapping[str, Any]) -> Section:
    if not provenance:
        return Section("Provenance", "None was recorded.")
    return Section("Provenance", "What ran, on what.", (key_values(provenance),))


def _settings(text: str) -> Code:
    lines = text.count("\n") + 1
    return Code(text, f"config.toml, {lines} lines" if lines > 24 else "config.toml", folded=lines > 24)
