"""danlu: raw data in, a served model out, on the machine you have.

Importing danlu loads neither torch nor Daft; the public names are resolved on first use.
"""

import importlib
import os
from typing import Any

# Every dependency's telemetry (and Daft's own progress bar) is off before any of them can be imported.
for _switch, _value in {
    "DAFT_ANALYTICS_ENABLED": "0",
    "DAFT_PROGRESS_BAR": "0",
    "DO_NOT_TRACK": "1",
    "SCARF_NO_ANALYTICS": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "FASTAPI_OTEL_AUTO_CONFIGURE": "false",
}.items():
    os.environ[_switch] = _value

__version__ = "0.1.0"

_PUBLIC = {
    "Model": "danlu.model",
    "load_recipe": "danlu.recipe",
    "UserError": "danlu.errors",
    "pipeline": "danlu.api.pipeline",
}
__all__ = ["Model", "UserError", "__version__", "load_recipe", "pipeline"]
_CLASSES = "danlu.api.names"  # BertForSequenceClassification, AutoModel, ...


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name[:1].isupper():
        return importlib.import_module(_CLASSES).named(name)
    raise AttributeError(f"module 'danlu' has no attribute {name!r}", name=name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *importlib.import_module(_CLASSES).known()})
