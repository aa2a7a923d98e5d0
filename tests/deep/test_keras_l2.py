"""`apply_l2` and `explain` for Keras, on whatever backend: the same as a regulariser set at construction."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from elltwo.errors import InputError
from elltwo.keras import apply_l2, explain

L2 = 0.03


def regularizer(on):
    return keras.regularizers.L2(L2) if on else None


@pytest.fixture(autouse=True)
def fresh():
    """Number the layers' names from the start, and draw the same weights."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


def sequential(on=False):
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.Conv2D(3, 3, kernel_regularizer=regularizer(on)),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(2, depthwise_regularizer=regularizer(on)),
            layers.SeparableConv2D(
                4, 2, depthwise_regularizer=regularizer(on), pointwise_regularizer=regularizer(on)
            ),
            layers.PReLU(),
            layers.Flatten(),
            layers.Dense(1, kernel_regularizer=regularizer(on)),
        ]
    )


def recurrent(on=False):
    own = {"kernel_regularizer": regularizer(on), "recurrent_regularizer": regularizer(on)}
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(7, 4)(inputs)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True, **own))(x)
    x = layers.SimpleRNN(3, return_sequences=True, **own)(x)
    x = layers.GRU(3, **own)(x)
    return keras.Model(inputs, layers.Dense(1, kernel_regularizer=regularizer(on))(x))


def attention(on=False):
    """Functional, with a nested model that is shared, and a layer that is shared."""
    block_in = keras.Input((4, 6))
    x = layers.LayerNormalization()(block_in)
    x = layers.MultiHeadAttention(2, 3, kernel_regularizer=regularizer(on))(x, x)
    x = layers.Add()([x, block_in])
    x = layers.RMSNormalization()(x)
    x = layers.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d", kernel_regularizer=regularizer(on))(x)
    block = keras.Model(block_in, x)
    shared = layers.Dense(6, kernel_regularizer=regularizer(on))
    inputs = keras.Input((4, 6))
    x = shared(block(shared(block(inputs))))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(1, kernel_regularizer=regularizer(on))(x))


@keras.saving.register_keras_serializable("elltwo-tests")
class Subclassed(keras.Model):
    def __init__(self, on=False, **kwargs):
        super().__init__(**kwargs)
        self.hidden = [
            layers.Dense(5, activation="tanh", kernel_regularizer=regularizer(on)) for _ in range(2)
        ]
        self.norm = layers.GroupNormalization(1)
        self.out = layers.Dense(1, kernel_regularizer=regularizer(on))

    def call(self, x):
        for layer in self.hidden:
            x = layer(x)
        return self.out(self.norm(x))


def subclassed(on=False):
    model = Subclassed(on)
    model(np.zeros((1, 4), "float32"))
    return model


def convolutional_recurrent(on=False):
    own = {"kernel_regularizer": regularizer(on), "recurrent_regularizer": regularizer(on)}
    return keras.Sequential(
        [
            keras.Input((3, 5, 2)),
            layers.ConvLSTM1D(2, 1, **own),
            layers.Flatten(),
            layers.Dense(1, kernel_regularizer=regularizer(on)),
        ]
    )


MODELS = {
    "sequential": (sequential, (6, 6, 2)),
    "recurrent": (recurrent, (5,)),
    "attention": (attention, (4, 6)),
    "subclassed": (subclassed, (4,)),
    "convolutional_recurrent": (convolutional_recurrent, (3, 5, 2)),
}
models = pytest.mark.parametrize(("make", "shape"), MODELS.values(), ids=MODELS.keys())


def rows(shape, n=8):
    random = np.random.default_rng(1)
    X = (
        random.normal(size=(n, *shape))
        if len(shape) > 1 or shape == (4,)
        else random.integers(0, 7, (n, *shape))
    )
    return X.astype("float32" if X.dtype.kind == "f" else "int32"), random.normal(size=(n, 1)).astype(
        "float32"
    )


def losses(model):
    return sorted(float(keras.ops.convert_to_numpy(loss)) for loss in model.losses)


def decayed(model, **options):
    return {row.names[0] for row in explain(model, **options).rows if row.decayed}


@models
def test_the_same_losses_as_at_construction(make, shape):
    plain, built_in = make(), make(on=True)
    built_in.set_weights(plain.get_weights())
    assert losses(plain) == []
    apply_l2(plain, L2)
    assert len(losses(plain)) == len(losses(built_in)) > 0
    np.testing.assert_allclose(losses(plain), losses(built_in), rtol=1e-6)


@pytest.mark.parametrize(("make", "shape"), [MODELS["attention"], MODELS["subclassed"]])
def test_the_same_steps_as_at_construction(make, shape):
    X, y = rows(shape)
    trained = []
    start = make().get_weights()
    for on in (True, False):
        model = make(on)
        model.set_weights(start)
        if not on:
            apply_l2(model, L2)
        model.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=False)
        model.fit(X, y, epochs=2, batch_size=8, shuffle=False, verbose=0)
        trained.append(model.get_weights())
    for a, b in zip(*trained, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_steps_that_were_traced_before_are_not_taken_again():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    X, y = np.zeros((4, 2)), np.zeros((4, 1))
    model.train_on_batch(X, y)
    model.test_on_batch(X, y)
    start = keras.ops.convert_to_numpy(model.weights[0])

    def stale(*_):
        raise AssertionError("a step from before the penalty")

    model.train_function = model.test_function = stale
    apply_l2(model, 0.25)
    assert model.test_on_batch(X, y) == pytest.approx(0.25 * (start.astype(float) ** 2).sum(), rel=1e-5)
    model.train_on_batch(X, y)  # the gradient is that of the penalty alone: 2·0.25·w
    stepped = keras.ops.convert_to_numpy(model.weights[0])
    np.testing.assert_allclose(stepped, (1 - 0.5 * 0.5) * start, rtol=1e-5)


def test_a_compiled_and_trained_model_takes_it_up():
    X, y = rows((4,))
    results = []
    start = subclassed().get_weights()
    for late in (False, True):
        model = subclassed()
        model.set_weights(start)
        if not late:
            apply_l2(model, L2)
        model.compile(keras.optimizers.SGD(0.0), "mse")
        model.fit(X, y, verbose=0)  # traces the step
        before = model.evaluate(X, y, verbose=0)
        if late:
            apply_l2(model, L2)
            assert model.evaluate(X, y, verbose=0) > before
        model.optimizer.learning_rate = 0.05
        model.fit(X, y, epochs=2, batch_size=8, shuffle=False, verbose=0)
        results.append([model.evaluate(X, y, verbose=0), *model.get_weights()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


@models
def test_a_saved_model_of_keras_layers_keeps_the_penalty(make, shape, tmp_path):
    if make is subclassed:  # rebuilt by its own constructor, whatever was done to it afterwards
        model = make()
        apply_l2(model, L2)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert losses(loaded) == []
        apply_l2(loaded, L2)
    else:
        model = make()
        apply_l2(model, L2)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(losses(loaded), losses(model), rtol=1e-6)


def test_a_second_call_does_not_count_twice():
    model = attention()
    first = apply_l2(model, L2)
    once = losses(model)
    assert apply_l2(model, L2) == first
    assert losses(model) == once
    with pytest.raises(InputError, match=r"already have another regulariser.*replace=True"):
        apply_l2(model, 2 * L2)
    assert losses(model) == once
    apply_l2(model, 2 * L2, replace=True)
    np.testing.assert_allclose(losses(model), 2 * np.array(once), rtol=1e-6)
    apply_l2(model, 0, replace=True)
    assert losses(model) == []


def row(table, name):
    return next(r for r in table.rows if r.names[0].endswith(name))


def test_nothing_takes_the_penalty_off():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="a"), layers.Dense(2, name="b")])
    apply_l2(model, 0.1)
    table = apply_l2(model, 0)
    assert losses(model) == []
    assert table.decayed == 0
    assert {r.decayed for r in table.rows} == {False}
    assert "l2 is 0" in row(table, "a/kernel").why


def test_nothing_takes_no_other_regulariser_off():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, kernel_regularizer="l1", name="a")])
    with pytest.raises(InputError, match=r"a/kernel' already has another"):
        apply_l2(model, 0)
    assert len(losses(model)) == 1


@pytest.mark.parametrize("l2", [0.1, 0])
def test_the_table_tells_of_penalties_that_are_kept(l2):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, bias_regularizer="l1", name="a"),
            layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.25), name="b"),
        ]
    )
    table = apply_l2(model, l2, rules={lambda use: use.name.endswith("b/kernel"): False})
    assert row(table, "a/bias").kept == "L1(l1=0.01)"
    assert row(table, "b/kernel").kept == "L2(l2=0.25)"
    assert row(table, "a/kernel").kept == ""
    assert row(table, "b/kernel").decayed
    assert table.decayed == 4 + 8 + (12 if l2 else 0)
    assert "L2(l2=0.25) from before" in str(table)
    assert len(losses(model)) == (3 if l2 else 2)


def test_another_regulariser_is_not_replaced_unasked():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4), layers.Dense(2, kernel_regularizer="l1", name="sparse")]
    )
    before = losses(model)
    with pytest.raises(InputError, match=r"sparse/kernel' already has another"):
        apply_l2(model, 0.1)
    assert losses(model) == before
    apply_l2(model, 0.1, rules={lambda use: use.module.name == "sparse": False})
    assert len(losses(model)) == 2


def test_regularisers_of_other_weights_are_kept():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, bias_regularizer="l1", bias_initializer="ones")]
    )
    apply_l2(model, 0.1, replace=True)
    assert len(losses(model)) == 2


def test_roles():
    assert sorted(decayed(sequential())) == [
        "sequential/conv2d/kernel",
        "sequential/dense/kernel",
        "sequential/depthwise_conv2d/kernel",
        "sequential/separable_conv2d/depthwise_kernel",
        "sequential/separable_conv2d/pointwise_kernel",
    ]
    table = explain(sequential())
    assert len(table.rows) == len(sequential().trainable_weights)
    assert {row.role for row in table.rows} == {"weight", "bias", "norm", "vector"}
    assert explain(recurrent()).rows[0].role == "embedding"
    gru = explain(keras.Sequential([keras.Input((3, 2)), layers.GRU(4)]))
    assert [(row.role, len(row.shape)) for row in gru.rows] == [("weight", 2), ("weight", 2), ("bias", 2)]


def test_a_marked_weight_is_exempt():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="a"), layers.Dense(2, name="b")])
    model.layers[0].kernel._no_weight_decay = True
    assert [row.role for row in explain(model).rows] == ["exempt", "bias", "weight", "bias"]
    apply_l2(model, L2)
    kernel = keras.ops.convert_to_numpy(model.layers[1].kernel).astype(float)
    assert sum(losses(model)) == pytest.approx(L2 * (kernel**2).sum(), rel=1e-5)


def test_attention_biases_of_two_axes_are_no_matrices():
    table = explain(attention())
    biases = [row for row in table.rows if row.role == "bias"]
    assert {len(row.shape) for row in biases} == {1, 2}
    assert not any(row.decayed for row in biases)


def test_shared_layers_are_listed_and_counted_once():
    model = attention()
    names = [row.names for row in explain(model).rows]
    assert len(names) == len(set(names)) == len(model.weights)
    apply_l2(model, 1.0)
    kernels = [keras.ops.convert_to_numpy(w) for w in model.weights if w.path.endswith("kernel")]
    assert sum(losses(model)) == pytest.approx(sum((k.astype(float) ** 2).sum() for k in kernels), rel=1e-5)


def test_custom_layers():
    class Scale(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1],), name="kernel")

    class MyRMSNorm(layers.Layer):
        def build(self, shape):
            self.weight = self.add_weight(shape=(2, shape[-1]), name="weight")

    class LowRank(layers.Layer):
        def build(self, shape):
            self.A = self.add_weight(shape=(shape[-1], 2), name="bias")
            self.B = self.add_weight(shape=(2, 3), name="gamma")

    class MyDense(layers.Dense):
        pass

    found = {}
    for kind in (Scale, MyRMSNorm, LowRank, lambda: MyDense(2)):
        layer = kind()
        layer.build((None, 4))
        found[type(layer).__name__] = [(row.role, row.decayed) for row in explain(layer).rows]
    assert found == {
        "Scale": [("vector", False)],
        "MyRMSNorm": [("norm", False)],
        "LowRank": [("weight", True), ("weight", True)],
        "MyDense": [("weight", True), ("bias", False)],
    }


def test_a_weight_that_is_divided_by_its_norm_is_left_out():
    layer = layers.SpectralNormalization(layers.Dense(3))
    layer.build((None, 2))
    assert [row.role for row in explain(layer).rows] == ["normalised", "bias"]
    assert decayed(layer) == set()


def test_a_tied_embedding_is_an_output_matrix():
    tied, apart = layers.ReversibleEmbedding(5, 3), layers.ReversibleEmbedding(5, 3, tie_weights=False)
    tied.build()
    apart.build()
    assert [row.role for row in explain(tied).rows] == ["weight"]
    assert [row.role for row in explain(apart).rows] == ["embedding", "weight"]


def test_adapters_replace_the_frozen_kernel():
    layer = layers.Dense(3)
    layer.build((None, 4))
    layer.enable_lora(2)
    assert {row.names[0].split("/")[-1]: (row.frozen, row.decayed) for row in explain(layer).rows} == {
        "kernel": (True, False),
        "bias": (False, False),
        "lora_kernel_a": (False, True),
        "lora_kernel_b": (False, True),
    }


def test_frozen_layers_are_listed_and_penalised_once_they_are_trained():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(2)])
    model.layers[0].trainable = False
    table = apply_l2(model, L2)
    assert [row.frozen for row in table.rows] == [True, True, False, False]
    assert (table.decayed, table.undecayed, table.frozen) == (8, 2, 16)
    assert len(losses(model)) == 1
    model.layers[0].trainable = True
    assert len(losses(model)) == 2


def test_rules():
    model = recurrent()
    everything = decayed(model, rules={layers.Layer: True})
    assert any(name.endswith("bias") for name in everything)
    assert "embedding/embeddings" in decayed(model, rules={"embedding": True})
    without = decayed(model, rules={layers.LSTM: False})
    assert without == {name for name in decayed(model) if "lstm" not in name} != decayed(model)
    apply_l2(model, 0.1, rules={layers.Embedding: 0.5, layers.GRU: 0, layers.LSTM: 0, layers.SimpleRNN: 0})
    by_role = {v.path.split("/")[-1]: v for v in model.trainable_weights if v.regularizer is not None}
    assert set(by_role) == {"embeddings", "kernel"}
    squares = {k: (keras.ops.convert_to_numpy(v).astype(float) ** 2).sum() for k, v in by_role.items()}
    expected = 0.1 * (0.5 * squares["embeddings"] + squares["kernel"])
    assert sum(losses(model)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InputError, match="str is no subclass of Layer"):
        explain(model, rules={str: False})


def test_layers_without_weights_yet_are_named():
    model = keras.Sequential([layers.Dense(3, name="first"), layers.Dropout(0.5)])
    with pytest.raises(InputError, match=r"'first' \(Dense\) is not built.*Call"):
        apply_l2(model, 0.1)
    with pytest.raises(InputError, match="is not built"):
        explain(Subclassed())

    class Own(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(3, 3))

    with pytest.raises(InputError, match=r"\(Own\) is not built"):
        explain(Own())


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "0.1", None, True])
def test_unusable_strength(value):
    with pytest.raises(InputError, match="l2 must be"):
        apply_l2(subclassed(), value)


def test_nothing_to_penalise_and_no_model():
    with pytest.raises(InputError, match="no weight to penalise"):
        apply_l2(keras.Sequential([keras.Input((3,)), layers.LayerNormalization()]), 0.1)
    with pytest.raises(InputError, match="Keras model or layer, not list"):
        explain([])
