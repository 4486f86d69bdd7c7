"""Study D's classical baseline."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from serstream.emotion.features import FloatArray
from trainer.comparison.splits import Split
from trainer.evaluation import Labels

N_TREES = 300


def predict(features: FloatArray, label: Labels, split: Split, seed: int) -> Labels:
    """A random forest on mean and deviation over time of MFCC (n, n_coeffs, n_frames).

    Returns:
        Predicted labels of the test part, (n,).
    """
    functionals = np.concatenate([features.mean(axis=2), features.std(axis=2)], axis=1)
    taught = np.concatenate([split.train, split.valid])
    forest = RandomForestClassifier(N_TREES, random_state=seed).fit(functionals[taught], label[taught])
    predicted: Labels = forest.predict(functionals[split.test])
    return predicted
