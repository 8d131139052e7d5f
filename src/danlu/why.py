"""`danlu explain`: why a model answers an input as it does, in the terminal, as JSON or as a page."""

import argparse

from danlu import results
from danlu.api.explained import Explained
from danlu.messages import text
from danlu.model import Model
from danlu.usage import beside, device, prompt


def explain(options: argparse.Namespace) -> None:
    """Explain and print; write the page where one is asked for, and of a picture one with what matters in it beside it.

    Raises:
        UserError: what is wrong with the model or the input.
    """
    from danlu.explain import explain

    model = Model.from_pretrained(options.model, device(options))
    found = Explained.of(explain(model, model.asked(prompt(options.input)), options.target))
    if options.page:
        found.save(options.page)
    if found.seen is None:
        results.show(found.table() if options.json else found.rendered(), as_json=options.json)
        return
    path = beside(options.input, "why")
    found.save(path)
    results.show(found.table() | {"picture": str(path)} if options.json else found.rendered(), as_json=options.json)
    if not options.json:
        results.show(text("explain.picture", path=path), as_json=False)
