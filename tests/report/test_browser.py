"""The page in a real browser: what a reader does with it, and what it must never do."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from making import (
    HOSTILE,
    hostile_suspects,
    make_blobs,
    make_images,
    make_predictions,
    make_suspects,
    make_table,
)

from diffident.auditing import audit
from diffident.report.building import AuditInput, Report, build_report
from diffident.report.charts import Table, table_of_chart
from diffident.report.page import write_page
from diffident.report.prediction_charts import stack_predictions
from diffident.storage.features import FeatureSource

expect = pytest.importorskip("playwright.sync_api").expect


def make_source(count: int) -> FeatureSource:
    values, labels, _ = make_blobs(count)
    ids = np.array([f"s{row:05d}" for row in range(count)], dtype=object)
    return FeatureSource(Path("memory"), ids, labels, None, {}, "unknown", values.shape[1], array=values)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """Sixty pictures of three classes, five of them mislabelled, and two methods."""
    suspects = make_suspects(60)
    methods = [stack_predictions(f"method-{seed}", [make_predictions(seed=seed)], [{}]) for seed in range(2)]
    logs = {"method-0": [[{"epoch": n, "train_loss": 1.0 / n} for n in range(1, 60)]]}
    report = build_report(
        title="pictures",
        audit=AuditInput(suspects, make_source(60), make_images(suspects.table.ids)),
        methods=methods,
        logs=logs,
        sentences=["a against b: better."],
        tables=[Table("k", "Methods", ("method", "accuracy"), (("a", "0.9"),))],
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_page(report, path)
    return path, report


@pytest.fixture
def opened(page_file, watched):
    return watched().open(page_file[0].as_uri())


def wait_for_count(page, text) -> None:
    """Until the line above the gallery says so: a text, or a pattern that it has."""
    expect(page.locator("#count")).to_have_text(text)


def shown(page) -> list[str]:
    """Names of the items in view, in their order."""
    items = page.locator("#gallery .item").evaluate_all(
        "items => items.map(i => [Number(i.dataset.position), i.getAttribute('aria-label')])"
    )
    return [name.split(",")[0] for _, name in sorted(items)]


def test_all_samples_are_there_hardest_first(opened, page_file):
    wait_for_count(opened, "60 of 60 samples")
    assert not opened.locator("#windows").is_visible()
    columns = page_file[1].samples["columns"]
    hardest = np.argsort(-np.array(columns["difficulty"]), kind="stable")
    wanted = [columns["id"][place] for place in hardest]
    assert shown(opened) == wanted[: len(shown(opened))]


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        ("given", "1", lambda c, i: c["label"][i] == 1),
        ("nearest", "2", lambda c, i: c["nearest"][i] == 2),
        ("either", "0", lambda c, i: 0 in (c["label"][i], c["nearest"][i])),
        ("low", "0.5", lambda c, i: c["difficulty"][i] >= 0.5),
        ("high", "-1", lambda c, i: c["difficulty"][i] <= -1),
        ("suspects", True, lambda c, i: c["margin"][i] > 0),
        ("text", "S0001", lambda c, i: "s0001" in c["id"][i]),
        ("text", "s0000 2", lambda c, i: "s0000" in c["id"][i] and "2" in c["id"][i] + str(c["label"][i])),
    ],
)
def test_each_filter_keeps_what_it_says(opened, page_file, field, value, wanted):
    columns = page_file[1].samples["columns"]
    kept = [place for place in range(60) if wanted(columns, place)]
    assert 0 < len(kept) < 60
    control = opened.locator(f"#filters [name={field}]")
    if value is True:
        control.check()
    elif field in ("given", "nearest", "either"):
        control.select_option(value)
    else:
        control.fill(value)
    wait_for_count(opened, f"{len(kept)} of 60 samples")
    assert set(shown(opened)) <= {columns["id"][place] for place in kept}
    opened.locator("#filters [type=reset]").click()
    wait_for_count(opened, "60 of 60 samples")


@pytest.mark.parametrize(
    ("sort", "key"),
    [
        ("easiest", lambda c, i: c["difficulty"][i]),
        ("margin", lambda c, i: (-c["margin"][i], -c["difficulty"][i])),
        ("wrong", lambda c, i: (-c["wrong"][i], -c["difficulty"][i])),
        ("id", lambda c, i: c["id"][i]),
        ("row", lambda c, i: i),
    ],
)
def test_each_order_is_what_it_says(opened, page_file, sort, key):
    columns = page_file[1].samples["columns"]
    opened.locator("#filters [name=sort]").select_option(sort)
    order = sorted(range(60), key=lambda place: key(columns, place))
    first = opened.locator("#gallery [data-position='0']")
    expect(first).to_have_attribute("aria-label", re.compile(f"^{columns['id'][order[0]]},"))
    assert shown(opened) == [columns["id"][place] for place in order][: len(shown(opened))]


def test_a_click_shows_the_sample_large_with_its_neighbours(opened, page_file):
    samples = page_file[1].samples
    opened.locator("#filters [name=suspects]").check()
    wait_for_count(opened, "5 of 60 samples")
    opened.locator("#gallery .item").first.click()
    detail = opened.locator("#detail")
    name = detail.locator("dd").first.inner_text()
    place = samples["columns"]["id"].index(name)
    number = samples["neighbours"]["row"].index(place)
    wanted = [samples["columns"]["id"][p] for side in ("given", "nearest") for p in samples["neighbours"][side][number]]
    assert detail.locator(".neighbour .id").all_inner_texts() == wanted
    assert len(wanted) == 8
    width = detail.locator("img.large").evaluate("async image => { await image.decode(); return image.naturalWidth; }")
    assert width == 12
    detail.locator(".neighbour").nth(1).click()
    expect(detail.locator("dd").first).to_have_text(wanted[1])


def test_the_keyboard_moves_opens_marks_and_closes(opened):
    gallery = opened.locator("#gallery")
    gallery.focus()
    active = lambda: gallery.get_attribute("aria-activedescendant")  # noqa: E731
    first = active()
    opened.keyboard.press("ArrowRight")
    second = active()
    assert second != first
    opened.keyboard.press("m")
    wait_for_count(opened, "60 of 60 samples, 1 marked")
    assert opened.locator(f"#{second}").get_attribute("aria-selected") == "true"
    opened.keyboard.press("Enter")
    opened.wait_for_selector("#detail[open]")
    before = opened.locator("#detail dd").first.inner_text()
    opened.keyboard.press("ArrowLeft")
    expect(opened.locator("#detail dd").first).not_to_have_text(before)
    opened.keyboard.press("Escape")
    opened.wait_for_selector("#detail", state="hidden")
    assert active() == first
    gallery.focus()
    opened.keyboard.press("End")
    assert opened.locator(f"#{active()}").get_attribute("aria-posinset") == "60"
    opened.keyboard.press("Home")
    assert active() == first


def test_marks_are_downloaded_and_stay(opened, page_file):
    columns = page_file[1].samples["columns"]
    assert opened.locator("#download").is_disabled()
    for position in (0, 2):
        opened.locator(f"#gallery [data-position='{position}'] .star").click()
    wait_for_count(opened, "60 of 60 samples, 2 marked")
    with opened.expect_download() as download:
        opened.locator("#download").click()
    assert download.value.suggested_filename == "marked.csv"
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text(encoding="utf-8"))))
    hardest = np.argsort(-np.array(columns["difficulty"]), kind="stable")[[0, 2]].tolist()
    assert [row["id"] for row in rows] == [columns["id"][place] for place in sorted(hardest)]
    place = sorted(hardest)[0]
    assert float(rows[0]["difficulty"]) == columns["difficulty"][place]
    assert float(rows[0]["probability_wrong"]) == columns["wrong"][place]
    opened.reload()
    wait_for_count(opened, "60 of 60 samples, 2 marked")
    opened.locator("#filters [name=marked]").check()
    wait_for_count(opened, "2 of 60 samples, 2 marked")


def test_every_plot_is_drawn_and_tells_its_numbers_under_the_pointer(opened, page_file):
    charts = page_file[1].charts
    figures = opened.locator("figure.chart")
    assert figures.count() == len(charts)
    assert {chart.kind for chart in charts} == {"lines", "histogram", "ranges", "matrix", "points"}
    for number, chart in enumerate(charts):
        figure = figures.nth(number)
        figure.scroll_into_view_if_needed()
        drawing = figure.locator("svg.plot")
        drawing.wait_for()
        assert drawing.get_attribute("aria-label") == chart.title
        figure.locator("summary").click()
        cells = figure.locator("tbody tr").first.locator("th, td").all_inner_texts()
        assert cells == list(table_of_chart(chart).rows[0])
        figure.locator("summary").click()
    diagram = figures.nth(0)
    diagram.scroll_into_view_if_needed()
    box = diagram.locator("svg.plot").bounding_box()
    last = charts[0].lines[0]
    x = box["x"] + 52 + (box["width"] - 72) * last.x[-1]
    opened.mouse.move(x, box["y"] + 20 + (box["height"] - 60) * (1 - last.y[-1]))
    tip = diagram.locator("svg.plot [aria-label=tip]")
    expect(tip).to_contain_text("confidence")
    assert "samples" in tip.text_content()
    assert " to " in tip.text_content()


def test_light_and_dark(page_file, watched):
    page = watched(color_scheme="dark").open(page_file[0].as_uri())
    background = lambda: page.evaluate("getComputedStyle(document.body).backgroundColor")  # noqa: E731
    dark = background()
    page.locator("#theme").click()
    light = background()
    assert (dark, light) == ("rgb(18, 20, 23)", "rgb(246, 247, 249)")
    page.locator("#theme").click()
    assert background() == dark


def test_nothing_is_wider_than_a_phone(page_file, watched):
    page = watched(viewport={"width": 360, "height": 700}).open(page_file[0].as_uri())
    for figure in page.locator("figure.chart").all():
        figure.scroll_into_view_if_needed()
    page.locator("#gallery .item").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("#detail").evaluate("d => d.scrollWidth <= d.clientWidth")


def test_long_names_in_tables_break_between_words_on_a_phone(tmp_path, watched):
    names = ("difficulty-aware minus cross-entropy", "plain", "x" * 99)
    rows = tuple((name, "accuracy", "+0.1234", "-0.1234", "not told from chance") for name in names)
    header = ("methods", "metric", "difference", "low", "verdict")
    report = Report("names", tables=(Table("verdict", "What changed", header, rows),))
    write_page(report, tmp_path / "report.html")
    page = watched(viewport={"width": 420, "height": 700}).open((tmp_path / "report.html").as_uri())
    lines = page.locator("#verdict tbody th bdi").evaluate_all(
        "all => all.map(b => Math.round(b.getBoundingClientRect().height / parseFloat(getComputedStyle(b).lineHeight)))"
    )
    assert lines[:2] == [2, 1]
    assert page.locator("#verdict tbody th").evaluate_all("all => all.every(t => t.scrollWidth <= t.clientWidth)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 420


def test_every_control_has_a_name(opened):
    snapshot = opened.locator("body").aria_snapshot()
    for name in ('searchbox "Search"', 'combobox "Given label"', 'spinbutton "least difficulty"', 'listbox "Samples"'):
        assert name in snapshot
    unnamed = opened.evaluate(
        """[...document.querySelectorAll('button, input, select')].filter(
             (e) => !(e.labels?.length || e.ariaLabel || e.textContent.trim())).length"""
    )
    assert unnamed == 0


def test_it_prints_with_its_samples_and_plots(opened, tmp_path):
    opened.pdf(path=tmp_path / "report.pdf", format="A4")
    opened.emulate_media(media="print")
    opened.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert opened.locator("#gallery .item").count() == 60
    assert opened.locator("figure.chart svg.plot").count() == opened.locator("figure.chart").count()
    assert not opened.locator("#filters").is_visible()
    opened.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert (tmp_path / "report.pdf").stat().st_size > 10_000


def test_hostile_names_and_texts_are_only_ever_text(tmp_path, watched):
    suspects, texts = hostile_suspects()
    title = HOSTILE[0] + HOSTILE[4]
    report = build_report(title=title, audit=AuditInput(suspects, None, texts), sentences=HOSTILE)
    write_page(report, tmp_path / "report.html")
    page = watched().open((tmp_path / "report.html").as_uri())
    assert page.title().startswith("<script>window.pwned = 1</script>")
    for row in range(0, 48, 5):
        page.evaluate("() => document.getElementById('gallery').focus()")
        page.locator("#gallery").press("Home")
        for _ in range(row):
            page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        page.wait_for_selector("#detail[open]")
        page.keyboard.press("Escape")
    page.locator("#as-rows").click()
    for figure in page.locator("figure.chart").all():
        figure.scroll_into_view_if_needed()
        figure.locator("svg.plot").wait_for()
    assert page.evaluate("window.pwned === undefined")
    assert page.locator("#gallery script, #gallery img, #detail script, #detail img, main script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_long_id_is_cut_on_its_tile_and_whole_on_a_click(tmp_path, watched):
    suspects, texts = hostile_suspects()
    write_page(build_report(title="t", audit=AuditInput(suspects, None, texts)), tmp_path / "report.html")
    page = watched().open((tmp_path / "report.html").as_uri())
    page.locator("#filters [name=text]").fill("xxxxxxxxxx 10")
    wait_for_count(page, "1 of 48 samples")
    page.locator("#as-rows").click()
    item = page.locator("#gallery .item").first
    assert item.bounding_box()["height"] == 52
    item.click()
    assert len(page.locator("#detail dd").first.inner_text()) > 10_000


def test_a_formula_is_no_formula_in_the_download(tmp_path, watched):
    ids = ['=HYPERLINK("x","y")', "-1+2", 'plain, with "quotes"\nand a line']
    suspects = audit(make_table([0, 1, 0], [0, 1, 1], [3.0, 2.0, -1.0], ids=ids))
    write_page(build_report(title="t", audit=AuditInput(suspects)), tmp_path / "report.html")
    page = watched().open((tmp_path / "report.html").as_uri())
    page.locator("#gallery").focus()
    for _ in range(3):
        page.keyboard.press("m")
        page.keyboard.press("ArrowDown")
    wait_for_count(page, "3 of 3 samples, 3 marked")
    with page.expect_download() as download:
        page.locator("#download").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_bytes().decode("utf-8"), newline="")))
    assert [row["id"] for row in rows] == [f"'{ids[0]}", f"'{ids[1]}", ids[2]]
    assert [(row["row"], row["difficulty"]) for row in rows] == [("0", "3"), ("1", "2"), ("2", "-1")]


def test_fifty_thousand_samples_are_interactive_within_two_seconds(tmp_path, watched):
    count = 50_000
    generator = np.random.default_rng(0)
    labels = generator.integers(10, size=count)
    nearest = np.where(generator.random(count) < 0.1, (labels + 1) % 10, labels)
    table = make_table(labels, nearest, generator.normal(size=count), ids=[f"train:{row:06d}" for row in range(count)])
    report = build_report(title="large", audit=AuditInput(audit(table), None, make_images(table.ids, (32, 32))))
    assert write_page(report, tmp_path / "report.html") < 15_000_000
    times = []
    for _ in range(3):  # the machine may be busy with other tests: the best of three
        one = watched().open((tmp_path / "report.html").as_uri())
        times.append(one.evaluate("performance.getEntriesByName('interactive')[0].startTime"))
    assert min(times) < 2000
    assert one.locator("#gallery .item").count() < 200  # only what is in view is drawn
    one.locator("#gallery").evaluate("gallery => { gallery.scrollTop = gallery.scrollHeight; }")
    one.wait_for_selector("#gallery [aria-posinset='50000']")
    search = """async () => {
      const start = performance.now();
      document.querySelector('#filters [name=text]').value = 'train:0123';
      document.querySelector('#filters [name=suspects]').click();
      const count = document.getElementById('count');
      while (!count.textContent.match(/^[0-9]+ of/)) await new Promise(requestAnimationFrame);
      return performance.now() - start;
    }"""
    assert one.evaluate(search) < 1000
