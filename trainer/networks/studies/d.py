"""Study D: CNN-LSTM in one and in two dimensions on MFCC.

The study gives no sizes; blocks as in Zhao, Mao and Chen 2019 (Biomedical Signal Processing and Control 47),
where both networks come from: four times filters of 3, batch normalisation, ELU and pooling, then an LSTM.
"""

from __future__ import annotations

from torch import Tensor, nn

from trainer.networks.studies.layers import Standardise, StudyNetwork, convolution_1d, max_pool_1d

WIDTHS_1D = (64, 64, 128, 128)
WIDTHS_2D = (32, 32, 64, 64)
HIDDEN = 128


class D1(StudyNetwork):
    """Convolutions over time. Features (batch, n_coeffs, n_frames) to logits (batch, n_labels)."""

    def __init__(self, shape: tuple[int, int], n_labels: int):
        super().__init__(Standardise(shape[0], 1))
        blocks = []
        for n_in, n_out in zip((shape[0], *WIDTHS_1D), WIDTHS_1D, strict=False):
            convolution = convolution_1d(n_in, n_out, 3)
            blocks += [convolution, nn.BatchNorm2d(n_out), nn.ELU(), max_pool_1d(2)]
        self.convolutions = nn.Sequential(*blocks)
        self.lstm = nn.LSTM(WIDTHS_1D[-1], HIDDEN, batch_first=True)
        self.classify = nn.Linear(HIDDEN, n_labels)

    def forward(self, features: Tensor) -> Tensor:
        maps = self.convolutions(self.front(features).unsqueeze(2))
        ordered, _ = self.lstm(maps.squeeze(2).transpose(1, 2))
        logits: Tensor = self.classify(ordered[:, -1])
        return logits


class D2(StudyNetwork):
    """Convolutions over coefficients and time. Features and logits as in `D1`."""

    def __init__(self, shape: tuple[int, int], n_labels: int):
        super().__init__(Standardise(shape[0], 1))
        blocks = []
        for n_in, n_out in zip((1, *WIDTHS_2D), WIDTHS_2D, strict=False):
            convolution = nn.Conv2d(n_in, n_out, 3, padding="same")
            blocks += [convolution, nn.BatchNorm2d(n_out), nn.ELU(), nn.MaxPool2d(2)]
        self.convolutions = nn.Sequential(*blocks)
        self.lstm = nn.LSTM(WIDTHS_2D[-1] * (shape[0] // 2 ** len(WIDTHS_2D)), HIDDEN, batch_first=True)
        self.classify = nn.Linear(HIDDEN, n_labels)

    def forward(self, features: Tensor) -> Tensor:
        maps = self.convolutions(self.front(features).unsqueeze(1))
        ordered, _ = self.lstm(maps.permute(0, 3, 1, 2).flatten(2))
        logits: Tensor = self.classify(ordered[:, -1])
        return logits
