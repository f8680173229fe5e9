"""Prompts, errors and paths are data of strangers: whatever they hold is shown and does nothing."""

import pytest
from playwright.sync_api import expect

from jobs.driver.gallery.gallery import Gallery
from tests.jobs.driver.gallery.showcase import done, entry, film

pytestmark = pytest.mark.timeout(240)
HOSTILE = "</script><script>hurt=1</script><img src=x onerror='hurt=2'><!--\u2028'\"&amp;${hurt=3}\ud83d"
ASTRAY = (
    *("../outside.mp4", "videos/../outside.mp4", "videos/a/./../../outside.mp4", "videos\\..\\outside.mp4"),
    *("/outside.mp4", "outside.mp4", "videos", "https://example.org/videos/a.mp4", "//example.org/videos/a.mp4"),
    *("javascript:hurt=1", "videos/\ud83d.mp4"),
)


def test_no_text_can_end_a_script(batch):
    batch.show(entry(prompt=HOSTILE, error=HOSTILE))
    text = (batch.directory / "gallery/0000.js").read_text(encoding="utf-8")
    assert text.isascii() and "<" not in text and text.count("\n") == 3


def test_path_that_leads_out_of_the_videos_is_not_used(batch, page):
    film(batch, "outside.mp4")
    batch.show(*[done(f"{number:04d}", video=path) for number, path in enumerate(ASTRAY)])
    page.goto(batch.url)
    expect(page.locator(".note")).to_have_text(["Not shown: its path leads out of videos/"] * len(ASTRAY))
    for number, path in enumerate(ASTRAY):
        page.get_by_role("button", name=f"Details of {number:04d}").click()
        expect(page.locator("#details")).to_contain_text(path)
        assert not page.locator("video, #details a").count()
        page.keyboard.press("Escape")


def test_file_that_is_missing_is_said_to_be(batch, page):
    batch.show(done())
    page.goto(batch.url)
    expect(page.locator(".card")).to_contain_text("This file cannot be played")


def test_hostile_text_is_shown_and_runs_nothing(batch, page):
    batch.gallery = Gallery(batch.write, HOSTILE)
    batch.show(entry("0000", prompt=HOSTILE, method=HOSTILE, error=HOSTILE, status="failed"), entry("0001"))
    page.goto(batch.url)
    expect(page.locator(".card .prompt").first).to_contain_text("</script><script>hurt=1</script><img src=x")
    expect(page.locator(".card .note").first).to_contain_text("<img src=x onerror='hurt=2'><!--")
    page.locator(".card .id").first.click()
    expect(page.locator("#details-prompt")).to_contain_text("<img src=x")
    assert page.evaluate("typeof hurt") == "undefined"
    assert not page.locator("img").count()


def test_page_runs_no_script_but_its_own_even_if_one_gets_in(batch, page):
    batch.show(entry())
    page.goto(batch.url)
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=hurt=2>')")
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'hurt=1'}))")
    expect(page.locator("img")).to_have_count(1)
    assert page.evaluate("typeof hurt") == "undefined"
