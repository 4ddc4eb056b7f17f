"""The report in a real browser: what is seen, on a desk, on a phone, in the dark and on paper."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.report.write import write_report

from .chromium import Browser

pytestmark = pytest.mark.slow
WIDER = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre') && "
WIDER += (
    "e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 200))"
)
CONTRAST = """(() => {
  const parts = c => c.match(/[\\d.]+/g).map(Number);
  const linear = v => v / 255 <= .04 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const shine = c => { const [r, g, b] = parts(c).map(linear);
    return .2126 * r + .7152 * g + .0722 * b };
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (!(parts(c).length > 3 && parts(c)[3] === 0)) return c } return 'rgb(255, 255, 255)' };
  const dim = [];
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility()) continue;
    const style = getComputedStyle(e), color = e.closest('svg') ? style.fill : style.color;
    if (parts(color)[3] === 0 || e.tagName === 'title' || e.closest('head')) continue;
    const [a, b] = [shine(color), shine(behind(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) dim.push([e.tagName, e.textContent.slice(0, 40), color].join(' '));
  }
  return dim })()"""


@pytest.fixture(scope="module")
def address(swept: Path) -> str:
    return write_report(swept).as_uri()


def test_report_shows_the_recommendation_first_without_script(browser: Browser, address: str, pictures: Path) -> None:
    browser.open(address, script=False)
    browser.screenshot(pictures / "report-light.png")
    assert browser.requests == [address], "it needs no network"
    browser.open(address)
    first = "document.querySelector('.answer').getBoundingClientRect()"
    assert browser.evaluate(f"{first}.top") < 260
    text = browser.evaluate("document.querySelector('.answer').innerText")
    assert "Use lora" in text
    assert "2,069 test rows · 3 seeds" in text
    assert browser.evaluate("document.scripts.length") == 0


@pytest.mark.parametrize("dark", [False, True])
def test_report_text_has_enough_contrast(browser: Browser, address: str, pictures: Path, dark: bool) -> None:
    browser.open(address, dark=dark)
    browser.screenshot(pictures / f"report-{'dark' if dark else 'light'}-open.png")
    assert browser.evaluate(CONTRAST) == []


@pytest.mark.parametrize("width", [360, 390, 768])
def test_report_has_only_tables_wider_than_the_screen(
    browser: Browser, address: str, pictures: Path, width: int
) -> None:
    browser.open(address, width=width, height=800)
    browser.screenshot(pictures / f"report-{width}.png")
    assert browser.evaluate(WIDER) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_report_prints_on_a_few_pages(browser: Browser, address: str, pictures: Path) -> None:
    browser.open(address, dark=True, width=718, media="print")  # A4 without its margins
    browser.screenshot(pictures / "report-print.png")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 718, "nothing is cut off"
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    printed = browser.pdf(pictures / "report.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert 2 <= printed.count(b"/Type /Page\n") <= 12


def test_report_shows_markup_in_names_as_text(browser: Browser, written: Callable[..., Path], pictures: Path) -> None:
    folder = written(trials=21)
    journal = folder / "journal.jsonl"
    evil = "<script>document.title='taken'</script><img src=x onerror=document.title='taken'>"
    text = journal.read_text().replace("needs source_tasks", evil.replace('"', '\\"')).replace("ia3", "<b>ia3</b>")
    journal.write_text(text)
    browser.open(write_report(folder).as_uri())
    assert browser.evaluate("document.title").startswith("airline: lora")
    assert evil in browser.evaluate("document.body.innerText")
    assert browser.evaluate("document.querySelectorAll('script, img, b b').length") == 0


@pytest.mark.parametrize("ending", ["interrupted", "failed", ""])
def test_report_without_a_result_in_the_browser(
    browser: Browser, written: Callable[..., Path], pictures: Path, ending: str
) -> None:
    browser.open(write_report(written(ending, trials=30)).as_uri())
    browser.screenshot(pictures / f"report-{ending or 'unfinished'}.png")
    assert "No winner yet" in browser.evaluate("document.querySelector('.answer').innerText")


def test_report_of_several_tasks_in_the_browser(browser: Browser, written: Callable[..., Path], pictures: Path) -> None:
    browser.open(write_report(written(trials=112, tasks=("airline", "events"))).as_uri())
    browser.screenshot(pictures / "report-tasks.png")
    assert "One method for all tasks: lora" in browser.wait_for("One method for all tasks")
    assert browser.evaluate("document.querySelectorAll('.answer').length") == 2
