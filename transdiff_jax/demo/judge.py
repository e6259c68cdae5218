"""Judges generated digits with scikit-learn: agreement with the requested class, and a Fréchet distance."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int, UInt8

from transdiff_jax.config import DataConfig
from transdiff_jax.data.sources.digits import require_demo
from transdiff_jax.data.sources.open import open_source
from transdiff_jax.evaluation.metrics import frechet_distance
from transdiff_jax.evaluation.statistics import fit_gaussian

FEATURE_WIDTH = 32
FEATURE_SPACE = f"hidden layer ({FEATURE_WIDTH} ReLU units) of an MLP trained on the real training digits"


Images = UInt8[np.ndarray, "n height width channels"]
Labels = Int[np.ndarray, " n"]


def real_digits(config: DataConfig, split: str) -> tuple[Images, Labels]:
    """The real images and labels of a split."""
    source = open_source(dataclasses.replace(config, split=split))
    return np.stack([source[index]["image"] for index in range(len(source))]), source.labels()


def _flatten(images: Images) -> Float[np.ndarray, "n pixels"]:
    return images.reshape(len(images), images[0].size) / 255.0


class DigitsJudge:
    """A classifier and a feature space, both made from the real training digits alone.

    Attributes:
        classifier_accuracy: share of the held-out real digits that the classifier recognizes.
        frechet_floor: the distance between two random halves of the real digits. No generator can be expected to beat
            it.
    """

    def __init__(self, config: DataConfig) -> None:
        """Trains both.

        Raises:
            UserError: scikit-learn is not installed.
        """
        require_demo("sklearn")
        from sklearn.neural_network import MLPClassifier
        from sklearn.svm import SVC

        train_images, train_labels = real_digits(config, "train")
        test_images, test_labels = real_digits(config, "test")
        pixels = _flatten(train_images)
        self._classifier = SVC(C=10.0, gamma="scale").fit(pixels, train_labels)
        self._network = MLPClassifier(hidden_layer_sizes=(FEATURE_WIDTH,), max_iter=1000, random_state=0)
        self._network.fit(pixels, train_labels)
        self._held_out = fit_gaussian(self.features(test_images), "held-out digits")
        self.classifier_accuracy = float(self._classifier.score(_flatten(test_images), test_labels))
        self.frechet_floor = self._floor(np.concatenate([train_images, test_images]))

    def features(self, images: Images) -> Float[np.ndarray, "n width"]:
        """The features of images, in the space of the Fréchet distance."""
        hidden = _flatten(images) @ self._network.coefs_[0] + self._network.intercepts_[0]
        return np.maximum(hidden, 0)

    def _floor(self, images: Images) -> float:
        order = np.random.default_rng(0).permutation(len(images))
        first, second = np.array_split(self.features(images[order]), 2)
        return frechet_distance(fit_gaussian(first, "one half of the digits"), fit_gaussian(second, "the other half"))

    def class_agreement(self, images: Images, labels: Labels) -> float:
        """The share of images that the classifier takes for their label."""
        return float(self._classifier.score(_flatten(images), labels))

    def frechet(self, images: Images) -> float:
        """The Fréchet distance of the images' features to those of the held-out real digits."""
        return frechet_distance(fit_gaussian(self.features(images), "generated digits"), self._held_out)
