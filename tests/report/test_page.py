"""The page and its Markdown: nothing from outside, nothing unescaped, the same tables in both."""

import base64
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image as Pil

from igpt.report import figures, tables
from igpt.report.findings import CANNOT, NO_DATA
from igpt.report.page import Commands, Section, markdown, page, sections
from igpt.report.published import PUBLISHED
from igpt.report.reading import gather, gather_all
from igpt.report.schema import Data, Events, LayerScore, Likelihood, LowData, Picture, Point, Score
from igpt.report.tables import Table
from tests.report.folders import pretrained, tuned
from tests.report.made_up import PEAK, probe, run, scored, traced
from tests.report.made_up import tuned as fine_tuned

HOSTILE = "<script>alert('1')</script>&\"|`*[x](http://x.invalid)"


class Reader(HTMLParser):
    """Tags with their attributes, and cells of all rows."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.rows, self.text, self.cell = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = False

    def handle_data(self, data):
        self.text.append(data)
        if self.cell:
            self.rows[-1][-1] += data


def rows_of(table):
    return [dict(zip((head.lstrip(">$") for head in table.heads), row, strict=True)) for row in table.rows]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """AR, BERT and fine-tuned runs in two seeds each."""
    home = tmp_path_factory.mktemp("runs")
    return [
        *(pretrained(home / f"{name}{seed}", name, top + 0.01 * seed, seed)
          for name, top in (("AR", 0.93), ("BERT", 0.83)) for seed in (0, 1)),
        *(tuned(home / f"tuned_{core}{seed}", core, 0.95 + 0.01 * seed, seed, one_mask=0.9)
          for core in ("AR", "BERT") for seed in (0, 1)),
        *(tuned(home / f"alone{seed}", "AR", 0.85 + 0.01 * seed, seed, weight=0.0) for seed in (0, 1)),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def content(folders):
    return sections(gather_all([str(folder) for folder in folders]))


def test_the_page_asks_nothing_of_the_network_and_has_no_script(content):
    text = page("title", "subtitle", content)
    reader = Reader(text)
    assert "script" not in {tag for tag, _ in reader.tags}
    for tag, attributes in reader.tags:
        assert not {name for name in attributes if name.startswith("on")}, tag
        for name in ("src", "srcset", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:image/")), (tag, attributes[name][:80])
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_every_picture_says_in_words_what_it_shows(content):
    shown = [attributes for tag, attributes in Reader(page("t", "s", content)).tags if tag == "img"]
    assert len(shown) > 8
    for attributes in shown:
        assert len(attributes["alt"]) > 10


def test_every_section_is_linked_and_every_link_has_its_section(content):
    tags = Reader(page("t", "s", content)).tags
    ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
    links = {attributes["href"].removeprefix("#") for tag, attributes in tags if tag == "a"}
    assert links == ids
    assert len(links) == len(content)


def test_what_comes_from_files_is_escaped_everywhere():
    hostile = [
        Section(HOSTILE, [Table([HOSTILE, f"${HOSTILE}"], [[HOSTILE, HOSTILE]], HOSTILE, HOSTILE),
                          Table(["a"], [[HOSTILE]], title="Every layer", folded=True),
                          Commands(HOSTILE, [HOSTILE, "```"]), HOSTILE]),
    ]  # fmt: skip
    text = page(HOSTILE, HOSTILE, hostile)
    reader = Reader(text)
    assert "script" not in {tag for tag, _ in reader.tags}
    assert "<script" not in text
    assert reader.rows[-1] == [HOSTILE]
    assert HOSTILE in reader.text
    written = markdown(HOSTILE, HOSTILE, hostile)
    outside = re.sub(r"(?ms)^(`{4,})\n.*?^\1$", "", written)
    assert "<script" not in outside
    assert not re.search(r"(?<!\\)\]\(http", outside)


def test_a_hostile_run_name_stays_text_in_tables_findings_and_figures(tmp_path):
    folder = pretrained(tmp_path / "<script>alert(1)<b> $x_{$ _a \u6570", "AR", 0.9)
    (folder / "commands.txt").write_text("igpt fit <script>alert(2)</script>\n")
    text = page("t", "s", sections([gather(str(folder))]))
    reader = Reader(text)
    assert {"script", "b"} & {tag for tag, _ in reader.tags} <= {"b"}
    assert "<script" not in text
    assert folder.name in [row[0] for row in reader.rows]
    assert "igpt fit <script>alert(2)</script>" in "".join(reader.text)


CONTROLS = "\x1b[31m\x07\u202egnp\u2069\r\n\x00\ud800\udcff\u2028|`~$"
WRITTEN_OUT = r"\x1b[31m\x07\u202egnp\u2069\r\n\x00\ud800\udcff\u2028|`~$"


def test_characters_that_steer_a_terminal_or_a_reader_are_written_out_as_a_terminal_shows_them():
    hostile = [
        Section(CONTROLS, [Table([CONTROLS, f"${CONTROLS}"], [[CONTROLS, CONTROLS]], CONTROLS, CONTROLS),
                           Commands(CONTROLS, [CONTROLS, "x"]), CONTROLS]),
    ]  # fmt: skip
    text, written = page(CONTROLS, CONTROLS, hostile), markdown(CONTROLS, CONTROLS, hostile)
    for whole in (text, written):
        assert whole.encode().decode() == whole
        assert {one for one in whole if not one.isprintable()} == {"\n"}
    reader = Reader(text)
    assert reader.rows[-1] == [WRITTEN_OUT] * 2
    assert f"{WRITTEN_OUT}\nx" in reader.text
    unmarked = re.sub(r"\\([\\`*_~$\[\]|])", r"\1", written)
    assert unmarked.count(WRITTEN_OUT) >= 8
    assert f"| {WRITTEN_OUT} | {WRITTEN_OUT} |" in unmarked


def test_names_in_records_that_are_no_unicode_still_make_a_page(tmp_path):
    folder = pretrained(tmp_path / "a\x1b\u202e|`<b>\nb", "AR", 0.9)
    record = json.loads((folder / "probe" / "probe.json").read_text())
    record["methods"]["lbfgs"]["protocol"] = CONTROLS
    record |= {"command": CONTROLS, "data": {"class_path": f"x.{CONTROLS}", "init_args": {}}}
    (folder / "probe" / "probe.json").write_text(json.dumps(record))
    content = sections(gather_all([str(folder)]))
    for whole in (page("t", "s", content), markdown("t", "s", content)):
        assert whole.encode()
        assert {one for one in whole if not one.isprintable()} == {"\n"}
        assert r"a\x1b\u202e" in whole.replace("\\\\", "\\")
        assert "<b>\\nb" not in whole


def test_html_and_markdown_hold_the_same_cells(content):
    html_rows = {tuple(row) for row in Reader(page("t", "s", content)).rows}
    written = markdown("t", "s", content)
    lines = [line for line in written.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    plain = {tuple(re.sub(r"\\(.)", r"\1", cell.strip("`")) for cell in line[2:-2].split(" | ")) for line in lines}
    assert plain == html_rows
    assert len(plain) > 40


def test_the_same_runs_give_the_same_figures(folders):
    runs = gather_all([str(folder) for folder in folders])
    for draw in (figures.loss_against_accuracy, figures.objectives):
        first, second = draw(runs), draw(runs)
        assert first.content == second.content
    assert [f.content for f in figures.layer_curves(runs)] == [f.content for f in figures.layer_curves(runs)]


def test_figures_say_their_numbers_and_stay_away_where_there_is_nothing_to_show():
    peak = run("my_run", accuracies=PEAK)
    assert "my_run is best at layer 3 with 90.0 %" in figures.layer_curves([peak])[0].alt
    steps = figures.loss_against_accuracy([traced("b", [2.0, 1.5], [0.5, 0.7])])
    assert "b from 2.000 nats and 50.0 % to 1.500 nats and 70.0 %" in steps.alt
    bars = figures.objectives([peak, run("bert", "BERT", [0.5] * 7)])
    assert "AR 90.0 %" in bars.alt
    assert "BERT 50.0 %" in bars.alt
    empty = [run("bare")]
    assert figures.loss_curves(empty) == figures.layer_curves(empty) == []
    assert figures.loss_against_accuracy(empty) is None
    assert figures.objectives(empty) is None


def test_more_families_than_colours_stand_beside_each_other_whole():
    kinds = ["AR", "BERT", *(f"Family{number}" for number in range(len(figures.COLORS)))]
    bars = figures.objectives([run(kind, kind, [0.5] * 7) for kind in kinds])
    assert "AR 50.0 %" in bars.alt
    assert "and 2 more" in bars.alt


def test_the_confusion_of_classes_is_drawn_and_its_most_frequent_errors_are_said(folders):
    runs = gather_all([str(folder) for folder in folders])
    shown = figures.confusions(runs)
    assert len(shown) == len([run for run in runs if run.objective == "Joint"])
    assert "best.ckpt at step 400: $x_{$ \u6570 taken for cat in 100.0 %; cat taken for dog in 25.0 %." in shown[0].alt
    assert figures.confusions([fine_tuned("t", "AR", 0.9)]) == []


def test_a_fine_tuned_run_says_which_checkpoint_it_began_with(folders):
    runs = gather_all([str(folder) for folder in folders])
    first = next(run for run in runs if run.objective == "Joint")
    assert rows_of(tables.networks([first]))[0]["Began with"] == "runs/AR/checkpoints/last.ckpt"
    assert rows_of(tables.summary([first]))[0]["Objective"] == "fine-tuned AR, from AR"
    assert [rows_of(tables.networks([one]))[0]["Began with"] for one in (
        runs[0], fine_tuned("s", "AR", 0.9, origin="scratch"), replace(first, began=None, origin=None))
    ] == ["new weights", "new weights", "—"]  # fmt: skip


def test_losses_stand_in_nats_and_bits():
    known = run("a", scores=[Score("test", {"test/loss": 2.0895}, "last.ckpt", 500)])
    (cells,) = rows_of(tables.summary([known]))
    assert cells["Test loss"] == "2.090 (3.015)"  # 2.0895 / ln 2 = 3.01451
    assert cells["Objective"] == "AR"


def test_a_run_that_has_not_come_to_its_end_says_so():
    shown = {}
    for taken in (None, 0, 400, 500):
        shown[taken] = rows_of(tables.summary([run("a", steps=taken)]))[0]["Steps"]
    assert shown == {None: "—", 0: "0 of 500", 400: "400 of 500", 500: "500"}


def test_the_likelihood_keeps_its_deviation_over_images():
    entry = Score("test", {}, "last.ckpt", 500, likelihood=Likelihood(359, 1.0, 0.25), precision="bf16-mixed")
    row = tables.likelihoods([run("a", scores=[entry])]).rows[0]
    assert row[2:] == ["500", "bf16-mixed", "359", "1.0000 ± 0.2500", "1.4427 ± 0.3607", tables.NONE]
    assert tables.likelihoods([run("a")]) is None


def test_the_likelihood_is_the_last_of_equal_steps_and_on_the_runs_own_data():
    def entry(mean, step=500, data=None):
        return Score("test", {}, "last.ckpt", step, data=data, likelihood=Likelihood(359, mean, 0.25))

    again = run("a", scores=[entry(1.0), entry(2.0), entry(3.0, data=Data("CIFAR10", 32)), entry(4.0, step=400)])
    assert [row["Nats per pixel"] for row in rows_of(tables.likelihoods([again]))] == ["2.0000 ± 0.2500"]


def test_a_run_that_was_never_tested_has_the_likelihood_of_its_probe():
    exact = Likelihood(359, 1.0, 0.25, bits_per_dim=0.5, precision="32-true")
    bound, other = replace(exact, exact=False), Data("CIFAR10", 32)
    untested, tested = run("a", probes=[probe(likelihood=exact)]), Score("test", {}, likelihood=Likelihood(9, 2.0, 0.5))
    (row,) = tables.likelihoods([untested]).rows
    assert row[2:] == ["500", "32-true", "359", "1.0000 ± 0.2500", "1.4427 ± 0.3607", "0.5000"]
    assert tables.likelihoods([replace(untested, scores=[tested])]).rows[0][4] == "9"
    assert "exact likelihood of the test images" not in dict(tables.lacking(replace(untested, scores=[scored(0.5)])))
    for probed in (probe(likelihood=bound), probe(likelihood=exact, data=other)):
        assert tables.likelihoods([run("a", probes=[probed])]) is None
    flow = run("f", "Flow", probes=[probe(likelihood=bound)])
    assert rows_of(tables.families([flow]))[0]["Bits per dimension"] == "0.5000"
    again = replace(flow, scores=[Score("test", {"test/bits_per_dim": 0.6})])
    assert rows_of(tables.families([again]))[0]["Bits per dimension"] == "0.6000"


def test_low_data_rows_hold_mean_deviation_and_number_of_subsets():
    probed = run("a", probes=[probe(low_data=[LowData(4, [LayerScore(value) for value in (0.5, 0.6, 0.7)])])])
    few = Data("Digits", 8, labels_per_class=25, batch_size=64)
    subsets = [fine_tuned(f"s{i}", "AR", 0.7 + 0.1 * i, data=few) for i in range(2)]
    rows = tables.low_data([probed, *subsets]).rows
    assert rows[0] == ["probe on a", "Digits 8x8", "4", "60.0 ± 10.0 %", "3"]
    assert rows[1] == ["fine-tuned AR, 25 labels a class", "Digits 8x8", "25", "75.0 ± 7.1 %", "2"]


def test_published_figures_stand_beside_runs_on_the_same_data_and_the_others_are_folded_away():
    digits = [run("a", accuracies=PEAK)]
    assert tables.published(digits) is None
    assert len(tables.context(digits).rows) == len(PUBLISHED)
    assert tables.context(digits).folded
    cifar = [run("c", probes=[probe(data=Data("CIFAR10", 32))])]
    (matched,) = tables.published(cifar).rows
    assert matched[:3] == ["linear probe: iGPT-L, pre-trained on ImageNet", "CIFAR10 32x32", "96.3 %"]
    assert "AR 90.0 % (1 run)" in matched[-1]
    assert len(tables.context(cifar).rows) == len(PUBLISHED) - 1
    assert tables.published([run("d", probes=[probe(data=Data("CIFAR10", 8))])]) is None


def test_claims_without_figures_are_one_list_with_what_it_takes():
    text = markdown("t", "s", sections([run("a", accuracies=PEAK)]))
    listed = text[text.index("Not testable yet") :]
    assert "BERT is behind AR on linear probes" in listed
    assert "needs a probed AR run and a probed BERT run" in listed
    assert "The best features lie in the middle of the network" in text[: text.index("Not testable yet")]


def test_a_verdict_says_no_data_where_there_are_none_and_cannot_be_told_where_they_are_too_near():
    few, near = traced("few", [2.0, 1.5], [0.5, 0.7]), run("near", "BERT", accuracies=[0.9] * 7)
    reader = Reader(page("t", "s", sections([few, near])))
    badges = [text for text in reader.text if text in (CANNOT, NO_DATA)]
    assert sorted(badges) == ["cannot be told", "no data"]
    assert "not seen: cannot be told" not in "".join(reader.text)


def test_loss_and_features_come_before_the_findings():
    titles = [section.title for section in sections([run("a", accuracies=PEAK)])]
    assert [titles.index(name) for name in ("Runs", "Loss", "Features", "Palette and pictures")] == [0, 1, 2, 3]


def test_no_chart_shows_a_single_point():
    once = traced("a", [2.0], [0.5])
    assert figures.loss_against_accuracy([once]) is None
    assert figures.objectives([once]) is None
    assert figures.loss_against_accuracy([once, traced("b", [2.0, 1.5], [0.5, 0.7])]) is not None


def test_a_fine_tuned_run_shows_its_accuracy_on_validation_too():
    known = fine_tuned("t", "AR", 0.9)
    curves = {**known.events.curves, "val/accuracy": [Point(10, 0.5), Point(20, 0.85)]}
    (cells,) = rows_of(tables.summary([replace(known, events=replace(known.events, curves=curves))]))
    assert cells["Test accuracy"] == "90.0 % (validation 85.0 %)"


def test_large_pictures_are_made_smaller_and_the_page_stays_below_5_mb(tmp_path):
    torch.manual_seed(0)
    noise = Pil.fromarray(torch.randint(0, 256, (900, 900, 3), dtype=torch.uint8).numpy())
    noise.save(tmp_path / "noise.png")
    heavy = Picture((tmp_path / "noise.png").read_bytes(), "samples.png")
    runs = [run(f"r{i}", pictures={"samples": heavy, "completions": heavy}) for i in range(2)]
    assert len(heavy.content) > 2_000_000
    assert sum(len(image.content) for image in figures.drawings(runs)) < figures.BUDGET
    assert len(page("t", "s", sections(runs))) < 5_000_000


def test_a_palettes_picture_holds_its_colours_by_lightness(tmp_path):
    colors = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0], [1.0, -1.0, -1.0]])
    image = figures.palettes([run("a", palette=colors), run("b", palette=colors.clone())])
    assert len(image) == 1
    (tmp_path / "p.png").write_bytes(image[0].content)
    with Pil.open(tmp_path / "p.png") as file:
        wide = file.convert("RGB")
    shown = [wide.getpixel((round(wide.width * (2 * i + 1) / 6), wide.height // 2)) for i in range(3)]
    assert shown == [(0, 0, 0), (255, 0, 0), (255, 255, 255)]


def test_accuracies_of_layers_have_error_bars_where_the_number_of_test_images_is_known():
    shown = [figures.layer_curves([run("a", probes=[probe(PEAK, images=n)])])[0].content for n in (359, 0)]
    assert [b"LineCollection" in content for content in shown] == [True, False]


def test_a_bare_run_still_makes_a_page_that_says_what_is_missing():
    text = "".join(Reader(page("t", "s", sections([run("bare")]))).text)
    assert "No probe.json was found" in text
    assert "igpt probe --ckpt runs/bare/checkpoints/last.ckpt" in text
    assert "No command is recorded" in text


def test_images_in_the_page_are_the_figures_themselves():
    peak = run("a", accuracies=PEAK)
    figure = figures.layer_curves([peak])[0]
    text = page("t", "s", [Section("x", [figure])])
    assert base64.b64encode(figure.content).decode() in text


def test_the_protocol_stands_beside_every_probe(tmp_path):
    table = tables.probes([run("a", accuracies=PEAK, seed=7)])
    best, raw = rows_of(table)
    assert best["Layer"] == "3 (best)"
    assert raw["Layer"] == "raw pixels"
    assert (best["Norm"], best["Pooling"], best["Masks"], best["Kept as"]) == ("normed", "mean", "0", "float16")
    assert (raw["Norm"], raw["Pooling"], raw["Kept as"], raw["Standardised"]) == ("—", "—", "—", "yes")
    assert (best["Images"], best["Seed"], best["Chosen"]) == ("1,294 / 144 / 359", "7", "strength 0.001")
    assert "lbfgs: refitted on train + val" in table.note


def test_every_test_of_a_fine_tuned_run_has_its_evaluation_beside_it():
    votes = fine_tuned("b", "BERT", 0.94, scores=[scored(0.9, masks=1)])
    rows = rows_of(tables.fine_tuned([votes]))
    assert [(row["Test"], row["Evaluation"], row["Masks"]) for row in rows] == [
        ("94.0 %", "mode", "5"),
        ("90.0 %", "mode", "1"),
    ]
    assert {row["Folded"] for row in rows} == {"no"}


def test_runs_of_other_families_stand_beside_igpts_own_by_relative_depth(monkeypatch):
    speed = Events({"train/images_per_second": [Point(100, 100.0), Point(200, 400.0)]})
    scores = [Score("test", {"test/bits_per_dim": 3.25}, "last.ckpt", 500)]
    vae = run("vae", "VAE", (0.5, 0.9, 0.8), network=None, parameters=1234, scores=scores, events=speed)
    runs = [run("ar", accuracies=PEAK), vae, fine_tuned("joint", "AR", 0.9)]
    ar, other = rows_of(tables.families(runs))
    assert (other["Family"], other["Parameters"], other["Bits per dimension"]) == ("VAE", "1,234", "3.2500")
    assert (other["Best layer"], other["Test accuracy"], other["Raw pixels"]) == ("1 of 0..2", "90.0 %", "95.0 %")
    assert other["Minutes"] == f"{500 * 64 * (1 / 100 + 1 / 400) / 2 / 60:.1f}"  # half of the images at either speed
    assert (ar["Run"], ar["Bits per dimension"]) == ("ar", "—")  # of tokens: another quantity
    drawn = Figure().subplots()
    monkeypatch.setattr(figures, "chart", lambda name, draw, parts: (draw(drawn), parts)[1])
    assert "vae is best at 0.50 of its depth" in figures.depth_curves(runs)[1]
    depths = [line.get_xdata().tolist() for line in drawn.lines if line.get_marker() != "None"]
    assert depths == [pytest.approx([layer / 6 for layer in range(7)]), [0, 0.5, 1]]
    monkeypatch.undo()
    assert "Families" in [section.title for section in sections(runs)]


def test_without_other_families_nothing_is_said_of_them():
    runs = [run("ar", accuracies=PEAK), run("bert", "BERT", PEAK)]
    assert figures.depth_curves(runs) is None
    assert "Families" not in [section.title for section in sections(runs)]


def test_samples_that_were_judged_stand_beside_their_floor(tmp_path):
    pretrained(tmp_path / "one", "AR", 0.9)
    judged = {"images": 359, "frechet": 23.16, "kernel": 0.5, "kernel_error": 0.25, "precision": 0.5, "recall": 0.75,
              "density": 0.5, "coverage": 0.25, "copies": 0.05}  # fmt: skip
    record = {"figures": {"samples": judged, "test (floor)": {**judged, "frechet": 4.5}}, "training_images": 1294,
              "space": {"source": "runs/simclr", "layer_name": "layer4"},
              "command": "igpt evaluate --ckpt one"}  # fmt: skip
    (tmp_path / "one" / "evaluate").mkdir()
    (tmp_path / "one" / "evaluate" / "evaluate.json").write_text(json.dumps(record))
    found = gather(str(tmp_path / "one"))
    rows = tables.evaluations([found]).rows
    assert [row[:4] for row in rows] == [["one", "samples", "359", "23.16"], ["one", "test (floor)", "359", "4.5"]]
    assert rows[0][-2:] == ["5.0 %", "runs/simclr, layer4"]
    text = page("t", "s", sections([found]))
    assert "Samples beside training images" in text
    assert "igpt evaluate --ckpt one" in text
