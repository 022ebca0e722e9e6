"""MLflow's pages of a study, in a real browser; screenshots are in each test's folder."""

import re
import statistics

import pytest
from mlflow import MlflowClient
from pages import Pages, Served
from tracked_study import LEARNING_RATES, PARAMETERS, QUESTION, REACHED, SEEDS, STUDY

from ftlab.tracking.palette import COLOURS

CELLS = [f"{technique} on bbc from minilm" for technique in REACHED]
CURVES = f"{STUDY}, learning curves"


def rgb(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgb({red}, {green}, {blue})"


def test_study_page__the_aggregates_of_the_store_with_the_runs_nested(
    pages: Pages, ui: Served, store: str
) -> None:
    pages.open(ui.addresses[STUDY], width=2600)  # the grid makes no cells that are out of sight
    rows = pages.wait_for_rows(len(CELLS))
    assert list(rows) == CELLS
    client = MlflowClient(store)
    stored = {run.info.run_name: run.data.metrics for run in client.search_runs(["1"])}
    for name, technique in zip(CELLS, REACHED, strict=True):
        shown = {column: text for column, text in rows[name].items() if "metrics" in column}
        assert float(shown["metrics.`test/accuracy.mean`"]) == pytest.approx(
            statistics.fmean(REACHED[technique]), rel=1e-11)
        for column, text in shown.items():
            value = stored[name].get(column.split("`")[1])
            assert text == "-" if value is None else float(text) == value, (name, column)
        assert float(shown["metrics.`cost/trainable_parameters.mean`"]) == PARAMETERS[technique]
    ranks = [rows[name]["metrics.`rank`"] for name in CELLS]
    assert ranks == ["1", "3", "2", "-"]
    std = float(rows[CELLS[0]]["metrics.`test/accuracy.std`"])
    assert std == pytest.approx(statistics.stdev(REACHED["full"]), rel=1e-11)

    pages.unfold(CELLS[2])
    rows = pages.wait_for_rows(len(CELLS) + len(SEEDS))
    nested = [f"lora seed {seed}" for seed in SEEDS]
    assert list(rows) == [*CELLS[:3], *nested, *CELLS[3:]]
    assert [float(rows[n]["metrics.`test/accuracy`"]) for n in nested] == list(REACHED["lora"])
    pages.shot("study")


def test_study_page__hyperparameters_sort_as_numbers(pages: Pages, ui: Served) -> None:
    pages.open(ui.addresses[STUDY], width=2600)
    pages.wait_for_rows(len(CELLS))
    wanted = sorted(CELLS, key=lambda name: LEARNING_RATES[name.split()[0]])
    assert wanted != CELLS
    heading = "//div[@col-id='metrics.`param/lr`']//span[text()='param/lr']"
    pages.click(heading)
    pages.until(lambda: [*pages.rows()][:4] in (wanted, wanted[::-1]), "sorted by rate")
    first = [*pages.rows()][:4]
    pages.click(heading)
    pages.until(lambda: [*pages.rows()][:4] not in (first, []), "the other way round")
    rates = [float(row["metrics.`param/lr`"]) for row in [*pages.rows().values()][:4]]
    assert rates in (sorted(rates), sorted(rates, reverse=True))
    assert set(rates) == set(LEARNING_RATES.values())


def test_study_page__the_description_is_the_table(pages: Pages, ui: Served) -> None:
    pages.open(ui.addresses[STUDY])
    pages.see(QUESTION)
    pages.click("//button[@data-component-id='mlflow.experiment.metadata_editor.expand_button']")
    pages.see("85.00 ± 4.58 (3)", "ftlab run STUDY")
    cells = [cell.text.strip() for cell in pages.all("table tbody tr td:first-child")]
    assert cells == ["full", "probe", "lora", "lora16 [1]"]
    pages.shot("description")


def test_compare__two_cells_side_by_side_with_a_chart(pages: Pages, ui: Served) -> None:
    pages.open(ui.addresses[STUDY])
    pages.wait_for_rows(len(CELLS))
    pages.tick(CELLS[0])
    pages.tick(CELLS[2])
    pages.click("//button[normalize-space()='Compare']")
    pages.see("Comparing 2 Runs from 1 Experiment", CELLS[0], CELLS[2])
    chart = ".js-plotly-plot .parcoords"
    pages.until(lambda: pages.all(chart), "the chart")
    titles = [title.text for title in pages.all(f"{chart} .axis-title")]
    assert titles == ["technique.init_args.lr", "technique.init_args.rank", "test/accuracy.mean"]
    pages.shot("compare")


def test_charts__what_the_table_says_comes_first(pages: Pages, ui: Served) -> None:
    pages.open(ui.addresses[STUDY] + "&compareRunsMode=CHART")
    drawn = ".js-plotly-plot .bars .point"
    pages.until(lambda: len(pages.all(drawn)) >= len(CELLS), "the bars")
    first = pages.all(".js-plotly-plot")[0]
    bars = first.find_elements("css selector", ".bars .point")[::-1]  # drawn from the bottom
    fills = [bar.find_element("css selector", "path").value_of_css_property("fill") for bar in bars]
    assert fills == [rgb(colour) for colour in COLOURS[: len(CELLS)]]
    values = [float(bar.text) for bar in bars]
    assert values == [round(statistics.fmean(reached), 2) for reached in REACHED.values()]
    assert "No charts in this section" not in pages.text()
    pages.shot("charts")


def test_curves__every_run_in_its_techniques_colour(pages: Pages, ui: Served) -> None:
    pages.open(ui.addresses[CURVES])
    ours = f"{STUDY}: how its runs learned"
    titles = pages.until(lambda: [line.split(" (")[0] for line in pages.text().splitlines()
                                  if line.startswith((ours, "a_later"))], "the sections")
    assert titles[0] == ours, "those of metrics that came later stand below"
    assert "a_later" in titles
    ran = sum(map(len, REACHED.values()))
    lines = ".js-plotly-plot .scatterlayer .trace path.js-line"
    pages.until(lambda: len(pages.all(lines)) >= 3 * ran, "the lines")
    chart = pages.all(".js-plotly-plot")[0]
    first = chart.find_elements("css selector", ".scatterlayer path.js-line")
    colours = [line.value_of_css_property("stroke") for line in first]
    once = colours.count(rgb(COLOURS[3]))  # of the cell with one run; MLflow draws a line twice
    assert {colour: colours.count(colour) / once for colour in colours} == {
        rgb(COLOURS[place]): len(reached) for place, reached in enumerate(REACHED.values())}
    assert "No charts in this section" not in pages.text()
    pages.shot("curves")


def test_cell_page__where_it_stands_and_the_figure(pages: Pages, ui: Served) -> None:
    pages.open(ui.addresses[STUDY], width=700)
    pages.wait_for_rows(len(CELLS))
    pages.shot("narrow")
    pages.driver.set_window_size(1400, 1040)
    pages.click(f"//a[normalize-space()='{CELLS[2]}']")
    pages.see("Rank 2 of 3", "Show more")
    pages.click("//*[text()='Show more']")
    first = [cell.text.strip() for cell in pages.all("table tbody tr td:first-child")]
    assert [text for text in first if text in (*REACHED, "► lora", "lora16 [1]")] == [
        "full", "probe", "► lora", "lora16 [1]"]
    pages.shot("cell")
    pages.click("//*[@role='tab'][text()='Artifacts']")
    pages.click("//*[text()='figures']")
    pages.click("//*[text()='scores.png']")
    pages.until(lambda: pages.driver.execute_script(
        "return [...document.images].some(image => image.naturalWidth > 500)"), "the figure")
    pages.shot("figure")


def test_pages__name_no_script_that_failed(pages: Pages, ui: Served) -> None:
    pages.open(ui.addresses[STUDY])
    pages.wait_for_rows(len(CELLS))
    severe = [entry["message"] for entry in pages.driver.get_log("browser")
              if entry["level"] == "SEVERE"]
    assert [m for m in severe if not re.search(r"users/current|gateway|favicon", m)] == []
