"""The article's stack with one client of Redis for all requests, which is the first thing that its user would mend."""

from __future__ import annotations

from functools import partial

from benchmarks.peers import article

build = partial(article.build, one_client=True)
