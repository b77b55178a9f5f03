"""What every page has to keep, looked at as it stands in a real browser.

`found_on` changes theme, size and text in place: axe's rules of WCAG 2.2 A and AA and its best practices in
both themes and both sizes; targets of 44 pixels on a phone; no sideways scrolling at a width of 320 pixels,
nor with text of twice the size.
"""

from io import BytesIO
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page

LABEL_PAGE_BYTES = 60_000  # without its clips
LARGE, MIDDLE, SMALL, NARROW = (
    {"width": 1280, "height": 800},
    {"width": 720, "height": 450},  # a laptop's window at a zoom of 200 %
    {"width": 390, "height": 844},
    {"width": 320, "height": 640},
)
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RULES = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": TAGS}}
LOOKS = ((LARGE, "light"), (LARGE, "dark"), (SMALL, "light"), (SMALL, "dark"))
STILL = "* { transition: none !important; animation: none !important }"
RUN = "async options => (await axe.run(document, options)).violations"

# The ranking page lays its clips out anew once it hears of its new size, a frame or two after that.
SETTLED = """() => new Promise((done) => {
  requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done)));
})"""

# Links in the run of a sentence may be as high as its line (WCAG 2.5.8); everything else is for fingers.
TARGETS = """() => [...document.querySelectorAll(CONTROLS)].filter((one) => {
  const box = one.getBoundingClientRect();
  const seen = one.checkVisibility({ visibilityProperty: true, opacityProperty: true }) && box.width > 1;
  const words = [...one.parentElement.childNodes].filter((node) => node.nodeType === 3);
  const within = words.some((node) => node.data.trim().length > 3);
  const inSentence = one.matches('a') && one.parentElement.matches('p, small, td, li, figcaption') && within;
  return seen && !inSentence && !one.closest('[inert]') && (box.height < 43.9 || box.width < 43.9);
}).map((one) => `${one.outerHTML.slice(0, 90)} ${one.getBoundingClientRect().height}`)""".replace(
    "CONTROLS", "'a, button, summary, select, textarea, input'"
)

# What sticks out to the right of the page, where nothing scrolls it.
WIDER = """() => {
  const width = document.documentElement.clientWidth;
  const scrolled = (one) => one.closest('.scroll, .films, pre') !== null;
  const out = [...document.body.querySelectorAll('*')].filter((one) => !scrolled(one) && one.checkVisibility()
    && one.getBoundingClientRect().right > width + 1 && !one.closest('.pair, svg, .js-plotly-plot'));
  const sideways = document.scrollingElement.scrollWidth > width + 1;
  return [...out.map((one) => one.outerHTML.slice(0, 90)), ...(sideways ? ['the page itself scrolls'] : [])];
}"""

# Controls that lie over one another.
OVER = """() => {
  const all = [...document.querySelectorAll('button, select, input, summary, .button, .slot')].filter((one) =>
    one.checkVisibility({ visibilityProperty: true }) && !one.closest('[inert]')
    && one.closest('dialog') === document.querySelector('dialog[open]'));
  const boxes = all.map((one) => one.getBoundingClientRect());
  const beside = (a, b) => a.right < b.left + 2 || a.bottom < b.top + 2;
  const over = (one, other, a, b) => !beside(a, b) && !beside(b, a)
    && !one.contains(other) && !other.contains(one);
  const found = [];
  all.forEach((one, i) => all.forEach((other, j) => {
    if (i < j && over(one, other, boxes[i], boxes[j]))
      found.push(`${one.outerHTML.slice(0, 70)} over ${other.outerHTML.slice(0, 70)}`);
  }));
  return found;
}"""

# What is cut off below: a body that neither fits nor scrolls.
CUT = """() => {
  const body = document.body;
  const held = getComputedStyle(body).overflowY === 'hidden';
  const missing = body.scrollHeight - body.clientHeight;
  return held && missing > 1 ? [`${missing} pixels are cut off`] : [];
}"""


def found_on(page: Page, what: str) -> list[str]:
    """Return what is wrong with the page as it stands, each with where it was seen."""
    found: list[str] = []

    def note(where: str, problems: list[Any]) -> None:
        found.extend(f"{what}, {where}: {problem}" for problem in problems)

    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(Axe().axe_script)
        page.add_style_tag(content=STILL)

    def resize(size: dict[str, int]) -> None:
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.evaluate(SETTLED)

    for size, scheme in LOOKS:
        resize(size)
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        for one in page.evaluate(RUN, RULES):
            places = [(node["target"], node["failureSummary"]) for node in one["nodes"][:3]]
            note(f"{size['width']} {scheme}", [f"{one['id']}: {places}"])
    note("44 pixels", page.evaluate(TARGETS))
    resize(MIDDLE)
    note("720 wide", page.evaluate(WIDER) + page.evaluate(OVER))
    resize(NARROW)
    note("320 wide", page.evaluate(WIDER) + page.evaluate(CUT))
    resize(LARGE)
    page.evaluate("() => { document.documentElement.style.fontSize = '200%'; }")
    note("text of twice the size", page.evaluate(WIDER) + page.evaluate(CUT))
    page.evaluate("() => { document.documentElement.style.fontSize = ''; }")
    page.emulate_media(color_scheme="light")
    return found


def bar_is_seen_in_forced_colours(page: Page, bar: str) -> bool:
    """Return whether the filled part of a bar that is about half full differs from the rest of it there."""
    page.emulate_media(forced_colors="active")
    picture = Image.open(BytesIO(page.locator(bar).screenshot())).convert("RGB")
    page.emulate_media(forced_colors="none")
    middle = picture.height // 2
    return picture.getpixel((picture.width // 8, middle)) != picture.getpixel(
        (picture.width * 7 // 8, middle)
    )


def bytes_on_the_wire(page: Page, address: str) -> dict[str, float]:
    """Open a label page; return the bytes of everything it loads until its clips play, headers included.

    The clips themselves do not count.
    """
    session, sizes, addresses = page.context.new_cdp_session(page), dict[str, float](), dict[str, str]()

    def asked(event: dict[str, Any]) -> None:
        addresses[event["requestId"]] = event["request"]["url"]

    def loaded(event: dict[str, Any]) -> None:
        found = addresses[event["requestId"]]
        if ".mp4" not in found and found.startswith("http"):
            sizes[found] = event["encodedDataLength"]

    session.on("Network.requestWillBeSent", asked)
    session.on("Network.loadingFinished", loaded)
    session.send("Network.enable")
    page.goto(address)
    page.wait_for_selector(".pair.current.seen")
    return sizes
