"""Ways in: dropped, pasted, picked, photographed, samples."""

import io
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Request, expect

from tests.browser.pages import SIZE_WH, expect_rows, hand_over, opened, picked, rows, until
from tests.support.pictures import gradient, turned


def test_a_picture_is_dropped_anywhere(page: Page) -> None:
    page.goto("/")
    assert hand_over(page, "dragover")
    expect(page.locator("body.is-dragging")).to_have_count(1)
    assert hand_over(page, "drop", "footer, main")
    expect_rows(page, 1)
    expect(page.locator("body.is-dragging")).to_have_count(0)
    assert rows(page).inner_text().split() == ["person", "0.9000", "100.0", "100.0", "200.0", "300.0"]


def test_a_picture_is_pasted_anywhere_but_not_out_of_a_field(page: Page) -> None:
    page.goto("/")
    assert hand_over(page, "paste")
    expect_rows(page, 1)
    assert not hand_over(page, "paste", "#conf-number"), "pasting into a field is the field's"
    expect(page.locator("#strip li")).to_have_count(1)


def test_several_files_are_sent_a_few_at_a_time(page: Page, tmp_path: Path) -> None:
    sending: set[Request] = set()
    most = 0

    def begun(request: Request) -> None:
        nonlocal most
        if request.method == "POST":
            sending.add(request)
            most = max(most, len(sending))

    page.on("request", begun)
    page.on("requestfinished", lambda request: sending.discard(request))
    picked(page, tmp_path, *(f"{number}.png" for number in range(8)))
    expect(page.locator("#strip .tile-state", has_text="1 box")).to_have_count(8)
    assert 1 <= most <= 3
    page.locator("#strip .tile").nth(5).click()
    expect(page.locator(".pane-title").first).to_contain_text("5.png")


def test_the_camera_is_asked_for_on_a_click_and_stops(page: Page) -> None:
    page.add_init_script(
        """const given = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        window.tracks = [];
        navigator.mediaDevices.getUserMedia = async (wanted) => {
            const stream = await given(wanted);
            window.tracks.push(...stream.getTracks());
            return stream;
        };"""
    )
    page.goto("/")
    page.wait_for_load_state("networkidle")
    assert page.evaluate("window.tracks.length") == 0
    page.get_by_role("button", name="Camera", exact=True).click()
    page.get_by_role("button", name="Take a picture").click()
    expect_rows(page, 1)
    assert page.evaluate("window.tracks.map((track) => track.readyState + track.kind)") == ["livevideo"]
    page.get_by_role("button", name="Stop the camera").click()
    assert page.evaluate("window.tracks[0].readyState") == "ended"
    expect(page.locator("#camera")).to_be_hidden()


def test_a_camera_that_is_refused_is_said(page: Page) -> None:
    page.add_init_script(
        "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotAllowedError'); };"
    )
    page.goto("/")
    page.get_by_role("button", name="Camera", exact=True).click()
    expect(page.locator("#camera-says")).to_contain_text("The camera was refused")


def test_every_sample_is_there(page: Page) -> None:
    page.goto("/")
    samples = page.locator(".sample")
    assert samples.count() >= 3
    for number in range(samples.count()):
        samples.nth(number).click()
    expect(page.locator("#strip .tile-state", has_text="1 box")).to_have_count(samples.count())


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_photograph_stands_upright_under_its_boxes(page: Page, tmp_path: Path, suffix: str, turn: int) -> None:
    picked(page, tmp_path, f"turned{suffix}", data=turned(turn, suffix))
    expect_rows(page, 1)
    until(page, "document.querySelector('.stage img').naturalWidth > 0")
    red, green = page.evaluate(
        """() => {
            const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
            context.drawImage(document.querySelector(".stage img"), 0, 0);
            const at = (x, y) => context.getImageData(x, y, 1, 1).data;
            return [[at(1, 10)[0], at(35, 10)[0]], [at(18, 1)[1], at(18, 19)[1]]];
        }"""
    )
    assert red[0] < 40 and red[1] > 200 and green[0] < 40 and green[1] > 200, "red grows to the right, green downwards"
    assert page.evaluate("(({naturalWidth: w, naturalHeight: h}) => [w, h])(document.querySelector('.stage img'))") == [
        37,
        21,
    ]


def test_what_is_removed_leaves_page_and_service(browser: Browser, address: str, tmp_path: Path) -> None:
    with opened(browser, address, "/status|/models$|/result/") as page:
        page.add_init_script(
            """window.urls = new Set();
            const { createObjectURL, revokeObjectURL } = URL;
            URL.createObjectURL = (blob) => { const url = createObjectURL(blob); window.urls.add(url); return url; };
            URL.revokeObjectURL = (url) => { window.urls.delete(url); revokeObjectURL(url); };"""
        )
        picked(page, tmp_path, "a.png", "b.png")
        expect(page.locator("#strip .tile-state", has_text="1 box")).to_have_count(2)
        for _ in range(2):
            with page.expect_response(lambda answer: answer.request.method == "DELETE") as gone:
                page.get_by_role("button", name="Remove the picture").first.click()
            assert gone.value.status == 204
        assert page.evaluate("window.urls.size") == 0
        expect(page.locator("#work")).to_be_hidden()
        expect(page.locator(".welcome")).to_be_visible()


def test_a_photograph_of_12_megapixels_is_no_canvas(page: Page, tmp_path: Path) -> None:
    """The browser moves the picture; what is drawn anew for each frame is as large as the stage."""
    picked(page, tmp_path, "a.png")
    expect_rows(page, 1)
    stage = page.locator(".stage").first.bounding_box()
    assert stage is not None
    size = page.evaluate("(({width: w, height: h}) => [w, h])(document.querySelector('.stage canvas'))")
    assert abs(size[0] - stage["width"]) < 4 and abs(size[1] - stage["height"]) < 4
    assert SIZE_WH[0] not in size


def test_what_the_browser_cannot_draw_the_service_draws(page: Page, tmp_path: Path) -> None:
    page.add_init_script(
        """const real = URL.createObjectURL.bind(URL);
        let first = true;
        URL.createObjectURL = (blob) => {
            if (!first) return real(blob);
            first = false;
            return "data:image/png;base64,AAAA";
        };"""
    )
    picked(page, tmp_path, "odd.png")
    expect_rows(page, 1)
    until(page, "document.querySelector('.stage img').naturalWidth === 640")
    expect(page.locator(".warnings", has_text="cannot draw")).to_have_count(0)


def test_a_type_that_only_the_browser_reads_is_sent_as_jpeg(browser: Browser, address: str, tmp_path: Path) -> None:
    avif = io.BytesIO()
    Image.fromarray(gradient(320, 240)).save(avif, "AVIF")
    with opened(browser, address, "/status|/models$|/predict") as page:
        picked(page, tmp_path, "telephone.avif", data=avif.getvalue())
        expect(page.locator(".problem:visible")).to_contain_text("AVIF")
        page.get_by_role("button", name="Send it as JPEG").click()
        expect_rows(page, 1)
