"""Study B, SER-FusionNet: deep features of two branches beside six statistics and the speaker's sex.

The published sizes leave one reading. The 1-D branch alone with its head 32-12-6 has 665,850 parameters; a
classifier 12-10-6 of 700 has 41 inputs: 32 deep features, 6 statistics, 3 for the sex (female, male,
unknown). So the branches' features are added, not put side by side. The study trained branches first and
classifiers on their outputs; here both are trained at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trainer.networks.studies.layers import Stack, Standardise, StudyNetwork, convolution_1d, pooled

N_DEEP = 32
N_BESIDE = 6 + 3
"""Statistics and sex, which stand behind the acoustic values in the input."""
ROWS = 9
"""The 2-D branch sees the 162 acoustic values in this many rows; the study does not say what it saw."""
READER_UNITS = 32
"""Of the LSTM, in each direction."""


class B1Deep(Stack):
    """The 1-D branch as a classifier: acoustic values (batch, length) to logits (batch, n_labels)."""

    def __init__(self, shape: tuple[int], n_labels: int):
        (length,) = shape
        super().__init__(
            Standardise(length),
            nn.Sequential(
                branch_1d(length),
                nn.Linear(N_DEEP, 12),
                nn.ReLU(),
                nn.Linear(12, n_labels),
            ),
        )


class _Fusion(StudyNetwork):
    """Features (batch, length + `N_BESIDE`) to logits (batch, n_labels)."""

    def __init__(self, shape: tuple[int], n_labels: int, classifier: nn.Module):
        (length,) = shape
        super().__init__(Standardise(length))
        self.n_acoustic = length - N_BESIDE
        self.branch_1d = branch_1d(self.n_acoustic)
        self.branch_2d = branch_2d(ROWS, self.n_acoustic // ROWS)
        self.classifier = classifier

    def forward(self, features: Tensor) -> Tensor:
        values = self.front(features)
        acoustic, beside = values[:, : self.n_acoustic], values[:, self.n_acoustic :]
        deep = self.branch_1d(acoustic[:, None, None]) + self.branch_2d(acoustic.unflatten(1, (1, ROWS, -1)))
        logits: Tensor = self.classifier(torch.cat([deep, beside], dim=1))
        return logits


class B1Mlp(_Fusion):
    """Classified by a perceptron 12-10-n_labels."""

    def __init__(self, shape: tuple[int], n_labels: int):
        super().__init__(shape, n_labels, perceptron(N_DEEP + N_BESIDE, n_labels))


class B1Lstm(_Fusion):
    """Classified by an LSTM that reads the fused vector value by value."""

    def __init__(self, shape: tuple[int], n_labels: int):
        super().__init__(shape, n_labels, _Reader(n_labels, bidirectional=False))


class B1BiLstm(_Fusion):
    """The same in both directions."""

    def __init__(self, shape: tuple[int], n_labels: int):
        super().__init__(shape, n_labels, _Reader(n_labels, bidirectional=True))


class _Reader(nn.Module):
    """(batch, length) as a sequence of single values."""

    def __init__(self, n_labels: int, *, bidirectional: bool):
        super().__init__()
        self.lstm = nn.LSTM(1, READER_UNITS, batch_first=True, bidirectional=bidirectional)
        self.classify = nn.Linear(READER_UNITS * (2 if bidirectional else 1), n_labels)

    def forward(self, fused: Tensor) -> Tensor:
        _, (last, _) = self.lstm(fused.unsqueeze(2))
        logits: Tensor = self.classify(last.transpose(0, 1).flatten(1))
        return logits


def perceptron(n_inputs: int, n_labels: int) -> nn.Sequential:
    """12-10-n_labels."""
    return nn.Sequential(
        nn.Linear(n_inputs, 12), nn.ReLU(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, n_labels)
    )


def branch_1d(length: int) -> nn.Sequential:
    """(batch, 1, 1, length) to deep features (batch, 32)."""
    return nn.Sequential(
        convolution_1d(1, 256, 5),
        nn.ReLU(),
        nn.MaxPool2d((1, 2), ceil_mode=True),
        convolution_1d(256, 256, 5),
        nn.ReLU(),
        nn.MaxPool2d((1, 2), ceil_mode=True),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(256 * pooled(length, 2), N_DEEP),
        nn.ReLU(),
    )


def branch_2d(rows: int, columns: int) -> nn.Sequential:
    """(batch, 1, rows, columns) to deep features (batch, 32)."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(32, 32, 3, padding="same"),
        nn.ReLU(),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(32 * pooled(rows, 2) * pooled(columns, 2), N_DEEP),
        nn.ReLU(),
    )
