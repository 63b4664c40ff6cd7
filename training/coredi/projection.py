"""Encoder features projected to few channels, z = BN(z0 P), by a P that may learn, and what shows that it has collapsed.

z0 are standardised features, P begins as their principal components. BatchNorm without affine is taken over the whole
collection: for a linear P it follows from the features' correlation, exactly and with its gradient, so that neither micro
nor the number of ranks changes it (our choice).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-4
ORTHO, COV = 1e-3, 0.004
"""Weights of what keeps P's columns apart and z's channels unrelated (our numbers: the paper's are not known)."""


@dataclass(frozen=True)
class Projection:
    """Statistics of a collection's features, by which they are standardised and z is normalised."""

    mean: Tensor
    size: Tensor
    """Standard deviation of each channel."""
    relation: Tensor
    """Correlation of the features (wide, wide)."""
    start: Tensor
    """P of principal components (wide, narrow)."""

    @classmethod
    def fit(cls, features: Tensor, narrow: int) -> "Projection":
        """Computes them from typical features (count, tokens, wide), with P of `narrow` principal components."""
        flat = features.flatten(0, -2).double()
        mean, size = flat.mean(0), flat.std(0, correction=0).clamp(min=1e-6)
        seen = (flat - mean) / size
        relation = seen.T @ seen / len(seen)
        values, directions = torch.linalg.eigh(relation)
        if narrow > (known := int((values > 10 * EPS).sum())):
            raise ValueError(
                f"feature_size is {narrow}, but the features of {len(features)} samples differ in {known} directions: set "
                f"it to that or less, or give more samples."
            )
        start = directions.flip(1)[:, :narrow]
        return cls(*(part.float().contiguous() for part in (mean, size, relation, start)))

    def to(self, device: torch.device) -> "Projection":
        return Projection(*(part.to(device) for part in (self.mean, self.size, self.relation, self.start)))

    def project(self, features: Tensor, p: Tensor) -> Tensor:
        """Projects features (batch, tokens, wide) to z (batch, tokens, narrow),
        each channel of mean 0 and variance 1."""
        return (features - self.mean) / self.size @ p * self._scale(p)

    def covariance(self, p: Tensor) -> Tensor:
        """Computes the covariance of z's channels (narrow, narrow)."""
        scale = self._scale(p)
        return scale[:, None] * (p.T @ self.relation @ p) * scale

    def _scale(self, p: Tensor) -> Tensor:
        return (((self.relation @ p) * p).sum(0) + EPS).rsqrt()

    def penalty(self, p: Tensor) -> Tensor:
        """Computes Ortho and Cov: BatchNorm cannot prevent that all channels become copies of one."""
        same, covariance = torch.eye(p.shape[1]).to(p), self.covariance(p)
        apart = (covariance - covariance.diagonal().diag()).square().sum() / p.shape[1]
        return ORTHO * (p.T @ p - same).square().sum() + COV * apart


def effective_rank(covariance: Tensor) -> float:
    """Computes how many channels a covariance amounts to: e to the entropy of its eigenvalues' shares."""
    values = torch.linalg.eigvalsh(covariance.detach().double()).clamp(min=0)
    shares = values / values.sum().clamp(min=1e-12)
    return float(torch.special.entr(shares).sum().exp())


def overlap(one: Tensor, other: Tensor) -> float:
    """Computes how much of one's columns' space is the other's: 1 all, 0 nothing."""
    a, b = (torch.linalg.qr(part.detach().double())[0] for part in (one, other))
    return float((a.T @ b).square().sum() / a.shape[1])
