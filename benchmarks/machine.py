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
    """When the code that is measured was committed, where git knows."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    asked = [git, "log", "-1", "--format=%cd", "--date=format-local:%Y-%m-%d %H:%M UTC"]
    environ = {**os.environ, "TZ": "UTC"}
    said = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=Path(__file__).parent, env=environ)
    return said.stdout.strip() or "unknown"


def _cpu(path: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name: Linux tells it here, others by `platform`."""
    if path.exists():
        for line in path.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
