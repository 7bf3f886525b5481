import io
import json
import math
import re
from html.parser import HTMLParser

import browser
import numpy as np
import pytest
import torch
from rich.console import Console

from mockingjay.core.errors import DataError
from mockingjay.objectives.cpc import CPC
from mockingjay.objectives.mockingjay import Mockingjay
from mockingjay.report import figures
from mockingjay.report.page import Code, Figure, KeyValues, Page, Section, Table, key_values, render, write_page
from mockingjay.report.run_report import headline, run_page, validation_sentence
from mockingjay.report.tables import lay_out, number, print_table, read_results, results_table, write_results

EVIL = '<script>alert("x")</script>&amp;'


def row(representation, value, task="speaker", half=0.01, **more):
    interval = None if half is None else [value - half, value + half]
    keys = {"metric": "accuracy", "value": value, "ci95": interval, "n": 1204, "seed": 0, "data": "talking test"}
    return {"representation": representation, "task": task, **keys, **more}


def bare_page(**known):
    """A run's page of what is known, and of nothing else."""
    nothing = {"health": {}, "metrics": [], "spectrogram": None, "rows": [], "weights": {}, "provenance": {}}
    return run_page(title="t", command="c", settings_toml="", **{**nothing, **known})


@pytest.fixture(scope="module")
def rows():
    values = {"mel": 0.52, "random:mockingjay": 0.498, "runs/mockingjay": 0.612}
    speaker = [row(name, value, majority=0.042) for name, value in values.items()]
    phone = [
        row(name, value - 0.1 * (value > 0.6), "phone", half=0.02, majority=0.112) for name, value in values.items()
    ]
    return speaker + phone


@pytest.fixture(scope="module")
def metrics():
    lines = []
    for step in range(10, 1010, 10):
        line = {"step": step, "loss": 0.35 + 0.6 * math.exp(-step / 300)}
        if step % 250 == 0:
            model = 0.36 + 0.5 * math.exp(-step / 300)
            line["validation"] = {"model": model, "utterance mean": 0.79, "copy last": 0.61, "interpolation": 0.52}
        lines.append(line)
    return lines


@pytest.fixture(scope="module")
def spectrogram():
    time, dim = 200, 80
    true = torch.sin(torch.arange(dim) / 4 + 3 * torch.sin(torch.arange(time)[:, None] / 30))
    hidden = torch.zeros(time, dtype=torch.bool)
    hidden[20:27] = hidden[90:104] = True
    masked = true.masked_fill(hidden[:, None], 0.0)
    return {"true": true, "masked": masked, "rebuilt": 0.8 * true, "hidden": hidden, "hop_seconds": 0.01}


@pytest.fixture(scope="module")
def page(rows, metrics, spectrogram):
    durations = np.random.default_rng(0).gamma(6, 1.6, 300).tolist()
    return run_page(
        title=f"mockingjay on {EVIL}",
        command="mockingjay run data --out runs/mockingjay --budget 20m --seed 0",
        health={
            "utterances": 300,
            "hours": sum(durations) / 3600,
            "durations": durations,
            "levels": [-27.0, -25.5, -31.0],
            "quarantined": {"empty": 2},
        },
        metrics=metrics,
        spectrogram=spectrogram,
        rows=rows,
        weights={"phone": [0.2, 0.5, 0.3], EVIL: [0.1, 0.2, 0.7]},
        settings_toml="\n".join(f"key_{index} = {index}" for index in range(40)),
        provenance={"seed": 0, "versions": {"torch": "2.15"}, "git": {"clean": True}, "file": EVIL, "gpu": None},
    )


@pytest.fixture(scope="module")
def chrome():
    with browser.chromium() as opened:
        yield opened


class Outline(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def of(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 1100), ("light", 390)])
def test_a_reader_sees_every_picture_and_nothing_is_fetched(chrome, page, tmp_path, scheme, width):
    path = tmp_path / "report" / "index.html"
    write_page(path, page)
    asked = browser.visit(chrome, path, scheme, width)
    assert asked[0] == path.as_uri()
    assert all(address.startswith("data:") for address in asked[1:])
    resources = chrome.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert all(address.startswith("data:") for address in resources)
    assert chrome.get_log("browser") == []
    assert chrome.title == page.title
    boxes = chrome.execute_script(
        "return [...document.querySelectorAll('svg, img, image')]"
        ".map(e => e.getBoundingClientRect()).map(b => [b.width, b.height])"
    )
    assert len(boxes) >= 5 + 3 and all(min(box) > 0 for box in boxes)
    assert chrome.execute_script("return document.documentElement.scrollWidth") == width
    dark = chrome.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 27)"
    assert dark == (scheme == "dark")


def test_figures_follow_the_scheme(chrome, page, tmp_path):
    write_page(tmp_path / "index.html", page)
    colours = []
    for scheme in ("light", "dark"):
        browser.visit(chrome, tmp_path / "index.html", scheme)
        colours.append(chrome.execute_script("return getComputedStyle(document.querySelector('svg text')).fill"))
    assert colours[0] != colours[1]


def test_what_users_wrote_is_only_ever_text(page):
    outline = Outline(render(page))
    assert outline.of("script") == []
    assert "&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;&amp;amp;" in render(page)
    blocks = (Code(EVIL, EVIL), KeyValues(((EVIL, EVIL),), EVIL), results_table([row(EVIL, 0.5, task=EVIL, data=EVIL)]))
    assert Outline(render(Page(EVIL, EVIL, EVIL, (Section(EVIL, EVIL, blocks),)))).of("script") == []
    assert Outline(render(Page("t", "", "", (Section("s", "", (Figure(b"\x89PNG", EVIL, EVIL),)),)))).of("script") == []


def test_the_page_is_accessible_and_self_contained(page):
    text = render(page)
    outline = Outline(text)
    assert [tag for tag, _ in outline.tags].count("h1") == 1
    assert all(attributes.get("alt") or attributes.get("aria-label") for attributes in outline.of("img", "svg"))
    assert all(attributes["scope"] in ("row", "col") for attributes in outline.of("th"))
    ids = [attributes["id"] for _, attributes in outline.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    referred = re.findall(r'(?:href="|url\()#([^")]+)', text)
    assert set(referred) <= set(ids)
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


def test_the_same_data_give_the_same_bytes(page, rows, tmp_path):
    write_page(tmp_path / "a.html", page)
    write_page(tmp_path / "b.html", page)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    first, second = (figures.inline(figures.results_intervals(rows), "results").image for _ in range(2))
    assert first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_missing_parts_are_said_in_words():
    page = bare_page()
    assert "whether the representation is useful has not been measured" in page.summary
    assert all(section.text for section in page.sections)
    health = {"hours": 0.5, "utterances": 1000, "levels": [-20.0]}
    unchecked = bare_page(health=health, metrics=[{"step": 10, "loss": 0.5}])
    begin = "An encoder was pre-trained without labels for 10 steps on 30.0 minutes of speech (1,000 utterances). "
    assert unchecked.summary.startswith(
        begin + "No validation has been logged, so nothing can be said about held-out speech."
    )
    render(unchecked)


def test_headline_says_what_the_intervals_allow(rows):
    speaker, phone = headline(rows).split("\n\n")
    assert speaker == (
        "Speaker accuracy on talking test: runs/mockingjay reaches 61.2 % [60.2, 62.2], better, with intervals apart, "
        "than mel at 52.0 % [51.0, 53.0] and random:mockingjay at 49.8 % [48.8, 50.8]. "
        "Always giving the commonest answer reaches 4.2 %."
    )
    assert "not distinguishable by overlapping intervals from mel at 52.0 % [50.0, 54.0]" in phone
    worse = headline([row("mel", 0.5), row("a", 0.4), row("b", 0.3)])
    assert (
        "a, the best of 2 trained representations, reaches 40.0 % [39.0, 41.0], worse, with intervals apart," in worse
    )
    errors = headline([row("mel", 0.5, metric="eer"), row("a", 0.4, metric="eer"), row("b", 0.3, metric="eer")])
    assert "b, the best of 2" in errors and "better, with intervals apart, than mel at 50.0 %" in errors
    assert "with no verdict, for want of intervals, on mel" in headline([row("mel", 0.5, half=None), row("a", 0.6)])
    assert "with no baseline measured beside it" in headline([row("a", 0.6)])
    assert "only baselines were measured" in headline([row("mel", 0.6)])


def test_headline_pools_seeds_but_not_ways_of_reading():
    seeds = headline([row("mel", 0.5), row("a", 0.60, seed=0), row("a", 0.62, seed=1)])
    assert "a reaches 61.0 % [59.0, 63.0] (mean of 2)" in seeds
    reads = headline([row("a", 0.60, read="last"), row("a", 0.62, read="mix")])
    assert "a (mix), the best of 2 trained representations, reaches 62.0 %" in reads


def test_validation_sentence_names_the_hardest_rival(metrics):
    assert "0.520 for interpolation, the best of 3 predictors that learn nothing." in validation_sentence(metrics)
    behind = [{"step": 5, "validation": {"model": 0.7, "copy last": 0.61, "utterance mean": 0.8}}]
    assert "not below 0.610 for copy last" in validation_sentence(behind)
    assert "this says little" in validation_sentence([{"step": 5, "validation": {"model": 0.7}}])


def test_a_bound_that_nothing_goes_below_is_no_rival():
    lines = [{"step": 5, "loss": 3.1, "validation": {"model": 3.0, "utterance mean": 3.8, "mean": 3.9, "entropy": 1.2}}]
    said = "below 3.800 for utterance mean, the best of 2 predictors that learn nothing."
    assert validation_sentence(lines).endswith(said)
    drawing = figures.training_curve(lines)
    assert "model 3.000, utterance mean 3.800, mean 3.900, entropy 1.200" in drawing.alt
    assert drawing.caption.endswith("Below the entropy of its targets no model can go.")
    assert "entropy" not in figures.training_curve([{"step": 1, "loss": 1.0, "validation": {"model": 0.5}}]).caption
    only = [{"step": 5, "validation": {"model": 3.0, "entropy": 1.2}}]
    assert "this says little" in validation_sentence(only)


def test_what_is_measured_on_held_out_speech_is_the_objectives_to_name(metrics):
    error = "mean absolute error on masked frames"
    sentence = validation_sentence(metrics, error)
    assert sentence.startswith(f"On held-out speech at step 1,000 the model’s {error} is 0.378, below ")
    drawing = figures.training_curve(metrics, error)
    assert drawing.canvas.axes[1].get_title("left") == f"Held-out {error}"
    assert f"Held-out {error} at step 1000: " in drawing.alt and f"below, the {error} of held-out" in drawing.caption
    contrast = [{"step": 5, "loss": 2.5, "validation": {"model": 2.1, "chance": 2.4}}]
    page = bare_page(metrics=contrast)
    assert "On held-out speech at step 5 the model’s loss is 2.100, below 2.400 for chance" in page.summary
    learning = page.sections[1]
    assert "masked" not in page.summary + learning.text and "Neighbouring" not in learning.text
    assert learning.blocks[0].alt.endswith("Held-out loss at step 5: model 2.100, chance 2.400.")
    assert Mockingjay.measure(Mockingjay.Config()) == error and CPC.measure(CPC.Config()) == "loss"
    assert Mockingjay.measure(Mockingjay.Config(distance="l2")) == "mean squared error on masked frames"


def test_results_table_marks_the_best_and_states_the_majority(rows):
    table = results_table(rows)
    assert isinstance(table, Table)
    assert [cell.text for cell in table.columns] == ["representation", "speaker", "phone"]
    assert table.columns[1].note == "accuracy · n 1204 · talking test"
    assert [cell.best for cell in table.rows[2]] == [False, True, False]
    assert (table.rows[2][1].text, table.rows[2][1].note) == ("61.2 %", "[60.2, 62.2]")
    assert [cell.text for cell in table.foot[0][1:]] == ["4.2 %", "11.2 %"]
    assert table.caption.startswith("Values with 95 % intervals, seed 0; n counts ")
    several = results_table([row("a", 0.5, values=[0.4, 0.5, 0.6]), row("b", 0.5, seed=7)])
    assert several.caption.startswith("Values with 95 % intervals, 3 seeds from 0, seed 7; n counts ")


def test_best_follows_the_metric():
    assert [
        cells[1].best for cells in results_table([row("a", 0.1, metric="eer"), row("b", 0.2, metric="eer")]).rows
    ] == [True, False]
    assert not any(
        cells[1].best
        for cells in results_table([row("a", 3.0, metric="oddness"), row("b", 2.0, metric="oddness")]).rows
    )
    costs = [row("a", 0.1, metric="min t-DCF"), row("b", 0.2, metric="min t-DCF")]  # as detection names it
    assert [cells[1].best for cells in results_table(costs).rows] == [True, False]
    assert number(0.12345, "MAE") == "0.123" and number(1.2, "WER") == "120.0 %"


def test_rows_of_one_representation_are_told_apart():
    layout = lay_out([row("a", 0.5, seed=0), row("a", 0.6, seed=1), row("b", 0.5, task="phone")])
    assert layout.names == ("a (seed 0)", "a (seed 1)", "b (seed 0)")
    assert results_table([row("a", 0.5), row("b", 0.5, task="phone")]).rows[0][2].text == "–"
    assert lay_out([row("a", 0.5), row("a", 0.6)]).names == ("a", "a (2)")


def test_results_round_trip(rows, tmp_path):
    path = tmp_path / "results.json"
    for saved in (rows, [], [row("ä\udcff", 0.5, ci95=None)]):
        write_results(path, saved)
        assert len(json.loads(path.read_text())) == len(saved)
        assert read_results(path) == saved
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


def test_results_are_strict(rows, tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(
        DataError, match=r"row 1, a on speaker: value is nan, expected a finite number; measure it again"
    ):
        write_results(path, [row("a", float("nan"))])
    with pytest.raises(DataError, match="row 1, a on speaker: ci95 is -inf"):
        write_results(path, [row("a", 0.5, half=float("inf"))])
    with pytest.raises(DataError, match="row 2 lacks metric, n, expected representation, task"):
        write_results(path, [row("a", 0.5), {k: v for k, v in row("a", 0.5).items() if k not in ("metric", "n")}])
    assert not path.exists()
    with pytest.raises(DataError, match=r"results.json: cannot be read \(No such file or directory\)"):
        read_results(path)
    path.write_text('[{"value": NaN}]')
    with pytest.raises(DataError, match=r"not strict JSON \(NaN is no JSON number\)"):
        read_results(path)
    path.write_text('{"rows": []}')
    with pytest.raises(DataError, match=r"holds no list of rows \(dict\)"):
        read_results(path)


def test_print_table_is_plain_in_a_pipe_and_never_cut(rows):
    console = Console(file=io.StringIO(), width=40)
    print_table([*rows, row("hf:[bold]x[/bold]" + "y" * 80, 0.3)], console)
    text = console.file.getvalue()
    assert "61.2 %* [60.2, 62.2]" in text and "hf:[bold]x[/bold]" + "y" * 80 in text
    assert "\x1b" not in text and "│" not in text
    assert len(text.splitlines()) == 1 + 4 + 1
    terminal = Console(file=io.StringIO(), width=120, force_terminal=True)
    print_table(rows, terminal)
    assert "\x1b[1m61.2 %" in terminal.file.getvalue()
    print_table([], console)
    assert console.file.getvalue().endswith("no results\n")


def test_masked_frames_are_marked_and_the_panels_share_a_range(spectrogram):
    drawing = figures.spectrograms(**spectrogram)
    panels = drawing.canvas.axes[:3]
    shown = [axes.images[0] for axes in panels]
    assert len({image.get_clim() for image in shown}) == 1
    assert torch.equal(torch.from_numpy(np.asarray(shown[1].get_array())), spectrogram["masked"].T)
    for axes in panels:
        bars = [path.get_extents() for path in axes.collections[0].get_paths()]
        assert [(round(bar.x0, 3), round(bar.x1, 3)) for bar in bars] == [(0.2, 0.27), (0.9, 1.04)]
    assert "21 of 200 frames were masked" in drawing.alt


def test_pictures_of_odd_data(tmp_path):
    silence = torch.zeros(5, 3)
    drawing = figures.spectrograms(silence, torch.zeros(5, 6), silence, torch.ones(5, dtype=torch.bool), 0.0125)
    figures.inline(drawing, "silence")
    figures.inline(
        figures.training_curve([{"step": 1, "loss": None, "validation": {"model": 0.5, "mean": 0.5}}]), "one"
    )
    figures.inline(figures.layer_weights({"語 $x_$": [1.0], **{str(i): [0.5, 0.5] for i in range(4)}}), "many")
    unbounded = [row(name, 0.5, task=f"task {index}", half=None) for index in range(5) for name in "ab"]
    figures.inline(figures.results_intervals(unbounded), "five")
    assert "median 1.0" in figures.health_histograms([1.0], []).alt
    figures.save_png(drawing, tmp_path / "spectrogram.png")
    assert (tmp_path / "spectrogram.png").read_bytes().startswith(b"\x89PNG")


def test_long_curves_stay_small():
    noise = np.random.default_rng(0).standard_normal(50_000)
    image = figures.inline(figures.training_curve([{"step": i, "loss": x} for i, x in enumerate(noise)]), "long").image
    assert len(image) < 400_000


def test_key_values_are_readable():
    values = {"a_b": {"c": True, "d": None}, "e": 1234567, "f": 0.000123456, "g": [1, "x"], "h": []}
    assert key_values(values).items == (
        ("a b › c", "yes"),
        ("a b › d", "not known"),
        ("e", "1,234,567"),
        ("f", "0.0001235"),
        ("g", "1, x"),
        ("h", "none"),
    )
