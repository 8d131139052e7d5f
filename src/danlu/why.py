"""`danlu explain`: why a model answers an input as it does, in the terminal, as JSON or as a page."""

import argparse

from danlu import results
from danlu.api.explained import Explained
from danlu.model import Model
from danlu.usage import device, prompt


def explain(options: argparse.Namespace) -> None:
    """Explain and print; write the page where one is asked for.

    Raises:
        UserError: what is wrong with the model or the input.
    """
    from danlu.explain import explain

    model = Model.from_pretrained(options.model, device(options))
    found = Explained.of(explain(model, model.asked(prompt(options.input)), options.target))
    if options.page:
        found.save(options.page)
    results.show(found.table() if options.json else found.rendered(), as_json=options.json)
