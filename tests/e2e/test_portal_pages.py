"""The pages in headless Chromium: they open without a console error, the brain is really drawn, keys suffice."""

import io
import socket
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from brainlocus.portal.app import BUNDLE, create_app
from tests.portal_study import write_study

CHROMIUM = Path("/usr/bin/chromium")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.skipif(not CHROMIUM.exists(), reason="chromium is not installed (make test-deps)"),
    pytest.mark.skipif(not (BUNDLE / "index.html").exists(), reason="the pages are not built (python hatch_build.py)"),
]

GRAPHICS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
FIRST_BRAIN_MS = 60_000


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_study(tmp_path_factory.mktemp("store") / "study", genes=True)


@pytest.fixture(scope="module")
def address(study):
    import uvicorn

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = uvicorn.Server(uvicorn.Config(create_app(study.path), port=port, log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(timeout=10)


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        yield lambda *extra: driver.chromium.launch(
            executable_path=str(CHROMIUM), headless=True, args=[*GRAPHICS, "--no-sandbox", *extra]
        )


@pytest.fixture(scope="module")
def browser(chromium):
    opened = chromium()
    yield opened
    opened.close()


class Watched:
    """A page that remembers every error and every request that leaves the origin."""

    def __init__(self, browser, address, **context):
        self.context = browser.new_context(viewport={"width": 1280, "height": 900}, **context)
        self.page = self.context.new_page()
        self.address = address
        self.problems = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda m: self.problems.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("request", self._check)

    def _check(self, request):
        if not request.url.startswith((self.address, "data:", "blob:")):
            self.problems.append(f"left the origin: {request.url}")

    def open(self, path):
        self.page.goto(self.address + path)
        self.page.wait_for_selector("h1")
        self.page.wait_for_load_state("networkidle")
        return self.page


@pytest.fixture
def watched(browser, address):
    opened = Watched(browser, address)
    yield opened
    opened.context.close()
    assert opened.problems == []


def wait_for_brain(page):
    page.wait_for_selector("canvas[data-ready=true]", timeout=FIRST_BRAIN_MS)
    page.wait_for_timeout(400)


def pixels(page, locator):
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(page.locator(locator).first.screenshot())).convert("RGB")).astype(int)


def share_near(image, rgb, tolerance=40):
    return float((np.abs(image - np.asarray(rgb)).max(-1) <= tolerance).mean())


def test_study_page_shows_counts_brain_and_tables(watched):
    page = watched.open("/")
    assert page.title() == "Synthetic study · brainlocus"
    text = page.inner_text("main")
    for expected in ("6,000", "72,000", "Heritability", "Strongest loci", "0.71"):
        assert expected in text
    assert page.locator("table").count() == 3
    wait_for_brain(page)
    image = pixels(page, "canvas[data-ready=true]")
    assert image.var() > 500
    gl = page.evaluate(
        "() => { const gl = document.querySelector('canvas[data-ready]').getContext('webgl2');"
        " return [gl !== null, gl && gl.isContextLost()]; }"
    )
    assert gl == [True, False]


def test_painted_region_has_its_colour_and_the_background_none(watched, study):
    """The chosen region is orange in the picture, its corner black, and another region's page looks different."""
    page = watched.open("/region/C12_4")
    wait_for_brain(page)
    image = pixels(page, "canvas[data-ready=true]")
    assert share_near(image, (240, 140, 30), 60) > 0.01
    assert share_near(image[6:20, 6:20], (0, 0, 0), 8) == 1.0
    assert share_near(image, (0, 0, 0), 8) > 0.4, "the background is painted"
    other = watched.open("/region/C12_9")
    wait_for_brain(other)
    assert (pixels(other, "canvas[data-ready=true]") != image).any(-1).mean() > 0.01


def test_colour_switch_repaints_and_is_in_the_address(watched):
    page = watched.open("/")
    wait_for_brain(page)
    before = pixels(page, "canvas[data-ready=true]")
    page.get_by_label("Colour").select_option("identity")
    page.wait_for_timeout(800)
    assert "colour=identity" in page.url
    assert (pixels(page, "canvas[data-ready=true]") != before).any(-1).mean() > 0.05


def test_clicking_a_voxel_selects_its_region(watched):
    page = watched.open("/")
    wait_for_brain(page)
    assert page.locator(".chosen a").count() == 0
    box = page.locator("canvas[data-ready=true]").bounding_box()
    # The upper left tile is coronal; a third of its height down and off the middle is inside the ring of regions.
    page.mouse.click(box["x"] + 0.29 * box["width"], box["y"] + 0.16 * box["height"])
    page.wait_for_selector(".chosen a")
    assert page.locator(".chosen a").first.get_attribute("href").startswith("/region/C12_")


def test_phenotype_page(watched, study):
    page = watched.open("/phenotype/C12_3")
    page.wait_for_selector("[data-plot='manhattan-C12_3']")
    text = page.inner_text("main")
    assert "Grey matter, region 3 of 12" in text
    assert "hidden" in text  # a count of 6 cases
    top = study.variants.variant_id[int(np.argmax(study.scans[2]["neg_log10_p"]))]
    assert str(top) in text
    for plot in ("manhattan-C12_3", "qq-C12_3"):
        assert pixels(page, f"[data-plot='{plot}'] canvas").var() > 20
    page.locator("figure", has=page.locator("[data-plot='qq-C12_3']")).get_by_text("Show as table").click()
    assert page.locator("figure table tbody tr").count() > 100
    wait_for_brain(page)


def test_variant_page_paints_what_was_planted(watched, study):
    row = int(np.argmax(study.scans[2]["neg_log10_p"]))
    page = watched.open(f"/variant/{study.variants.variant_id[row]}")
    wait_for_brain(page)
    assert share_near(pixels(page, "canvas[data-ready=true]"), (140, 55, 0), 70) > 0.005
    assert "2 of 12 phenotypes pass" in page.inner_text("main")


def test_a_lowering_variant_is_blue_and_the_rest_pale(watched, study):
    """The scale is symmetric about zero even when no value is near its upper end."""
    row = int(np.argmax(study.scans[5]["neg_log10_p"]))
    assert study.scans[5]["beta"][row] < 0
    page = watched.open(f"/variant/{study.variants.variant_id[row]}")
    wait_for_brain(page)
    image = pixels(page, "canvas[data-ready=true]")
    assert share_near(image, (0, 40, 130), 60) > 0.005
    strong_orange = (image[..., 0] - image[..., 2] > 110) & (image[..., 0] > 120)
    assert strong_orange.mean() < 0.002


def test_locus_page_zooms(watched, study):
    row = study.planted[2]
    chromosome, position = study.variants.chromosome[row], int(study.variants.position[row])
    page = watched.open(f"/locus/{chromosome}-{position - 400_000}-{position + 400_000}?phenotype=C12_4")
    page.wait_for_selector("[data-plot^=locus]")
    assert {"C12_3", "C12_4"} <= set(page.locator("section table td:first-child").all_inner_texts())
    before = page.url
    page.get_by_label("Zoom in").click()
    page.wait_for_url(lambda url: url != before)
    page.wait_for_selector("[data-plot^=locus]")
    assert "phenotype=C12_4" in page.url


def test_gene_page_paints_what_was_planted(watched):
    """LOCUS1 raises regions 3 and 4: they are orange, and the table names them alone."""
    page = watched.open("/gene/LOCUS1")
    assert page.inner_text("h1") == "LOCUS1"
    wait_for_brain(page)
    assert share_near(pixels(page, "canvas[data-ready=true]"), (140, 55, 0), 70) > 0.005
    rows = page.locator("section[aria-labelledby='table-title'] tbody tr")
    names = {text.split("\t")[0] for text in rows.all_inner_texts()}
    assert names == {"Grey matter, region 3 of 12", "Grey matter, region 4 of 12"}
    text = page.inner_text("main")
    for expected in ("5 of 5 tissues", "FDR q ≤ 0.05 over the whole study", "Expression models"):
        assert expected in text
    assert pixels(page, "[data-plot^='gene-ENSG'] canvas").var() > 20


def test_gene_page_filters_are_in_the_address(watched):
    page = watched.open("/gene/LOCUS2")
    page.wait_for_selector("[data-plot^='gene-ENSG']")
    assert "8 at FDR q" in page.inner_text("section[aria-labelledby='phenotypes-title']")
    page.get_by_role("combobox", name="Tissue", exact=True).select_option("Liver")
    page.wait_for_url("**tissue=Liver**")
    cells = "section[aria-labelledby='table-title'] tbody tr td:nth-child(3)"
    page.wait_for_selector(f"{cells}:has-text('Liver')")
    assert set(page.locator(cells).all_inner_texts()) == {"Liver"}
    page.get_by_role("combobox", name="Significance", exact=True).select_option("nominal")
    page.wait_for_url("**scope=nominal**")
    page.wait_for_selector("section[aria-labelledby='phenotypes-title']:has-text('at p ≤ 0.05')")
    page.reload()
    page.wait_for_selector("[data-plot^='gene-ENSG']")
    assert page.get_by_role("combobox", name="Tissue", exact=True).input_value() == "Liver"
    page.get_by_role("button", name="Clear").click()
    page.wait_for_selector("section[aria-labelledby='phenotypes-title']:has-text('8 at FDR q')")
    assert "?" not in page.url


def test_heat_map_of_tissues_shows_its_colours_and_its_numbers(watched, study):
    page = watched.open("/gene/LOCUS2")
    page.wait_for_selector("[data-plot^='tissues-']")
    image = pixels(page, "[data-plot^='tissues-'] canvas")
    blue = (image[..., 2] - image[..., 0] > 60).mean()
    orange = (image[..., 0] - image[..., 2] > 60).mean()
    assert blue > 0.02, "LOCUS2 lowers what it touches"
    assert orange < blue / 20
    figure = page.locator("figure", has=page.locator("[data-plot^='tissues-']"))
    figure.get_by_text("Show as table").click()
    cells = figure.locator("table tbody tr").first.locator("td").all_inner_texts()
    tests = study.genes.tests
    strongest = float(tests.z[tests.gene == 2].min())
    assert min(float(c) for c in cells[1:] if c != "–") == pytest.approx(strongest, abs=2e-3)
    page.locator("[data-plot^='tissues-']").focus()
    page.keyboard.press("Home")
    said = figure.locator("[aria-live=polite]").inner_text()
    assert "z =" in said
    page.keyboard.press("Enter")
    page.wait_for_url("**/phenotype/TBSS_**")
    page.wait_for_selector("[data-plot^='genes-']")
    assert "+crus_(" in page.inner_text("main")


def test_from_a_phenotype_to_a_gene_and_from_the_search(watched):
    page = watched.open("/phenotype/C12_3")
    page.wait_for_selector("[data-plot^='genes-']")
    table = page.locator("section[aria-labelledby='genes-title'] table")
    assert table.locator("tbody tr").count() == 5
    table.locator("a", has_text="LOCUS1").first.click()
    page.wait_for_url("**/gene/ENSG**")
    page.wait_for_selector("h1")
    page.keyboard.press("/")
    page.keyboard.type("locus2")
    page.wait_for_selector("[role=option]")
    page.keyboard.press("Enter")
    page.wait_for_url("**/gene/ENSG00000001014**")
    page.wait_for_function("() => document.querySelector('h1')?.textContent === 'LOCUS2'")


def test_study_page_lists_genes(watched):
    page = watched.open("/")
    panel = page.locator("section[aria-labelledby='genes-title']")
    assert panel.locator("tbody tr").first.inner_text().startswith("LOCUS1")
    panel.get_by_label("Filter").fill("locus2")
    page.wait_for_load_state("networkidle")
    page.wait_for_selector("section[aria-labelledby='genes-title'] tbody tr:first-child:has-text('LOCUS2')")
    assert all(t.startswith("LOCUS2") for t in panel.locator("tbody tr").all_inner_texts())


@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("path", ["/", "/gene/LOCUS2", "/phenotype/C12_3"])
def test_no_page_is_wider_than_the_window(browser, address, path, width):
    opened = Watched(browser, address)
    opened.page.set_viewport_size({"width": width, "height": 900})
    page = opened.open(path)
    page.wait_for_timeout(300)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    opened.context.close()
    assert opened.problems == []


def test_missing_things_say_so(browser, address):
    opened = Watched(browser, address)
    page = opened.open("/nothing/here")
    assert "no such page" in page.inner_text("main")
    page.goto(address + "/phenotype/C12_33")
    page.wait_for_selector("[role=alert]")
    assert "C12_3" in page.inner_text("[role=alert]")
    page.goto(address + "/gene/LOCUS")
    page.wait_for_selector("[role=alert]")
    assert "Did you mean LOCUS" in page.inner_text("[role=alert]")
    page.goto(address + "/locus/1-x")
    page.wait_for_selector("[role=alert]")
    opened.context.close()
    # The failed request itself is reported by the browser; nothing else is.
    assert all("404" in problem for problem in opened.problems), opened.problems


def test_keyboard_alone_reaches_variant(watched, study):
    """Search, open a phenotype, pick a point, open its locus, open the variant: without a mouse."""
    page = watched.open("/")
    page.keyboard.press("/")
    page.keyboard.type("region 3 of")
    page.wait_for_selector("[role=option]")
    page.keyboard.press("Enter")
    page.wait_for_url("**/phenotype/C12_3")
    page.wait_for_selector("[data-plot='manhattan-C12_3']")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement?.dataset?.plot ?? ''") == "manhattan-C12_3":
            break
    assert page.locator("[data-plot='manhattan-C12_3'][role=application]").count() == 1
    page.keyboard.press("ArrowDown")  # the strongest point
    assert "p =" in page.locator("[aria-live=polite]", has_text="p =").first.inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url("**/locus/**")
    page.wait_for_selector("[data-plot^=locus]")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement?.dataset?.plot ?? ''").startswith("locus"):
            break
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/variant/**")
    top = study.variants.variant_id[int(np.argmax(study.scans[2]["neg_log10_p"]))]
    page.wait_for_selector("h1")
    assert page.inner_text("h1") == str(top)


def test_theme_switch_is_kept(watched):
    page = watched.open("/")
    light = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    page.get_by_text("Dark theme").click()
    dark = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert dark != light
    page.reload()
    page.wait_for_selector("h1")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") == dark


def luminance(rgb):
    channels = [c / 255 for c in rgb]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast(browser, address, theme):
    """WCAG 2.2 1.4.3: at least 4.5 between every text colour and the surfaces it lies on."""
    opened = Watched(browser, address, color_scheme=theme)
    page = opened.open("/")
    values = page.evaluate(
        "() => { const probe = document.body.appendChild(document.createElement('i'));"
        " return Object.fromEntries(['ink','muted','accent','hit','ground','surface','soft'].map(n => {"
        " probe.style.color = `var(--${n})`; return [n, getComputedStyle(probe).color.match(/[0-9]+/g).map(Number)];"
        " })); }"
    )
    colours = {name: tuple(rgb[:3]) for name, rgb in values.items()}
    for text in ("ink", "muted", "accent", "hit"):
        for surface in ("ground", "surface", "soft"):
            a, b = sorted((luminance(colours[text]), luminance(colours[surface])), reverse=True)
            assert (a + 0.05) / (b + 0.05) >= 4.5, (text, surface)
    opened.context.close()


def test_without_webgl_the_server_draws(chromium, address, study):
    plain = chromium("--disable-3d-apis")
    opened = Watched(plain, address)
    page = opened.open("/region/C12_4")
    assert page.evaluate("() => document.createElement('canvas').getContext('webgl2')") is None
    assert "graphics driver" in page.inner_text("main")
    images = page.locator(".slices img")
    assert images.count() == 3
    for k in range(3):
        assert images.nth(k).evaluate("image => image.complete && image.naturalWidth > 100")
    assert share_near(pixels(page, ".slices img"), (240, 140, 30), 60) > 0.02
    before = images.first.get_attribute("src")
    page.locator(".slices input").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert images.first.get_attribute("src") != before
    plain.close()
    assert opened.problems == []


def test_without_webgl_the_server_paints_a_gene(chromium, address):
    plain = chromium("--disable-3d-apis")
    opened = Watched(plain, address)
    page = opened.open("/gene/LOCUS1")
    page.wait_for_selector(".slices img")
    page.wait_for_load_state("networkidle")
    assert share_near(pixels(page, ".slices img"), (140, 55, 0), 70) > 0.01
    plain.close()
    assert opened.problems == []


def test_entry_is_small():
    """At most 120 KB compressed before the brain view is asked for (methods/portal.md section 4)."""
    import gzip
    import re

    html = (BUNDLE / "index.html").read_text()
    names = re.findall(r'(?:src|href)="(/assets/[^"]+)"', html)
    assert names
    size = sum(len(gzip.compress((BUNDLE / n.lstrip("/")).read_bytes())) for n in names)
    assert size <= 120_000
    assert not any("niivue" in n for n in names)
