"""The machine that the figures are of."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("asgi-guard", "redis", "pyjwt", "orjson")


@dataclass(frozen=True, slots=True)
class Machine:
    """What figures depend on."""

    cpu: str
    cores: int
    load: float
    system: str
    python: str
    versions: dict[str, str]

    @property
    def kind(self) -> tuple[str, int, str, str]:
        """What has to be the same where figures are to be of one machine. Machines in a cloud share their names."""
        return self.cpu, self.cores, self.system, self.python

    @classmethod
    def here(cls) -> Machine:
        """This one."""
        return cls(
            _cpu(),
            os.cpu_count() or 1,
            round(os.getloadavg()[0], 2),
            f"{platform.system()} {platform.release()} {platform.machine()}",
            f"{platform.python_implementation()} {platform.python_version()}",
            {name: version(name) for name in PACKAGES},
        )


def code() -> str:
    """Which commit the code that is measured is of, and whether it was changed since, where git knows."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    folder = Path(__file__).parents[1]
    commit, changed = (
        subprocess.run([git, *asked], capture_output=True, text=True, check=False, cwd=folder).stdout.strip()
        for asked in (("rev-parse", "--short=10", "HEAD"), ("status", "--porcelain", "asgi_guard", "benchmarks"))
    )
    return f"{commit or 'unknown'}{', and changes since' if changed else ''}"


def _cpu(path: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name: Linux tells it here, others by `platform`."""
    if path.exists():
        for line in path.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
