"""The Inception network of published scores: preprocessing, network, weights."""
