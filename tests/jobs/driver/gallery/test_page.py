"""The page of a gallery, used with a real browser."""

import numpy as np
import pytest
from playwright.sync_api import expect

from jobs.store.png import write_image
from tests.jobs.driver.gallery.showcase import done, entry, film, ids, plays

pytestmark = pytest.mark.timeout(240)


def test_page_opens_from_a_file_with_counts_and_facts(batch, page):
    batch.show(done("0000"), entry("0001", status="running", gang=1), entry("0002"))
    page.goto(batch.url)
    expect(page.get_by_role("heading", name="two shapes")).to_be_visible()
    expect(page.locator(".chip:visible")).to_have_text(["3 all", "1 done", "1 running", "1 waiting"])
    card = page.locator(".card").first
    for fact in ("a red ball, 0000", "seed 7", "64×48×24", "9 dense + 41 sparse", "3.5\u00a0s"):
        expect(card).to_contain_text(fact)
    expect(card.locator(".bar")).to_have_accessible_name(
        "encode 0.3\u00a0s, denoise 2.0\u00a0s, decode 1.0\u00a0s, write 0.3\u00a0s"
    )
    expect(page.locator(".card").nth(1)).to_contain_text("Rendering on gang 1")


@pytest.mark.parametrize("name", ["0000.mp4", "50% of #1, a b?.mp4", "käse%20.mp4"])
def test_video_plays(batch, page, name):
    film(batch, f"videos/{name}")
    batch.show(done(video=f"videos/{name}"))
    page.goto(batch.url)
    page.get_by_role("button", name="Play all in view").click()
    plays(page)
    settings = "v => [v.muted, v.loop, v.controls, v.playsInline, v.preload].join()"
    assert page.locator(".card video").evaluate(settings) == "true,true,true,true,metadata"


def test_an_image_is_shown_as_one(batch, page):
    """To the pixel, in its card and its details; nothing is to be played."""
    pixels = np.full((1, 48, 64, 3), (220, 40, 40), np.uint8)
    (batch.directory / "videos").mkdir(exist_ok=True)
    write_image([pixels], batch.directory / "videos" / "0000.png", {})
    batch.show(done(video="videos/0000.png", num_frames=1), entry("0001", num_frames=1))
    page.goto(batch.url)
    image = page.locator(".card img")
    expect(image).to_have_count(1)
    expect(image).to_have_attribute("alt", "a red ball, 0000")
    expect(page.locator(".card video")).to_have_count(0)
    assert image.evaluate("i => i.decode().then(() => [i.naturalWidth, i.naturalHeight])") == [64, 48]
    expect(page.locator(".card").first).to_contain_text("64×48")
    expect(page.locator("#summary")).to_have_text("2 images")
    expect(page.get_by_role("button", name="Play all in view")).to_be_hidden()
    page.get_by_role("button", name="Details of 0000").click()
    expect(page.get_by_role("dialog", name="0000")).to_contain_text("64 × 48 pixels")
    expect(page.locator("#details-media img")).to_be_visible()


def test_failures_show_their_reason(batch, page):
    batch.show(
        entry("0000", status="failed", error="rank 1 ran out of memory", attempts=2),
        entry("0001", status="retrying", error="gang 0 was lost", attempts=1),
    )
    page.goto(batch.url)
    expect(page.locator(".card").nth(0)).to_contain_text("rank 1 ran out of memory")
    expect(page.locator(".card").nth(0)).to_contain_text("attempt 2")
    expect(page.locator(".card").nth(1)).to_contain_text("Will be tried again: gang 0 was lost")


def test_filters_search_and_sorting_work_together(batch, page):
    batch.show(
        done("a-1", prompt="a green kite", seconds={"denoise": 1.0}),
        done("a-2", prompt="a red kite", seconds={"denoise": 3.0}, method="full", height=96),
        done("b-1", prompt="a RED ball", seconds={"denoise": 2.0}),
        entry("b-2", prompt="a red ball", status="failed", error="lost"),
    )
    page.goto(batch.url)
    page.get_by_label("Search").fill("red a")
    expect(page.locator(".card")).to_have_count(3)
    page.get_by_role("button", name="3 done").click()
    expect(page.locator(".card")).to_have_count(2)
    page.get_by_label("Order").select_option("slowest first")
    assert ids(page) == ["a-2", "b-1"]
    page.get_by_label("Method").select_option("resca")
    assert ids(page) == ["b-1"]
    page.reload()
    expect(page.locator(".card")).to_have_count(1)
    expect(page.get_by_label("Search")).to_have_value("red a")
    page.get_by_label("Size").select_option("64×96×24")
    expect(page.get_by_text("No video matches.")).to_be_visible()
    page.get_by_role("button", name="Show all videos").click()
    expect(page.locator(".card")).to_have_count(4)
    page.get_by_label("Search").fill("B-2")
    assert ids(page) == ["b-2"]


def test_choices_are_only_offered_where_there_are_several(batch, page):
    batch.show(done("0000"), done("0001"))
    page.goto(batch.url)
    expect(page.locator(".card")).to_have_count(2)
    expect(page.get_by_label("Method")).to_be_hidden()
    expect(page.locator(".card .method").first).to_be_hidden()
    expect(page.get_by_label("Size")).to_be_hidden()


def test_videos_of_one_prompt_and_seed_stand_beside_each_other_with_their_methods(batch, page):
    page.set_viewport_size({"width": 1280, "height": 800})
    alone = [done(name, prompt=name) for name in "ab"]
    of_one = [
        done(f"{seed}-{method}", prompt="a kite", seed=seed, method=method) for seed in (1, 2) for method in "xyz"
    ]
    batch.show(*alone, *of_one, done("c", prompt="c"))
    page.goto(batch.url)
    expect(page.locator(".card .method").nth(3)).to_have_text("y")
    tops = [card.bounding_box()["y"] for card in page.locator(".card").all()]
    rows = [tops.index(top) for top in tops]
    assert rows == [0, 0, 2, 2, 2, 5, 5, 5, 8]
    page.get_by_label("Method").select_option("y")
    expect(page.locator(".card")).to_have_count(2)
    assert len({card.bounding_box()["y"] for card in page.locator(".card").all()}) == 1


def test_details_open_by_keyboard_and_lead_to_the_next_video(batch, page):
    film(batch, "videos/0000.mp4")
    batch.show(done("0000"), entry("0001", status="failed", error="lost"), entry("0002"))
    page.goto(batch.url)
    page.get_by_role("button", name="Details of 0000").focus()
    page.keyboard.press("Enter")
    details = page.get_by_role("dialog", name="0000")
    for fact in ("a red ball, 0000", "64 × 48 pixels, 24 frames", "50: 9 dense, 41 sparse", "denoise 2.00\u00a0s"):
        expect(details).to_contain_text(fact)
    expect(details.get_by_role("link")).to_have_attribute("href", "videos/0000.mp4")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("dialog", name="0001")).to_contain_text("lost")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Details of 0000")).to_be_focused()


def test_only_cards_near_the_viewport_hold_a_video(batch, page):
    film(batch, "videos/a.mp4")
    batch.show(*[done(f"{number:04d}", video="videos/a.mp4") for number in range(90)])
    page.goto(batch.url)
    expect(page.locator(".card")).to_have_count(90)
    expect(page.locator(".card video").first).to_be_visible()
    assert page.locator(".card video").count() < 60
    page.locator(".card").last.scroll_into_view_if_needed()
    expect(page.locator(".card").last.locator("video")).to_be_visible()
    expect(page.locator(".card").first.locator("video")).to_have_count(0)
