"""Float training as a device does it: plain SGD, one sample a step, in the order in which the device takes them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from tinypeft.benchmark.datasets import BenchmarkDataset, Samples
from tinypeft.benchmark.float_network import folded_weights, head_of, load, rebuild

_BATCH = 100  # of measuring only


class FloatTrainer:
    """Trains models of one architecture by `method`: "base" (nothing), "head" (last dense layer), "lora", "full".

    "lora": rank-4 adapters on convolutions and dense layers, not on depthwise ones, and the head whole. The loss is
    softmax cross-entropy, classes weighted as the dataset says, where its metric is "accuracy", mean squared error
    where it is "mse". Tracing takes seconds, so one trainer serves many runs: `start` sets it to a base model and a
    fresh adapter.
    """

    def __init__(self, path: Path, method: str, dataset: BenchmarkDataset):
        import tensorflow as tf

        self.metric = dataset.metric
        self.class_weights = dataset.class_weights
        self.base_path = path
        model = load(path)
        labels = dataset.metric == "accuracy"
        self.network, self.adapters = rebuild(model, labels, method == "lora", dataset.target_modules)
        self._weights = folded_weights(model)
        head = head_of(self.network).weights
        adapted = [weight for pair in self.adapters.values() for layer in pair for weight in layer.weights]
        by_method = {"base": [], "head": head, "lora": adapted + head, "full": self.network.trainable_weights}
        self.trained = by_method[method]
        x = tf.TensorSpec((None, *self.network.input_shape[1:]))
        y = tf.TensorSpec((None,), tf.int64) if labels else tf.TensorSpec((None, *self.network.output_shape[1:]))
        arguments = [x, y, tf.TensorSpec((None,), tf.int64), tf.TensorSpec(())]
        self._epoch = tf.function(self._train_epoch, input_signature=arguments)
        self._forward = tf.function(lambda x: self.network(x, training=False), input_signature=[x])

    def start(self, path: Path, seed: int) -> None:
        """Be the base model `path`, with an adapter drawn by `seed`: A uniform of variance 1 / fan-in, B zero."""
        if path != self.base_path:
            self.base_path, self._weights = path, folded_weights(load(path))
        for name, weights in self._weights.items():
            self.network.get_layer(name).set_weights(weights)
        random = np.random.RandomState(seed)
        for down, up in self.adapters.values():
            shape = down.kernel.shape
            bound = math.sqrt(3 / math.prod(shape[:-1]))
            down.set_weights([random.uniform(-bound, bound, shape).astype(np.float32)])
            up.set_weights([np.zeros(up.kernel.shape, np.float32)])

    def train(self, samples: Samples, epochs: int, rate: float, seed: int) -> list[float]:
        """The mean loss of each epoch of SGD, one sample a step, shuffled as `personalise.train_adapter` does."""
        import tensorflow as tf

        x, y = tf.constant(samples.x), tf.constant(samples.y)
        shuffle = np.random.RandomState(seed)
        losses = []
        for _ in range(epochs):
            order = shuffle.permutation(len(samples)).astype(np.int64)
            losses.append(float(self._epoch(x, y, tf.constant(order), tf.constant(rate, tf.float32))))
        return losses

    def outputs(self, x: np.ndarray) -> np.ndarray:
        """Logits, or reconstructions, of x (N, ...)."""
        return np.concatenate([self._forward(x[i : i + _BATCH]).numpy() for i in range(0, len(x), _BATCH)])

    def measure(self, samples: Samples) -> float:
        """The metric on `samples`; a diverged classifier's answer is class 0."""
        outputs = self.outputs(samples.x)
        if self.metric == "accuracy":
            return float(np.mean(np.nan_to_num(outputs, nan=0.0).argmax(axis=-1) == samples.y))
        return float(np.mean(np.square(outputs.astype(np.float64) - samples.y)))

    def _train_epoch(self, x: Any, y: Any, order: Any, rate: Any) -> Any:
        import tensorflow as tf

        def step(position: Any, total: Any) -> tuple[Any, Any]:
            index = order[position]
            with tf.GradientTape() as tape:
                output = self.network(x[index][None], training=False)[0]
                if self.metric == "accuracy":
                    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y[index], output)
                    if self.class_weights:
                        loss *= tf.constant(self.class_weights)[y[index]]
                else:
                    loss = tf.reduce_mean(tf.square(output - y[index]))
            variables = [weight.value for weight in self.trained]
            for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
                variable.assign_sub(rate * gradient)
            return position + 1, total + loss

        count = tf.size(order)
        _, total = tf.while_loop(
            lambda position, total: position < count, step, (tf.constant(0), tf.constant(0.0)), parallel_iterations=1
        )
        return total / tf.cast(count, tf.float32)
