"""Models that TensorFlow writes, once for all tests: importing it takes seconds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.frontends import others_warnings


@pytest.fixture(scope="session")
def keras_layers() -> Any:
    pytest.importorskip("tensorflow", reason="the extra 'tensorflow' is not installed")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with others_warnings():
        import keras
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(3)
    return keras, tf


@pytest.fixture(scope="session")
def tflite_files(keras_layers: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    keras, tf = keras_layers
    folder = tmp_path_factory.mktemp("tflite")
    layers = keras.layers
    rng = np.random.default_rng(0)
    made: dict[str, Path] = {}

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
        made[name] = folder / f"{name}.tflite"
        made[name].write_bytes(converter.convert())

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

    with others_warnings():
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
    return made


@pytest.fixture(scope="session")
def keras_files(keras_layers: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One network with two inputs and two outputs as ``.keras`` and ``.h5``, a plain one as SavedModel."""
    keras, _ = keras_layers
    folder = tmp_path_factory.mktemp("keras")
    layers = keras.layers
    with others_warnings():
        picture, words = keras.Input((8, 8, 3), name="picture"), keras.Input((4, 3), name="words")
        seen = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(picture))
        read = layers.Bidirectional(layers.LSTM(5))(words)
        both = layers.Concatenate()([seen, read])
        model = keras.Model(
            [words, picture],
            [layers.Dense(2, name="kind")(both), layers.Dense(1, activation="sigmoid", name="sure")(both)],
        )
        made = {"keras": folder / "model.keras", "h5": folder / "model.h5", "savedmodel": folder / "saved"}
        model.save(made["keras"])
        model.save(made["h5"])
        keras.Sequential([keras.Input((6,)), layers.Dense(4, activation="tanh")]).export(
            made["savedmodel"], verbose=False
        )
        lambda_model = keras.Sequential([keras.Input((3,)), layers.Lambda(lambda v: v * 2)])
        made["lambda"] = folder / "lambda.keras"
        lambda_model.save(made["lambda"])
    return made
