"""A real Chromium for the tests of this folder. Without one they are skipped, each by its name."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.browser.pages import Visits
from tests.browser.serving import Certificate, Sites, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from playwright.async_api import Browser

EXECUTABLES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL = "install Chromium: apt-get install chromium, or any other way that puts one of these on the PATH: "
# Names under these two are this machine, and no other name is any: nothing that a page asks for leaves the machine.
RESOLVER = "MAP *.localhost 127.0.0.1, MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@pytest.fixture(scope="package")
def executable() -> str:
    """The browser, where this machine has one."""
    found = next(filter(None, map(shutil.which, EXECUTABLES)), None)
    if found is None:
        pytest.skip(INSTALL + ", ".join(EXECUTABLES))
    if find_spec("playwright") is None:
        pytest.skip("install what drives the browser: pip install -e '.[browser]'")
    return found


@pytest.fixture(scope="package")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.made(tmp_path_factory.mktemp("certificate"))


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def browser(
    executable: str, certificate: Certificate, sites: Sites, secure_sites: Sites
) -> AsyncIterator[Browser]:
    """One browser for all tests, each with cookies of its own. It goes before the sites do, which end when it has."""
    from playwright.async_api import async_playwright

    arguments = [
        f"--host-resolver-rules={RESOLVER}",
        f"--ignore-certificate-errors-spki-list={certificate.pin}",
        "--short-reporting-delay",  # else a browser gathers its reports for a minute
    ]
    if getattr(os, "geteuid", lambda: 1)() == 0:
        arguments.append("--no-sandbox")  # Chromium refuses to run as root with one, which containers do
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=executable, args=arguments)
        yield launched
        await launched.close()


@pytest_asyncio.fixture(loop_scope="package")
async def visits(browser: Browser) -> AsyncIterator[Visits]:
    """A profile of its own, and the pages that are opened in it."""
    context = await browser.new_context()
    yield Visits(context)
    await context.close()


@pytest.fixture(scope="package")
def sites(executable: str) -> Iterator[Sites]:
    """Sites over http. Browsers count names under `localhost` as secure, and those under `test` not."""
    with serving() as made:
        yield made


@pytest.fixture(scope="package")
def secure_sites(executable: str, certificate: Certificate) -> Iterator[Sites]:
    """Sites over https."""
    with serving(certificate) as made:
        yield made
