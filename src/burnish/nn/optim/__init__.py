"""Optimisers: what moves the weights, in which number format, and how fast."""

from burnish.nn.optim.optimizer import Optimizer
from burnish.nn.optim.schedules import ScheduleName, learning_rates
from burnish.nn.optim.settings import MasterWeights, OptimizerName, OptimizerSettings
from burnish.nn.optim.sizes import optimizer_bytes

__all__ = [
    "MasterWeights",
    "Optimizer",
    "OptimizerName",
    "OptimizerSettings",
    "ScheduleName",
    "learning_rates",
    "optimizer_bytes",
]
