"""Metrics text: parsed by the rules of Prometheus's format, and no more series however many paths are asked for."""

import re

from danlu.serve.counters import Counters

LINE = re.compile(r'^([a-z_]+)(\{[a-z]+="[^"]*"(?:,[a-z]+="[^"]*")*\})? ([0-9.e+-]+)$')


def series(counters: Counters) -> dict[str, float]:
    lines = counters.exposition(slots=2).splitlines()
    found = [LINE.match(line) for line in lines if not line.startswith("#")]
    assert all(found)
    return {match[1] + (match[2] or ""): float(match[3]) for match in found if match}


def test_the_first_token_histogram_is_cumulative() -> None:
    counters = Counters()
    for seconds in (0.005, 0.02, 0.02, 100.0):
        counters.first_token(seconds)
    found = series(counters)
    buckets = [value for key, value in found.items() if key.startswith("danlu_first_token_seconds_bucket")]
    assert buckets == [1, 3, 3, 3, 3, 3, 3, 3, 4]
    assert found["danlu_first_token_seconds_count"] == 4
    assert found["danlu_first_token_seconds_sum"] == 100.045


def test_clients_cannot_add_series() -> None:
    counters = Counters()
    counters.request("/a", 404)
    before = len(series(counters))
    for index in range(1000):
        counters.request(f"/v1/models/{index}", 404)
        counters.request(f'/"{{}}\n{index}', 405)
    assert len(series(counters)) == before
    assert series(counters)['danlu_requests_total{route="other",status="4xx"}'] == 2001
