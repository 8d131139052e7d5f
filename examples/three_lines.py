"""A pretrained BERT, three times over your own rows, measured on others, and saved where transformers opens it too.

    python examples/three_lines.py bert-base-uncased/ train.csv test.csv out/

The model is a folder, or a name on a hub as hf://google-bert/bert-base-uncased. The rows are texts with their class.
"""

import sys

from danlu import BertForSequenceClassification


def main(base: str, train_data: str, test_data: str, out: str) -> None:
    """Three lines, and one to keep what was learned."""
    model = BertForSequenceClassification.from_pretrained(base)
    model.fit(train_data, epochs=3)
    model.evaluate(test_data)
    model.save_pretrained(out)
    print(model.predict("The best film I saw this year."))


if __name__ == "__main__":
    main(*sys.argv[1:])
