"""Posters: what a gallery loads instead of its videos, until somebody wants to see one."""

import numpy as np
import pytest
from playwright.sync_api import expect

from jobs.store.png import write_image
from tests.jobs.driver.gallery.showcase import done, entry, film, picture, plays, requested

pytestmark = pytest.mark.timeout(240)
IS_WHOLE = "image => image.decode().then(() => image.naturalWidth)"


def test_a_gallery_loads_posters_and_a_video_where_somebody_points(batch, page):
    names = [f"{number:04d}" for number in range(6)]
    film(batch, *(f"videos/{name}.mp4" for name in names))
    picture(batch, *(f"videos/{name}.webp" for name in names))
    batch.show(*(done(name, poster=True) for name in names))
    asked = requested(page)
    page.goto(batch.url)
    expect(page.locator(".card .poster img")).to_have_count(6)
    assert page.locator(".card .poster img").last.evaluate(IS_WHOLE) == 64
    assert asked.count("webp") == 6 and "mp4" not in asked
    page.locator(".card .media").nth(2).hover()
    expect(page.locator(".card video")).to_have_count(1)
    expect(page.locator(".card").nth(2).locator("video")).to_have_attribute("poster", "videos/0002.webp")
    assert asked.count("mp4") >= 1
    assert page.locator(".card video").evaluate("video => video.paused")


def test_a_click_and_a_key_play_the_video(batch, page):
    film(batch, "videos/0000.mp4", "videos/0001.mp4")
    picture(batch, "videos/0000.webp", "videos/0001.webp")
    batch.show(done("0000", poster=True), done("0001", poster=True))
    page.goto(batch.url)
    page.get_by_role("button", name="Play 0000").dispatch_event("click")
    plays(page)
    page.get_by_role("button", name="Play 0001").focus()
    page.keyboard.press("Enter")
    second = page.locator(".card").nth(1).locator("video")
    expect(second).to_be_focused()
    expect(page.locator(".poster")).to_have_count(0)


def test_all_in_view_play_and_those_below_stay_posters(batch, page):
    names = [f"{number:04d}" for number in range(40)]
    film(batch, "videos/0000.mp4")
    picture(batch, *(f"videos/{name}.webp" for name in names))
    batch.show(*(done(name, poster=True) for name in names))
    page.set_viewport_size({"width": 800, "height": 600})
    page.goto(batch.url)
    page.get_by_role("button", name="Play all in view").click()
    plays(page)
    expect(page.locator(".card").nth(4).locator(".poster")).to_have_count(1)
    assert page.locator(".card").nth(4).locator("video").count() == 0


def test_in_the_place_of_a_lost_poster_stands_the_video(batch, page):
    film(batch, "videos/0000.mp4", "videos/0001.mp4")
    (batch.directory / "videos/0001.webp").write_bytes(b"no picture")
    batch.show(done("0000", poster=True), done("0001", poster=True))
    page.goto(batch.url)
    expect(page.locator(".card video")).to_have_count(2)
    expect(page.locator(".poster")).to_have_count(0)


def test_details_show_the_video_and_not_its_poster(batch, page):
    film(batch, "videos/0000.mp4")
    picture(batch, "videos/0000.webp")
    batch.show(done("0000", poster=True))
    page.goto(batch.url)
    page.get_by_role("button", name="Details of 0000").click()
    expect(page.locator("#details-media video")).to_have_count(1)
    expect(page.locator("#details-media .poster")).to_have_count(0)


def test_a_big_image_is_shown_small_until_it_is_opened(batch, page):
    write_image([np.full((1, 48, 64, 3), 200, np.uint8)], batch.directory / "videos" / "0000.png", {})
    picture(batch, "videos/0000.webp")
    batch.show(done(video="videos/0000.png", num_frames=1, poster=True))
    asked = requested(page)
    page.goto(batch.url)
    expect(page.locator(".card .poster img")).to_have_attribute("src", "videos/0000.webp")
    page.locator(".card .media").hover()
    page.wait_for_timeout(300)
    assert "png" not in asked
    page.get_by_role("button", name="Enlarge 0000").click()
    expect(page.locator("#details-media img")).to_have_attribute("src", "videos/0000.png")


def test_what_is_said_of_the_batch_as_a_whole_is_text(batch, page):
    batch.gallery.update(0, entry(status="running"))
    words = ["340 videos an hour", "<b>about</b> 12 min left", "3.2 of about 5.1 GPU-hours"]
    batch.gallery.flush(running=True, words=words)
    page.goto(batch.url)
    expect(page.locator("#words")).to_have_text(" · ".join(words))


def test_ten_thousand_videos_open_with_the_posters_in_view_and_no_video(batch, page):
    names = [f"{number:05d}" for number in range(10_000)]
    film(batch, "videos/00000.mp4")
    picture(batch, *(f"videos/{name}.webp" for name in names[:120]))
    batch.show(*(done(name, poster=True) for name in names))
    asked = requested(page)
    page.goto(batch.url)
    expect(page.locator("#summary")).to_have_text("10,000 videos")
    assert page.locator(".card .poster img").first.evaluate(IS_WHOLE) == 64
    assert 0 < asked.count("webp") <= 120 and "mp4" not in asked
