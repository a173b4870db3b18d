"""The page in a real browser: it works without errors and requests, and no text of a run acts."""

import json
import random
import time

import pytest
from browser import complaints, headless, opened, require_browser
from report_runs import answers, collapsed, healthy, write_run
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from lsp_lightning.reporting.page import page
from lsp_lightning.reporting.reading import read_runs

HOSTILE = [
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1><svg onload=window.pwned=1>",
    '<a href="javascript:window.pwned=1">x</a>',
    "a\u202eb\x00c\ud800d\u200be\r\nf",
    "{{ 7 * 7 }} {% raw %} ${7*7} <!--",
    "x" * 1_000_000,
]


@pytest.fixture(scope="module")
def browser():
    require_browser()
    with headless() as found:
        yield found


def written(folder, *runs, rows=12_000):
    out = folder / "page.html"
    out.write_text(page(read_runs([str(run) for run in runs]), rows), encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    rows = [
        row
        for t in range(60)
        for row in [
            *answers(t, f"query {t} of <b>sums</b>", ["one", "two" if t == 7 else "three"]),
            *answers(t, f"other {t}", ["x"], **{"query/verifiable/malformed": t > 30}),
        ]
    ]
    good = write_run(folder / "healthy", healthy, rows=rows)
    players = ["base", "<a href='javascript:window.pwned=1'>last</a>"]
    game = {"players": players, "solve_rate": [[0.5, None], [0.25, 1.0]]}
    (good / "crossplay.json").write_text(json.dumps(game))
    bad = write_run(folder / "collapsed", collapsed, heldout=(0.8, 0.6))
    return written(folder, good, bad)


@pytest.fixture
def shown(browser, two_runs):
    """The page of two runs, freshly opened."""
    opened(browser, two_runs)
    complaints(browser)
    return browser


def texts(browser, selector):
    # by script: WebDriver gives no text of what is scrolled away
    script = "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)"
    return browser.execute_script(script, selector)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
    return found


def queries(browser):
    return texts(browser, "#list .query .start")


def search(browser, text):
    before = texts(browser, "#count")
    field = browser.find_element(By.ID, "search")
    field.clear()
    field.send_keys(text)
    wait_for(lambda: texts(browser, "#count") != before)


def draw_everything(browser):
    browser.execute_script(
        "document.querySelectorAll('details').forEach(d => { d.open = true; });"
        "window.dispatchEvent(new Event('beforeprint'));"
    )


def test_a_collapsed_run_is_told_from_a_healthy_one_at_the_top_of_the_page(shown):
    assert texts(shown, ".headline") == ["improved", "collapsed"]
    for verdict in shown.find_elements(By.CSS_SELECTOR, ".headline, .problems"):
        assert verdict.location["y"] + verdict.size["height"] < 500


def test_all_charts_are_drawn_without_errors_and_requests(shown):
    draw_everything(shown)
    assert complaints(shown) == []
    drawn = shown.execute_script(
        "return [...document.querySelectorAll('[data-chart], [data-heat]')]"
        ".map(e => e.dataset.drawn === 'yes' && e.querySelector('.main-svg') !== null)"
    )
    assert len(drawn) == 14
    assert all(drawn)
    assert shown.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert "50.0% ± 2.0%" in " ".join(texts(shown, ".scores"))


def test_a_page_of_this_policy_can_load_and_run_nothing_else(shown):
    """The control of the test above: what a text that escaped would try is refused."""
    refused = shown.execute_async_script("""
        const done = arguments[0], found = [];
        document.addEventListener("securitypolicyviolation", e => found.push(e.effectiveDirective));
        fetch("http://127.0.0.1:9/").catch(() => 0);
        const image = new Image(); image.src = "http://127.0.0.1:9/a.png";
        const script = document.createElement("script");
        script.textContent = "window.pwned=1";
        document.body.append(script);
        const place = document.createElement("div");
        place.innerHTML = "<b onclick='window.pwned=1'>x</b>"; document.body.append(place);
        place.firstChild.click();
        setTimeout(() => done(found.sort()), 300);
    """)
    assert {"connect-src", "img-src", "script-src-elem", "script-src-attr"} <= set(refused)
    assert shown.execute_script("return window.pwned") is None


def test_buttons_hide_and_show_a_run_and_a_player_in_all_charts(shown):
    def lines(title):
        script = """
            const figure = [...document.querySelectorAll("figure")].find(
              f => f.querySelector("b").textContent === arguments[0]);
            return [...figure.querySelectorAll(".js-line")].length;
        """
        return shown.execute_script(script, title)

    draw_everything(shown)
    assert (lines("Entropy"), lines("Reward R")) == (4, 2)
    by_name = {b.text: b for b in shown.find_elements(By.CSS_SELECTOR, "#toggles button")}
    assert list(by_name)[:2] == ["healthy", "collapsed"]
    by_name["collapsed"].click()
    wait_for(lambda: (lines("Entropy"), lines("Reward R")) == (2, 1))
    assert by_name["collapsed"].get_attribute("aria-pressed") == "false"
    by_name["Challenger"].click()
    wait_for(lambda: lines("Entropy") == 1)
    by_name["collapsed"].send_keys(Keys.ENTER)  # also by keyboard
    by_name["Challenger"].send_keys(Keys.SPACE)
    wait_for(lambda: (lines("Entropy"), lines("Reward R")) == (4, 2))
    assert complaints(shown) == []


def test_search_finds_in_queries_and_answers(shown):
    assert texts(shown, "#count") == ["120 of 120 queries"]
    search(shown, "TWO")
    assert queries(shown) == ["query 7 of <b>sums</b>"]
    assert texts(shown, "#detail mark") == ["two"]
    search(shown, "<b>sums")
    assert texts(shown, "#count") == ["60 of 120 queries"]
    search(shown, "nothing like this")
    assert queries(shown) == []
    assert texts(shown, "#list") == ["No query matches."]


def test_filters_and_orders(shown):
    def set_field(name, value):
        shown.execute_script(
            "const f = document.getElementById(arguments[0]); f.value = arguments[1];"
            "f.dispatchEvent(new Event('change', {bubbles: true}));"
            "f.dispatchEvent(new Event('input', {bubbles: true}));",
            name,
            value,
        )

    set_field("from", "58")
    wait_for(lambda: len(queries(shown)) == 4)
    set_field("sort", "hard")
    wait_for(lambda: queries(shown)[0].startswith("query"))  # half of the answers are right
    set_field("from", "")
    set_field("low", "0.9")
    wait_for(lambda: texts(shown, "#count") == ["60 of 120 queries"])
    set_field("mark", "malformed")
    wait_for(lambda: texts(shown, "#count") == ["29 of 120 queries"])
    assert set(texts(shown, "#list .tag")) == {"malformed"}
    set_field("mark", "all queries")
    set_field("low", "")
    set_field("sort", "last")
    wait_for(lambda: texts(shown, "#list .query .round")[0] == "59")
    set_field("run", "1")
    wait_for(lambda: texts(shown, "#count") == ["60 of 60 queries"])


def test_a_click_opens_the_answers_with_all_scores_and_keys_move_on(shown):
    shown.find_elements(By.CSS_SELECTOR, "#list .query")[2].click()
    assert texts(shown, "#detail .asked") == ["query 1 of <b>sums</b>"]
    assert texts(shown, "#detail .answer .text") == ["one", "three"]
    assert texts(shown, "#detail .answer .figures") == [
        "rightR 1.00Q -verifiable 1.000",
        "wrongR 0.00Q -verifiable 0.000",
    ]
    assert "verifiable/family sums" in texts(shown, "#detail .figures")[0]
    listed = shown.find_element(By.ID, "list")
    listed.send_keys(Keys.ARROW_DOWN)
    assert texts(shown, "#detail .asked") == ["other 1"]
    listed.send_keys(Keys.END)
    assert texts(shown, "#detail .asked") == ["other 59"]
    assert texts(shown, '[aria-selected="true"] .start') == ["malformedother 59"]
    listed.send_keys("/")
    assert shown.switch_to.active_element.get_attribute("id") == "search"
    assert complaints(shown) == []


@pytest.mark.parametrize("media", [("prefers-color-scheme", "dark"), ("print", "")])
def test_dark_mode_and_print_are_legible(shown, media):
    name, value = media
    command = {"media": name} if not value else {"features": [{"name": name, "value": value}]}
    shown.execute_cdp_cmd("Emulation.setEmulatedMedia", command)
    try:
        back, text = shown.execute_script(
            "const s = getComputedStyle(document.querySelector('.verdict'));"
            "return [s.backgroundColor, s.color].map(c => c.match(/\\d+/g).slice(0, 3).map(Number))"
        )
        assert abs(sum(back) - sum(text)) > 3 * 150
        assert (sum(back) < sum(text)) == (value == "dark")
    finally:
        shown.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


@pytest.mark.parametrize("width", [1000, 1600])
def test_nothing_is_wider_than_the_window(shown, width):
    shown.set_window_size(width, 900)
    draw_everything(shown)
    wait_for(lambda: shown.execute_script("return document.documentElement.scrollWidth") <= width)


def test_hostile_texts_do_nothing_and_are_shown(browser, tmp_path):
    rows = [row for i, text in enumerate(HOSTILE) for row in answers(i, text, [text, "b"])]
    storable = [row for row in rows if "\ud800" not in row["query"]]
    name = "<img src=x onerror=window.pwned=1>"
    metrics = {f"reward/{name}": 1.0, f"queries/{name}/malformed": 0.9}
    run = write_run(tmp_path / name, lambda share: {**healthy(share), **metrics}, rows=storable)
    # half of a surrogate pair cannot be in a Parquet file, but in JSON
    odd = [row for row in rows if "\ud800" in row["query"]]
    lines = "".join(json.dumps(row) + "\n" for row in odd)
    (run / "transcripts" / "open.jsonl").write_text(lines)
    out = written(tmp_path, run, write_run(tmp_path / "other"))
    assert out.stat().st_size < 6_000_000
    opened(browser, out)
    draw_everything(browser)
    shown = {}
    for row in browser.find_elements(By.CSS_SELECTOR, "#list .query"):
        browser.execute_script("arguments[0].click()", row)
        asked = texts(browser, "#detail .asked")[0]
        shown[asked] = texts(browser, "#detail .answer .text")[0]
    assert all(answer == query for query, answer in shown.items())
    assert {HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[4]} <= set(shown)
    assert "a\\u202eb\\x00c\\ud800d\\u200be\nf" in shown
    assert any(text.endswith("... (998,000 more)") for text in shown)
    search(browser, "onerror")
    assert len(queries(browser)) == 1
    assert browser.execute_script("return window.pwned") is None
    tags = "img, main script, svg[onload], a[href^=javascript]"
    script = "return document.querySelectorAll(arguments[0]).length"
    assert browser.execute_script(script, tags) == 0
    assert complaints(browser) == []


@pytest.mark.slow
def test_a_hundred_thousand_answers_stay_small_and_open_quickly(browser, tmp_path):
    words = random.Random(0).choices([f"word{i}" for i in range(5000)], k=100_060)
    rows = [
        {**row, "number": n}
        for t in range(1000)
        for n in range(25)
        for row in answers(t, f"query {t} {n}")
    ]
    for i, row in enumerate(rows):
        row["answer"] = " ".join(words[i : i + 60])
    assert len(rows) == 100_000
    out = written(tmp_path, write_run(tmp_path / "run", rounds=1000, rows=rows))
    assert out.stat().st_size < 15_000_000
    assert opened(browser, out) < 3  # of the processor: other programs may slow it down
    assert "12,000 of 100,000 answers" in " ".join(texts(browser, "#queries .about"))
    search(browser, "query 999 24")
    assert queries(browser) == ["query 999 24"]
    assert complaints(browser) == []
