"""The log of a training, one JSON object a line, and what is said of it on the terminal."""

import json
from pathlib import Path

from danlu import files
from danlu.messages import text
from danlu.train.events import Incident
from danlu.train.guard import PATIENCE, ROLLBACKS, SIGMAS, WINDOW


def clock(value: float) -> str:
    value = max(0.0, value)
    return f"{value:.0f}s" if value < 90 else f"{value / 60:.1f}min" if value < 5400 else f"{value / 3600:.1f}h"


def said(incident: Incident) -> str:
    """An incident in one line."""
    if incident.kind == "split":
        return text("train.split", **incident.facts)
    if incident.kind == "rolled_back":
        return text("train.rolled_back", count=PATIENCE, limit=ROLLBACKS, **incident.facts)
    return text(f"train.skipped_{incident.kind}", sigmas=f"{SIGMAS:g}", window=WINDOW, **incident.facts)


def cut(path: Path, step: int, looked: int) -> None:
    """Remove what a killed run logged after its last checkpoint, so that no step and no evaluation stands twice."""
    if path.exists():
        kept = [line for line in path.read_text("utf-8").splitlines() if _is_before(line, step, looked)]
        files.write_text(path, "".join(line + "\n" for line in kept))


def _is_before(line: str, step: int, looked: int) -> bool:
    try:
        entry = json.loads(line)
        return bool(entry["step"] <= (looked if "validation" in entry else step))
    except (ValueError, KeyError, TypeError):  # a line cut in half by a kill
        return False
