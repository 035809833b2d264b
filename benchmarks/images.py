"""Images with the statistics of natural ones: 1/f noise in correlated channels, and pieces of photographs.

The power spectrum of photographs falls as 1/f² whatever they show (Field 1987), and their colour channels
hardly differ. Neighbouring pixels are then alike, which is what a network's positions have to do with its
gradients; uncorrelated noise would hide it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pink_images(
    n: int = 100,
    shape: Sequence[int] = (3, 32, 32),
    *,
    seed: int,
    correlation: float = 0.9,
    classes: int = 10,
) -> tuple[np.ndarray, np.ndarray]:
    """`n` Gaussian images whose amplitudes fall as 1/f, and labels that have nothing to do with them.

    Images are periodic. The frequency 0, which would be infinite, gets the amplitude of the lowest other one.
    Every pixel is centred over the images and one scale makes the mean squared entry 1.

    Args:
        n: number of images.
        shape: channels, height and width.
        seed: of the noise.
        correlation: between any two channels at the same pixel.
        classes: number of labels, each as frequent as the others. Since the images are independent, labels in
            turn are random labels.

    Returns:
        inputs of shape (n, *shape), targets of shape (n,).
    """
    channels, height, width = shape
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((n, 1, height, width))
    own = rng.standard_normal((n, channels, height, width))
    white = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    amplitude = 1 / np.maximum(frequency, 1 / max(height, width))
    images = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=(height, width))
    images -= images.mean(axis=0)
    return images / np.sqrt(np.mean(images**2)), np.arange(n) % classes


def photo_images(
    n: int = 100, size: int = 32, *, seed: int, classes: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """`n` square pieces of the two photographs that scikit-learn ships, shrunk by 1 to 8 times.

    Unlike 1/f noise they differ in brightness and contrast, as the images of a data set do. Each channel gets
    mean 0 and variance 1 over all pieces, as data sets are usually standardised; labels are as in
    `pink_images`.

    Returns:
        inputs of shape (n, 3, size, size), targets of shape (n,).
    """
    from sklearn.datasets import load_sample_images

    photographs = [np.asarray(photograph, dtype=float) for photograph in load_sample_images().images]
    rng = np.random.default_rng(seed)
    pieces = np.empty((n, 3, size, size))
    for index in range(n):
        photograph = photographs[index % len(photographs)]
        shrunk = int(rng.integers(1, 9))
        edge = size * shrunk
        top, left = (int(rng.integers(0, extent - edge + 1)) for extent in photograph.shape[:2])
        piece = photograph[top : top + edge, left : left + edge].reshape(size, shrunk, size, shrunk, 3)
        pieces[index] = piece.mean(axis=(1, 3)).transpose(2, 0, 1)
    pieces -= pieces.mean(axis=(0, 2, 3), keepdims=True)
    return pieces / pieces.std(axis=(0, 2, 3), keepdims=True), np.arange(n) % classes


def gratings(
    n: int = 100, shape: Sequence[int] = (1, 8, 8), *, seed: int, noise: float = 0.7, classes: int = 10
) -> tuple[np.ndarray, np.ndarray]:
    """Images of oriented gratings in noise; the class is the orientation.

    Orientation, frequency and phase vary within a class, so that no linear map tells all of them apart.

    Args:
        n: number of images.
        shape: channels, which are alike but for the noise, height and width.
        seed: of everything random.
        noise: standard deviation of each pixel's noise; the grating has mean square 1.
        classes: number of orientations, in turn.

    Returns:
        inputs of shape (n, *shape), targets of shape (n,).
    """
    channels, height, width = shape
    rng = np.random.default_rng([seed, 0x67])
    targets = np.arange(n) % classes
    angle = np.pi * targets / classes + rng.normal(0.0, 0.05, n)
    frequency, phase = rng.uniform(0.12, 0.25, n), rng.normal(0.0, 0.8, n)
    x, y = np.arange(width) - (width - 1) / 2, np.arange(height) - (height - 1) / 2
    along = np.cos(angle)[:, None, None] * x + np.sin(angle)[:, None, None] * y[:, None]
    waves = np.sqrt(2.0) * np.cos(2 * np.pi * frequency[:, None, None] * along + phase[:, None, None])
    return waves[:, None] + noise * rng.standard_normal((n, channels, height, width)), targets
