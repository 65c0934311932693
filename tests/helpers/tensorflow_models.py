"""Writes the models that only TensorFlow can write: ``python -m tests.helpers.tensorflow_models FOLDER``.

In a process of its own, since nothing else is to share one with it. ``expected.npz``
has what TensorFlow makes of the SavedModel for the input beside it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf  # noqa: TID253 - this module is run, never imported

layers = keras.layers


def write_tflite(folder: Path) -> None:
    rng = np.random.default_rng(0)

    def save(name: str, model: Any, *, quantise: str = "") -> None:
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if quantise:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantise == "int8":
            shape = [1 if d is None else d for d in model.inputs[0].shape]
            converter.representative_dataset = lambda: (
                [rng.standard_normal(shape).astype(np.float32)] for _ in range(8)
            )
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.int8
        elif quantise == "float16":
            converter.target_spec.supported_types = [tf.float16]
        (folder / f"{name}.tflite").write_bytes(converter.convert())

    def cnn(classes: int = 5) -> Any:
        model = keras.Sequential([
            keras.Input((16, 16, 3)),
            layers.Conv2D(8, 3, strides=2, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(6.0),
            layers.DepthwiseConv2D(3, padding="same", activation="relu"),
            layers.Conv2D(12, 1),
            layers.MaxPool2D(),
            layers.Flatten(),
            layers.Dense(classes, activation="softmax"),
        ])  # fmt: skip
        norm = model.layers[1]
        norm.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in norm.get_weights()])
        return model

    save("cnn", cnn())
    save("cnn_float16", cnn(), quantise="float16")
    save("cnn_int8", cnn(), quantise="int8")
    save(
        "mlp_weights",
        keras.Sequential([keras.Input((64,)), layers.Dense(64), layers.Dense(3)]),
        quantise="weights",
    )
    x = keras.Input((8, 8, 4))
    y = layers.Conv2D(4, 3, dilation_rate=2, padding="same")(x)
    y = layers.Concatenate()([x, y])
    y = layers.Conv2DTranspose(6, 3, strides=2, padding="same")(y)
    y = layers.UpSampling2D(interpolation="bilinear")(y)
    y = layers.AveragePooling2D(3, 2, padding="same")(layers.LeakyReLU()(y))
    y = layers.Permute((2, 1))(layers.Reshape((-1, 6))(layers.PReLU()(y)))
    save("picture", keras.Model(x, layers.Conv1D(3, 3)(y)))
    x = keras.Input((6, 16))
    y = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    save("attention", keras.Model(x, layers.Dense(16, activation="gelu")(y)))
    x = keras.Input(batch_shape=(1, 4, 3))
    save("recurrent", keras.Model(x, layers.GRU(4)(layers.LSTM(5, return_sequences=True)(x))))


def write_keras(folder: Path) -> None:
    """Two inputs and two outputs, with a recurrent layer; and one with Python in it."""
    picture, words = keras.Input((8, 8, 3), name="picture"), keras.Input((4, 3), name="words")
    seen = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(picture))
    read = layers.Bidirectional(layers.LSTM(5))(words)
    both = layers.Concatenate()([seen, read])
    model = keras.Model(
        [words, picture],
        [layers.Dense(2, name="kind")(both), layers.Dense(1, activation="sigmoid", name="sure")(both)],
    )
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")
    lambda_model = keras.Sequential([keras.Input((3,)), layers.Lambda(lambda v: v * 2)])
    lambda_model.save(folder / "lambda.keras")


class Reads(tf.Module):
    """Looks into a file of the machine on which it runs."""

    @tf.function(input_signature=[tf.TensorSpec([1], tf.float32)])
    def __call__(self, x: Any) -> Any:
        return x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)


def write_saved(folder: Path) -> None:
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, activation="tanh"), layers.Dense(3)])
    model.export(folder / "saved", verbose=False)
    given = np.random.default_rng(1).standard_normal((1, 6)).astype(np.float32)
    np.savez(folder / "expected.npz", given=given, made=model(given).numpy())
    tf.saved_model.save(Reads(), str(folder / "reads"))


if __name__ == "__main__":
    keras.utils.set_random_seed(3)
    write_tflite(Path(sys.argv[1]))
    write_keras(Path(sys.argv[1]))
    write_saved(Path(sys.argv[1]))
