"""How well numbers stand for others, and the regression that others are held against."""

import numpy as np


def r2(truth, guess):
    """Coefficient of determination of each column of [T, d]."""
    residual = ((truth - guess) ** 2).sum(0)
    return 1 - residual / ((truth - truth.mean(0)) ** 2).sum(0)


def auroc(positive, negative):
    """The chance that a score of `positive` [n] is above one of `negative` [m], ties half."""
    above = positive[:, None] > negative
    return float(np.mean(above + 0.5 * (positive[:, None] == negative)))


def ridge(x, y, alpha):
    """Weights [C, d] and intercept [d] of a ridge regression of y [T, d] on x [T, C]."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = x - mean_x
    gram = centred.T @ centred + alpha * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (y - mean_y))
    return weights, mean_y - mean_x @ weights
