"""What the server counts, as Prometheus text. Labels come from fixed sets, so no client can add a series."""

import threading
from collections import Counter
from collections.abc import Iterator

ROUTES = {
    "/v1/completions": "completions",
    "/v1/chat/completions": "chat",
    "/predict": "predict",
    "/explain": "explain",
    "/v1/models": "models",
    "/health/live": "health",
    "/health/ready": "health",
    "/metrics": "metrics",
}
_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
_HELP = {
    "danlu_requests_total": ("counter", "HTTP requests answered, by route and status class"),
    "danlu_prompt_tokens_total": ("counter", "tokens read"),
    "danlu_generated_tokens_total": ("counter", "tokens generated"),
    "danlu_generations_total": ("counter", "generations ended, by how they ended"),
    "danlu_generations_running": ("gauge", "generations that hold a slot"),
    "danlu_generations_waiting": ("gauge", "generations that wait for a slot"),
    "danlu_slots": ("gauge", "generations that can run at the same time"),
    "danlu_first_token_seconds": ("histogram", "time from arrival to the first token"),
}


class Counters:
    """Counts from the event loop and the engine thread alike."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._delays: Counter[float] = Counter()
        self._delay_sum = 0.0

    def request(self, path: str, status: int) -> None:
        self._add(f'danlu_requests_total{{route="{ROUTES.get(path, "other")}",status="{status // 100}xx"}}')

    def ended(self, how: str) -> None:
        self._add(f'danlu_generations_total{{end="{how}"}}')

    def prompt_tokens(self, count: int) -> None:
        self._add("danlu_prompt_tokens_total", count)

    def generated_token(self) -> None:
        self._add("danlu_generated_tokens_total")

    def first_token(self, seconds: float) -> None:
        with self._lock:
            self._delay_sum += seconds
            self._delays[next((bound for bound in _BUCKETS if seconds <= bound), float("inf"))] += 1

    def exposition(self, **gauges: int) -> str:
        """Everything in Prometheus's text format; `gauges` are the values of this moment."""
        with self._lock:
            now = {f"danlu_{name}": value for name, value in gauges.items()}
            series = {**self._counts, **now, **self._histogram()}
        return "".join(f"{line}\n" for name in _HELP for line in _family(name, series))

    def _add(self, series: str, amount: int = 1) -> None:
        with self._lock:
            self._counts[series] += amount

    def _histogram(self) -> dict[str, float]:
        name, seen = "danlu_first_token_seconds", 0
        series: dict[str, float] = {}
        for bound in (*_BUCKETS, float("inf")):
            seen += self._delays[bound]
            series[f'{name}_bucket{{le="{"+Inf" if bound == float("inf") else bound}"}}'] = seen
        return series | {f"{name}_sum": self._delay_sum, f"{name}_count": seen}


def _family(name: str, series: dict[str, float]) -> Iterator[str]:
    kind, text = _HELP[name]
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    yield from (f"{key} {value}" for key, value in series.items() if key.startswith(name))
