"""`python -m asgi_guard` is `asgi-guard`."""

from __future__ import annotations

from asgi_guard.cli import main

if __name__ == "__main__":
    main(prog_name="asgi-guard")
