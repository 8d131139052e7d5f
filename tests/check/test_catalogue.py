"""What is read of a task's file without importing it is what its class says once it is imported."""

import pytest

from danlu import catalogue, tasks

READ = ("adversarial", "arch", "judges", "labelled", "makes", "options", "shape", "sized", "stock")


@pytest.mark.parametrize("name", catalogue.names())
def test_a_task_states_itself_what_is_read_without_it(name: str) -> None:
    kind = tasks.load(name)
    for attribute in READ:
        assert (catalogue.stated(name, attribute) or None) == (getattr(kind, attribute, None) or None), attribute
