"""Imports only point down: command -> api -> life -> stages -> parts -> forms -> layers -> leaves."""

import pytest

from tests.check.tree import Import, Module, imports, modules

LAYERS = {
    "leaves": (
        "",
        "quantity",
        "catalogue",
        "messages",
        "errors",
        "disk",
        "files",
        "pixels",
        "hub",
        "config",
        "device",
        "cores",
        "room",
        "recipe",
        "artifact",
        "ranks",
        "randomness",
        "metrics",
        "scratch",
        "stopping",
    ),
    "nn": ("nn",),
    "forms": ("models", "modalities", "data"),
    "graph": ("life", "graph", "apart", "runs"),
    "parts": ("model", "folder", "kept", "tasks", "train", "adapt", "serve", "proof", "explain"),
    "stages": ("stages",),
    "life": ("cluster", "forecast", "report", "figures", "charts", "page", "verdicts", "demo", "terminal"),
    "api": ("api",),
    "command": ("results", "usage", "launch", "learn", "compare", "search", "asking", "why", "cli", "__main__"),
}
RANK = {name: rank for rank, names in enumerate(LAYERS.values()) for name in names}


def _part(name: str) -> str:
    return name.split(".")[0]


def _edges() -> list[tuple[Module, Import]]:
    return [(module, each) for module in modules() for each in imports(module) if each.target != ""]


def test_every_file_has_a_layer() -> None:
    unknown = sorted({_part(module.name) for module in modules()} - set(RANK))
    assert not unknown, f"new top-level parts; give them a place in LAYERS: {unknown}"


def test_imports_only_point_down() -> None:
    upward = [
        f"{module.at(each.node)}: {module.name} imports {each.target}"
        for module, each in _edges()
        if RANK[_part(each.target)] > RANK[_part(module.name)]
    ]
    assert not upward, "\n".join(upward)


def test_the_engine_of_numpy_stands_alone() -> None:
    """Its readers need nothing but NumPy, and it is an oracle only while it shares nothing with what it checks."""
    own = [(module, each) for module, each in _edges() if _part(module.name) == "scratch"]
    assert len(own) > 20, "the check does not see the engine"
    assert not [f"{module.at(each.node)}: {each.target}" for module, each in own if _part(each.target) != "scratch"]


@pytest.mark.parametrize("layer", LAYERS)
def test_parts_of_one_layer_do_not_import_in_circles(layer: str) -> None:
    above: dict[str, set[str]] = {name: set() for name in LAYERS[layer]}
    for module, each in _edges():
        a, b = _part(module.name), _part(each.target)
        if a != b and a in above and b in above and not each.typing:
            above[a].add(b)
    while above:
        free = [name for name, needs in above.items() if not needs & set(above)]
        assert free, f"these import each other: { {name: sorted(needs & set(above)) for name, needs in above.items()} }"
        for name in free:
            above.pop(name)


def test_files_do_not_import_in_circles_when_loaded() -> None:
    needs: dict[str, set[str]] = {module.name: set() for module in modules()}
    for module, each in _edges():
        if not each.lazy and not each.typing and each.target != module.name:
            needs[module.name].add(each.target)
    while needs:
        free = [name for name, wanted in needs.items() if not wanted & set(needs)]
        assert free, f"these files import each other: {sorted(needs)}"
        for name in free:
            needs.pop(name)
