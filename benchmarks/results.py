"""Where measurements are kept: results/<date>-<processor>.json, one table per script, the newest of each is shown."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    import torch

    from danlu.train import cost

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "bf16_peak_gflops": round(cost.peak("bf16") / 1e9),
        "fp32_peak_gflops": round(cost.peak("fp32") / 1e9),
    }


def keep(name: str, table: dict[str, Any]) -> Path:
    """Write a table beside what else was measured here today."""
    here = machine()
    path = FOLDER / f"{time.strftime('%Y-%m-%d')}-{_slug(here['processor'])}-{here['cores']}cores.json"
    known = json.loads(path.read_text("utf-8")) if path.exists() else {}
    stamp = {"commit": commit(Path(__file__).parent), "time": time.strftime("%H:%M"), "machine": here}
    known[name] = known.get(name, {}) | table | stamp
    path.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
    return path


def _slug(processor: str) -> str:
    """A processor's name as a part of a file's: "AMD EPYC" as "amd-epyc"."""
    return "-".join(re.findall(r"[a-z0-9]+", re.sub(r"\((r|tm)\)|processor|cpu", "", processor.lower())))


def commit(folder: Path) -> str:
    """The commit of a clone, shortened; "" where there is none."""
    told = subprocess.run(["git", "-C", str(folder), "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True)
    return told.stdout.strip()


def python(peers: Path) -> str:
    """The interpreter that peers run in: that of an environment of their own beside their clones, or this one."""
    own = peers / "venv" / "bin" / "python"
    return str(own.absolute()) if own.exists() else sys.executable


def newest(name: str) -> dict[str, Any]:
    """The newest table of a script, and the file it stands in; {} where none was measured."""
    files = {path.name: json.loads(path.read_text("utf-8")) for path in FOLDER.glob("*.json")}
    found = [(file[:10], known[name].get("time", ""), file) for file, known in files.items() if name in known]
    file = max(found, default=("", "", ""))[2]
    return dict(files[file][name]) | {"file": file} if file else {}
