"""`exact_head` for Keras, on whatever backend: against the estimators on the extracted features."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from elltwo import LOO, InputError, KFold, LogisticRegression, Ridge, RidgeClassifier
from elltwo.folds import DealtFolds
from elltwo.keras import exact_head

numpy = keras.ops.convert_to_numpy


def network(p=10, width=16, dtype="float32"):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((p,), dtype=dtype)
    hidden = layers.Dense(width, activation="tanh", dtype=dtype)(inputs)
    return keras.Model(inputs, layers.Dropout(0.5, dtype=dtype)(hidden))


def rows(n=300, p=10, T=3, dtype="float32"):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, p)).astype(dtype)
    return x, x[:, :T] + 0.5 * rng.normal(size=(n, T))


X, Y = rows()
LABELS = Y.argmax(1)


def features(net, x, batch_size=64):
    """Return the features in the batches of the fit: a batch of another size may round otherwise."""
    parts = [net.predict_on_batch(x[i : i + batch_size]) for i in range(0, len(x), batch_size)]
    return np.concatenate([numpy(part) for part in parts]).astype(np.float64)


def agree(result, coef, intercept, tolerance=1e-10):
    weight = np.atleast_2d(coef)
    scale = np.abs(weight).max()
    np.testing.assert_allclose(result.weight, weight, rtol=0, atol=tolerance * scale)
    bias = np.broadcast_to(np.ravel(intercept), result.bias.shape)
    np.testing.assert_allclose(result.bias, bias, rtol=0, atol=10 * tolerance * scale)


def fitted(net, data, **options):
    return exact_head(net, data, batch_size=64, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rule", ["loo", "gcv", "reml", "aic", 3.0])
def test_regression_is_ridge_on_the_features(rule, dtype):
    if dtype == "float64" and keras.backend.backend() == "jax":
        dtype = "float32"  # JAX computes in float32 unless it is told otherwise when it starts
    net, (x, y) = network(dtype=dtype), rows(dtype=dtype)
    result = fitted(net, (x, y), alpha=rule, dtype=dtype)
    model = Ridge(rule).fit(features(net, x), y)
    agree(result, model.coef_, model.intercept_)
    assert result.passes == (2 if rule == "loo" else 1)
    eta = numpy(result.head(net.predict_on_batch(x)))
    np.testing.assert_allclose(eta, model.predict(features(net, x)), atol=1e-4)


@pytest.mark.parametrize("rule", ["loo", "gcv", 3.0])
@pytest.mark.parametrize("classes", [2, 3])
def test_classes_by_squared_error_are_ridge_classifier(rule, classes):
    net, labels = network(), Y[:, :classes].argmax(1)
    result = fitted(net, (X, labels), alpha=rule)
    model = RidgeClassifier(rule).fit(features(net, X), labels)
    coef, bias = model.coef_, model.intercept_
    if classes == 2:
        coef, bias = np.vstack([-coef, coef]), np.concatenate([-bias, bias])
    agree(result, coef, bias)
    predicted = numpy(result.head(net.predict_on_batch(X))).argmax(1)
    np.testing.assert_array_equal(predicted, model.predict(features(net, X)))


@pytest.mark.parametrize("rule", [LOO(np.logspace(-1, 2, 4)), 3.0])
def test_log_loss_is_logistic_regression_and_takes_softmax_heads(rule):
    net = network(width=6)
    head = layers.Dense(3, activation="softmax")
    result = fitted(net, (X, LABELS), alpha=rule, loss="logistic", head=head)
    model = LogisticRegression(rule).fit(features(net, X), LABELS)
    agree(result, model.coef_, model.intercept_)
    assert result.head is head
    assert result.passes == 1
    p = numpy(head(net.predict_on_batch(X)))
    np.testing.assert_allclose(p, model.predict_proba(features(net, X)), atol=1e-5)


def test_sigmoid_heads_of_one_output():
    net, labels = network(width=6), (Y[:, 0] > 0).astype("float32")
    head = layers.Dense(1, activation="sigmoid")
    fitted(net, (X, labels[:, None]), alpha=2.0, loss="logistic", head=head)
    model = LogisticRegression(2.0).fit(features(net, X), labels)
    p = numpy(head(net.predict_on_batch(X)))[:, 0]
    np.testing.assert_allclose(p, model.predict_proba(features(net, X))[:, 1], atol=1e-5)


class Batches(keras.utils.PyDataset):
    """Rows in batches of 64, which Keras would shuffle after each epoch."""

    def __init__(self, *columns):
        super().__init__()
        self.columns = columns

    def __len__(self):
        return -(-len(self.columns[0]) // 64)

    def __getitem__(self, i):
        return tuple(column[64 * i : 64 * i + 64] for column in self.columns)

    def on_epoch_end(self):
        self.columns = tuple(column[::-1] for column in self.columns)


@pytest.mark.parametrize("rule", ["loo", "kfold"])
def test_every_kind_of_dataset(rule):
    net, w = network(), np.random.default_rng(0).integers(0, 3, 300)
    model = Ridge(KFold(DealtFolds(5)) if rule == "kfold" else rule, weights_are="frequency")
    model.fit(features(net, X), Y, sample_weight=w)
    listed = [Batches(X, Y, w)[i] for i in range(5)]
    dicts = [{"image": x, "target": y, "w": v} for x, y, v in listed]
    for data in (Batches(X, Y, w), (X, Y, w), listed, (X.tolist(), Y.tolist(), w)):
        agree(fitted(net, data, alpha=rule, weights_are="frequency"), model.coef_, model.intercept_)
    result = fitted(net, dicts, alpha=rule, keys=("image", "target", "w"), weights_are="frequency")
    agree(result, model.coef_, model.intercept_)
    assert result.fit.weights == "frequency"


if keras.backend.backend() == "tensorflow":

    def test_tf_data():
        import tensorflow as tf

        net = network()
        data = tf.data.Dataset.from_tensor_slices((X, Y))
        model = Ridge().fit(features(net, X), Y)
        agree(exact_head(net, data.batch(64)), model.coef_, model.intercept_)
        with pytest.raises(InputError, match="differ from those of the pass before"):
            exact_head(net, data.shuffle(300).batch(64))


def test_layers_and_functions_as_backbones():
    net = network()
    model = Ridge(2.0).fit(features(net, X), Y)
    sequence = keras.Sequential([layers.Reshape((2, 5)), layers.Lambda(keras.ops.square)])
    square = Ridge(2.0).fit(X.astype(np.float64) ** 2, Y)
    agree(fitted(lambda x: net(x, training=False), (X, Y), alpha=2.0), model.coef_, model.intercept_, 1e-5)
    agree(fitted(sequence, (X, Y), alpha=2.0), square.coef_, square.intercept_, 1e-5)
    agree(fitted(layers.Flatten(), (X, Y), alpha=2.0), *_ridge(X, Y))


def _ridge(x, y):
    model = Ridge(2.0).fit(x, y)
    return model.coef_, model.intercept_


def test_half_precision_features_are_multiplied_in_double():
    half = keras.Sequential([keras.Input((10,)), layers.Dense(8, dtype="mixed_bfloat16")])
    result = fitted(half, (X, Y), alpha=1.0)
    F = np.concatenate([np.asarray(b.X, dtype=np.float64) for b in _features(half)])
    model = Ridge(1.0).fit(F, Y)
    agree(result, model.coef_, model.intercept_)
    assert np.unique(F).size < np.unique(X).size  # rounded to 8 bits


def _features(net):
    from elltwo.keras.head import _Batches, _Slices

    return _Batches(net, _Slices([X, Y], 64), None).features()


def test_built_heads_are_written_in_place():
    net = network()
    head = layers.Dense(3, use_bias=False)
    head.build((None, 16))
    kernel = head.kernel
    model = Ridge(fit_intercept=False).fit(features(net, X), Y)
    fitted(net, (X, Y), head=head)
    assert head.kernel is kernel
    np.testing.assert_allclose(kernel.numpy(), model.coef_.T, rtol=1e-5, atol=1e-6)


MODEL = network()
QUANTISED = layers.Dense(3)
QUANTISED.build((None, 16))
QUANTISED.enable_lora(2)
BUILT = layers.Dense(3)
BUILT.build((None, 15))
BAD = [
    ([], {}, "no batches"),
    (iter([(X, Y)]), {}, "can be read only once"),
    ((X, Y[:5]), {}, "different numbers of rows: 5, 300"),
    ((X,), {}, "a tuple of 1"),
    ((X, LABELS - 1), {}, r"label in row \d+ of batch 0 is -1"),
    ((X, LABELS), {"head": layers.Dense(2)}, r"label 2 in row \d+ of batch 0 is too large"),
    ((X, Y), {"head": layers.Dense(2)}, r"2 output\(s\), but the targets have 3"),
    ((X, Y), {"head": BUILT}, "takes 15 .* to 3 .*, but the backbone gives 16"),
    ((X, Y), {"head": layers.Conv1D(3, 1)}, "head is a Conv1D"),
    ((X, Y), {"head": QUANTISED}, "LoRA"),
    ((X, Y), {"head": layers.Dense(3, activation="relu")}, "activation 'relu'.*squared loss"),
    ((X, LABELS), {"head": layers.Dense(3, activation="softmax")}, "loss='logistic' for a softmax"),
    ((X, LABELS), {"head": layers.Dense(3, activation="sigmoid"), "loss": "logistic"}, "'sigmoid'"),
    ((X, Y), {"head": layers.Dense(3, use_bias=False), "fit_intercept": True}, "no bias to hold it"),
    ((X, Y), {"head": layers.Dense(3), "dtype": "float64"}, "is for a new layer"),
    ((X, Y), {"head": MODEL.layers[1]}, "head is a layer of the backbone"),
    ((np.where(X[:, :1] == X[70, 0], np.nan, X), Y), {"alpha": "gcv"}, "in batch 1, first in its row 6"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "options", "message"), BAD, ids=[m for *_, m in BAD])
def test_bad_input_is_refused(data, options, message):
    with pytest.raises(InputError, match=message):
        fitted(MODEL, data, **options)


class Tied(layers.Dense):
    """A head that computes with the kernel of another layer."""

    def build(self, shape):
        super().build(shape)
        self._kernel = MODEL.layers[1].kernel


def test_a_head_that_shares_weights_with_the_backbone_is_refused():
    before = numpy(MODEL.layers[1].kernel)
    built = Tied(16)
    built.build((None, 10))
    wide = keras.Sequential([MODEL, layers.Dense(10)])  # as many features as the kernel takes
    for head in (built, Tied(16)):
        with pytest.raises(InputError, match=r"kernel of head is shared with the backbone"):
            exact_head(wide, (X, np.tile(Y, 6)[:, :16]), head=head)
    np.testing.assert_array_equal(numpy(MODEL.layers[1].kernel), before)


@pytest.mark.parametrize("size", [0, 2.5, True])
def test_batch_sizes_that_are_none(size):
    with pytest.raises(InputError, match="batch_size must be a whole number"):
        exact_head(MODEL, (X, Y), batch_size=size)


def test_weights_too_large_for_the_head_are_not_written():
    head = layers.Dense(3, dtype="float16")
    with pytest.raises(InputError, match=r"too large for a layer in float16"):
        fitted(lambda x: x * 1e-7, (X, Y), head=head, alpha=0.0)
    assert not head.built
