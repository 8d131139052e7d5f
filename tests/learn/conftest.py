"""Every lesson, run once for all tests."""

import pytest

from danlu.learn import tutorial
from danlu.learn.cells import Run


@pytest.fixture(scope="session")
def ran() -> dict[str, Run]:
    return tutorial.run_all()
