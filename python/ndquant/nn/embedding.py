"""Tables of vectors."""

from __future__ import annotations

import numpy as np

from ..graph.module import Module, Parameter
from ..graph.tracing import apply
from ..ops.embedding import embedding_attributes
from ..ops.record import whole_number


class Embedding(Module):
    """A vector for each of a number of tokens.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Rows of the table, and features of each.
    padding_idx : int, optional
        A row that begins with zeros and is not trained.
    rng : None, int or numpy.random.Generator, default None
        For the initial weights: normal, as in PyTorch. None takes fresh entropy.

    Attributes
    ----------
    weight : ndarray of float32, shape (num_embeddings, embedding_dim)

    Examples
    --------
    >>> import numpy as np
    >>> from ndquant import nn
    >>> layer = nn.Embedding(10, 4, rng=0)
    >>> layer(np.array([[1, 2, 3]])).shape
    (1, 3, 4)
    """

    def __init__(self, num_embeddings, embedding_dim, padding_idx=None, *, rng=None):
        self.num_embeddings = whole_number(num_embeddings, "num_embeddings", least=1)
        self.embedding_dim = whole_number(embedding_dim, "embedding_dim", least=1)
        self.padding_idx = embedding_attributes(padding_idx)["padding_idx"]
        table = np.random.default_rng(rng).standard_normal((num_embeddings, embedding_dim))
        if padding_idx is not None:
            if padding_idx >= num_embeddings:
                raise ValueError(f"padding_idx must be below {num_embeddings}, not {padding_idx}")
            table[padding_idx] = 0
        self.weight = Parameter(table)

    def forward(self, x):
        """Record the layer."""
        return apply("embedding", x, module=self, attributes={"padding_idx": self.padding_idx})

    def extra_repr(self):
        """Return the sizes."""
        return f"{self.num_embeddings}, {self.embedding_dim}, padding_idx={self.padding_idx}"
