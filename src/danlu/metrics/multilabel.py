"""How well sets of labels are found: precision, recall and F1 over all labels (micro) and of their mean (macro).

Shapes: N rows · C labels · R rounds of a bootstrap
"""

import numpy as np

from danlu.metrics.bootstrap import Figures, Floats, Sample
from danlu.metrics.classification import share


def sample(truth: np.ndarray, predicted: np.ndarray) -> Sample:
    """Rows of labels that are there and that were said, bool (N, C) each."""
    truth, predicted = np.asarray(truth, bool), np.asarray(predicted, bool)
    both, exact = (truth & predicted).astype(float), (truth == predicted).all(1).astype(float)

    def statistic(drawn: Floats) -> Figures:
        right, said, true = drawn @ both, drawn @ predicted.astype(float), drawn @ truth.astype(float)
        each = {"f1": share(2 * right, said + true), "precision": share(right, said), "recall": share(right, true)}
        sums = [part.sum(1) for part in (right, said, true)]
        micro = {
            "micro_f1": share(2 * sums[0], sums[1] + sums[2]),
            "micro_precision": share(sums[0], sums[1]),
            "micro_recall": share(sums[0], sums[2]),
        }
        subset = {"subset_accuracy": drawn @ exact / np.maximum(drawn.sum(1), 1)}
        return {**micro, "macro_f1": each["f1"].mean(1), **subset, **each}

    return Sample(np.ones(len(truth), np.int64), statistic)
