"""Pages in a browser, what their scripts ask for, and what the browser says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from playwright.async_api import BrowserContext, ConsoleMessage, Page

_FETCH_ALL = """asked => Promise.all(asked.map(async ({url, ...options}) => {
    try {
        const answer = await fetch(url, {cache: 'no-store', ...options});
        return {status: answer.status, names: [...answer.headers.keys()], headers: Object.fromEntries(answer.headers),
                text: await answer.text()};
    } catch (error) {
        return {error: String(error)};
    }
}))"""

_OPEN = """url => new Promise(resolve => {
    const socket = new WebSocket(url);
    let greeting = null;
    socket.onmessage = ({data}) => { greeting = data; socket.close(1000); };
    socket.onclose = ({code}) => resolve({code, greeting});
})"""

_SUBMIT = """url => {
    const form = document.createElement('form');
    Object.assign(form, {method: 'POST', action: url});
    document.body.append(form);
    form.submit();
}"""


@dataclass
class Visit:
    """A page, and what the browser says of it in its console.

    Attributes:
        page: the page.
        errors: the errors in the console, and exceptions that no script caught.
    """

    page: Page
    errors: list[str] = field(default_factory=list)

    async def fetch_all(self, asked: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Have a script ask for all of these at once; each answer has `status`, or `error` if it may not be read."""
        answers: list[dict[str, Any]] = await self.page.evaluate(_FETCH_ALL, list(asked))
        return answers

    async def fetch(self, url: str, **options: Any) -> dict[str, Any]:
        """Have a script ask for this."""
        return (await self.fetch_all([{"url": url, **options}]))[0]

    async def open_websocket(self, url: str) -> dict[str, Any]:
        """Have a script open a WebSocket and close it after the first message: that, and the code that ended it."""
        ended: dict[str, Any] = await self.page.evaluate(_OPEN, url)
        return ended

    async def submit(self, url: str) -> tuple[int, str]:
        """Send an empty form by POST: the status and the text of the page that comes."""
        async with self.page.expect_navigation(url=url) as navigation:
            await self.page.evaluate(_SUBMIT, url)
        answer = await navigation.value
        assert answer is not None
        return answer.status, await self.page.inner_text("body")


class Visits:
    """A browser's profile: its cookies and its pages."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context

    async def new(self) -> Visit:
        """A page that shows nothing yet."""
        page = await self.context.new_page()
        visit = Visit(page)

        def note(message: ConsoleMessage) -> None:
            if message.type == "error":
                visit.errors.append(message.text)

        page.on("console", note)
        page.on("pageerror", lambda error: visit.errors.append(str(error)))
        return visit

    async def at(self, url: str) -> Visit:
        """The page at a URL, loaded."""
        visit = await self.new()
        await visit.page.goto(url)
        return visit
