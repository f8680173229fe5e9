"""The data of a gallery: written piece by piece, and followed by a page that is open meanwhile."""

import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import expect

from jobs.driver.gallery.gallery import Gallery
from tests.jobs.driver.gallery.showcase import done, entry, film, plays

pytestmark = pytest.mark.timeout(240)


def test_first_flush_writes_the_page_and_all_data_and_later_ones_what_changed(batch):
    batch.show(*[entry(f"{number:04d}") for number in range(1200)], running=True)
    assert batch.written == [
        "index.html", "gallery/0000.js", "gallery/0001.js", "gallery/0002.js", "gallery/manifest.js"
    ]  # fmt: skip
    batch.written.clear()
    batch.gallery.update(700, done("0700"))
    batch.gallery.update(3, entry("0003"))  # as it was
    batch.gallery.flush(running=True)
    assert batch.written == ["gallery/0001.js", "gallery/manifest.js"]


def test_what_could_not_be_written_is_written_by_the_next_flush(batch):
    batch.show(entry())
    batch.gallery.update(0, done())
    batch.gallery._write = lambda name, text: (_ for _ in ()).throw(OSError("no space left"))
    with pytest.raises(OSError, match="no space left"):
        batch.gallery.flush(running=True)
    batch.gallery._write = batch.write
    batch.gallery.flush(running=True)
    assert '"done"' in (batch.directory / "gallery/0000.js").read_text()


def test_page_works_from_a_web_server(batch, page):
    film(batch, "videos/0000.mp4")
    batch.show(done())
    handler = functools.partial(SimpleHTTPRequestHandler, directory=batch.directory)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        page.evaluate("document.getElementById('play').click()")
        plays(page)
        server.shutdown()


def test_update_appears_and_leaves_search_scroll_and_playing_video_alone(batch, page):
    film(batch, "videos/0000.mp4", "videos/0001.mp4")
    rest = [entry(f"{number:04d}") for number in range(2, 40)]
    batch.show(done("0000"), entry("0001", status="running"), *rest, running=True)
    page.set_viewport_size({"width": 800, "height": 600})
    page.goto(batch.url)
    page.get_by_label("Search").fill("red ball")
    page.locator(".card video").evaluate("v => { v.played_by = 'the viewer'; v.play(); scrollTo(0, 60) }")
    plays(page)
    batch.gallery.update(1, done("0001"))
    batch.gallery.flush(running=False)
    expect(page.locator(".card .status").nth(1)).to_have_text("done")
    expect(page.locator("#state")).to_contain_text("ended")
    expect(page.locator(".chip:visible")).to_have_text(["40 all", "2 done", "38 waiting"])
    assert page.get_by_label("Search").input_value() == "red ball"
    assert page.evaluate("scrollY") == 60
    assert page.locator(".card video").first.evaluate("v => v.played_by === 'the viewer' && !v.paused")


def test_page_that_is_opened_before_the_data_waits_for_them(batch, page):
    batch.show(running=True)
    manifest = batch.directory / "gallery/manifest.js"
    manifest.unlink()
    page.goto(batch.url)
    expect(page.get_by_text("Nothing has been written yet.")).to_be_visible()
    batch.gallery.flush(running=True)
    expect(page.get_by_text("The batch has no videos.")).to_be_visible()
    batch.show(entry(), running=True)
    expect(page.locator(".card")).to_have_count(1)


def test_batch_that_is_started_again_with_fewer_videos_replaces_the_old_one(batch, page):
    batch.show(*[entry(f"{number:04d}") for number in range(501)], running=True)
    page.goto(batch.url)
    expect(page.locator("#summary")).to_have_text("501 videos")
    batch.gallery = Gallery(batch.write, "again")
    batch.show(entry("0000", status="running"), running=True)
    expect(page.locator(".card .status")).to_have_text(["running"])


def test_page_says_when_the_driver_may_be_gone(batch, page, monkeypatch):
    monkeypatch.setattr("jobs.driver.gallery.gallery.time.time", lambda: 1_700_000_000.0)
    batch.show(entry(status="running"), running=True)
    page.goto(batch.url)
    expect(page.locator("#warning")).to_contain_text("ago; the driver may be gone")
    # A driver whose clock is wrong is not gone while it writes.
    monkeypatch.setattr("jobs.driver.gallery.gallery.time.time", lambda: 1_700_000_003.0)
    batch.gallery.flush(running=True)
    expect(page.locator("#state")).to_have_text("running")
    expect(page.locator("#warning")).to_be_hidden()


def test_batch_that_has_ended_is_not_called_stale(batch, page, monkeypatch):
    monkeypatch.setattr("jobs.driver.gallery.gallery.time.time", lambda: 1_700_000_000.0)
    batch.show(entry())
    page.goto(batch.url)
    expect(page.locator("#state")).to_contain_text("ended")
    expect(page.locator("#warning")).to_be_hidden()


@pytest.mark.timeout(600)
def test_hundred_thousand_videos_can_be_paged_and_searched(batch, page):
    batch.show(*[entry(f"{number:06d}", prompt=f"ball number {number}") for number in range(100_000)])
    assert len(list((batch.directory / "gallery").glob("0*.js"))) == 200
    page.set_default_timeout(120_000)
    page.goto(batch.url)
    expect(page.locator(".card .id").first).to_have_text("000000")
    expect(page.locator("#summary")).to_have_text("100,000 videos", timeout=120_000)
    page.get_by_label("Search").fill("number 98765")
    expect(page.locator(".card .id")).to_have_text(["098765"])
    page.get_by_label("Search").fill("")
    page.get_by_role("button", name="Next", exact=True).click()
    expect(page.locator(".card .id").first).to_have_text("000120")
    expect(page.locator(".card .id").first).to_be_in_viewport()
    expect(page.locator("#page")).to_have_text("Page 2 of 834")
