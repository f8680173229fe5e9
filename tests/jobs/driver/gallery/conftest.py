"""A batch's directory, and a page of a real browser."""

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.jobs.driver.gallery.showcase import Batch

expect.set_options(timeout=30_000)


@pytest.fixture
def batch(tmp_path) -> Batch:
    (tmp_path / "videos").mkdir()
    return Batch(tmp_path)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("there is no chromium on this machine")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


@pytest.fixture
def page(browser) -> Iterator[Page]:
    """A page on which no script may fail."""
    page, errors = browser.new_page(), []
    page.on("pageerror", lambda error: errors.append(error))
    yield page
    page.close()
    assert not errors
