"""`param_groups` and `explain` on every kind of model that decides differently."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from elltwo.errors import InputError
from elltwo.torch import explain, l2_penalty, param_groups
from elltwo.weight_decay.roles import ROLES


def decayed(model, **options):
    """Return the names that are decayed, through the groups and not through the table."""
    shrunk, *_ = param_groups(model, 0.1, **options)
    ids = {id(p) for p in shrunk["params"]}
    return {name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in ids}


def role(model, name, **options):
    return next(row.role for row in explain(model, **options).rows if name in row.names)


class Gain(nn.Module):
    """A custom RMSNorm, whose class and parameter have unsuspicious names."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * x.square().mean(-1, keepdim=True).rsqrt() * self.weight


class RMSNorm(Gain):
    pass


class PlaneLayerNorm2d(nn.Module):
    """A normalisation whose gain and shift have several axes."""

    def __init__(self, *shape):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(*shape))
        self.shift = nn.Parameter(torch.zeros(*shape))


class WeightNormalizedNorm(nn.Module):
    """Called a norm, but a linear map: its parameters have different shapes."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(4, 3))
        self.shift = nn.Parameter(torch.zeros(4))


class LoRALinear(nn.Module):
    def __init__(self, base, rank):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(torch.randn(rank, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)


class LoRAInherited(nn.Linear):
    """An adapter that is a Linear and holds its matrices beside the weight."""

    def __init__(self, rows, columns, rank):
        super().__init__(rows, columns)
        self.lora_A = nn.Parameter(torch.randn(rank, rows))
        self.lora_B = nn.Parameter(torch.zeros(columns, rank))


class TiedLanguageModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(11, 4)
        self.positions = nn.Embedding(7, 4)
        self.norm = RMSNorm(4)
        self.head = nn.Linear(4, 11, bias=False)
        self.head.weight = self.tokens.weight


class VisionTransformer(nn.Module):
    """Parameters on the top module itself."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 8))
        self.positions = nn.Parameter(torch.zeros(1, 17, 8))
        self.channels = nn.Parameter(torch.ones(3, 1, 1))
        self.projection = nn.Parameter(torch.zeros(8, 8))
        self.patches = nn.Conv2d(3, 8, 4)


def test_mlp():
    model = nn.Sequential(nn.Linear(4, 8), nn.PReLU(), nn.Linear(8, 1))
    assert decayed(model) == {"0.weight", "2.weight"}
    assert [g["weight_decay"] for g in param_groups(model, 0.3)] == [0.3, 0.0]
    assert role(model, "1.weight") == "vector"


def test_convolutions_with_every_normalisation():
    model = nn.Sequential(
        nn.Conv1d(3, 4, 3),
        nn.BatchNorm1d(4),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.BatchNorm2d(4),
        nn.ConvTranspose3d(4, 4, 3),
        nn.BatchNorm3d(4),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),
        nn.LayerNorm((4, 5)),
        nn.RMSNorm((4, 5)),
        nn.SyncBatchNorm(4),
    )
    assert decayed(model) == {"0.weight", "2.weight", "4.weight"}
    assert {role(model, f"{k}.weight") for k in (1, 3, 5, 6, 7, 8, 9, 10)} == {"norm"}


def test_transformer_encoder():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2)
    assert decayed(model) == {
        f"layers.{k}.{weight}"
        for k in (0, 1)
        for weight in (
            "self_attn.in_proj_weight",
            "self_attn.out_proj.weight",
            "linear1.weight",
            "linear2.weight",
        )
    }


def test_attention_with_separate_projections_and_biases_of_three_axes():
    model = nn.MultiheadAttention(8, 2, add_bias_kv=True, kdim=4, vdim=6)
    assert model.bias_k.ndim == 3
    assert decayed(model) == {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"}
    assert role(model, "bias_k") == role(model, "bias_v") == "bias"


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent(kind):
    model = nn.ModuleList([kind(3, 5, num_layers=2, bidirectional=True), nn.LSTM(3, 5, proj_size=2)])
    expected = {
        f"0.weight_{part}_l{k}{back}" for part in ("ih", "hh") for k in (0, 1) for back in ("", "_reverse")
    }
    assert decayed(model) == expected | {"1.weight_ih_l0", "1.weight_hh_l0", "1.weight_hr_l0"}


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.LSTMCell, nn.GRUCell])
def test_recurrent_cells(kind):
    assert decayed(kind(3, 5)) == {"weight_ih", "weight_hh"}


class GatedLSTM(nn.LSTM):
    """A recurrent layer that adds a gain and a table of its own."""

    def __init__(self):
        super().__init__(3, 4)
        self.gain = nn.Parameter(torch.ones(4))
        self.start = nn.Parameter(torch.zeros(1, 2, 4))
        self.adapter = nn.Parameter(torch.ones(4, 2))


class GatedCell(nn.GRUCell):
    def __init__(self):
        super().__init__(3, 4)
        self.start = nn.Parameter(torch.zeros(1, 2, 4))


def test_what_subclasses_of_recurrent_layers_add_is_judged_by_shape():
    roles = {row.names[0]: (row.role, row.why) for row in explain(GatedLSTM()).rows}
    assert roles["weight_hh_l0"] == ("weight", "weight of LSTM")
    assert roles["bias_hh_l0"] == ("bias", "bias of LSTM")
    assert roles["gain"][0] == "vector"
    assert roles["start"][0] == "embedding"
    assert roles["adapter"] == ("weight", "matrix of GatedLSTM")
    assert decayed(GatedCell()) == {"weight_ih", "weight_hh"}
    assert decayed(nn.LSTM(3, 4, proj_size=2)) == {"weight_ih_l0", "weight_hh_l0", "weight_hr_l0"}


def test_other_linear_maps():
    model = nn.ModuleList([nn.Bilinear(2, 3, 4), nn.AdaptiveLogSoftmaxWithLoss(6, 20, [5], head_bias=True)])
    assert decayed(model) == {"0.weight", "1.head.weight", "1.tail.0.0.weight", "1.tail.0.1.weight"}


def test_custom_norms_are_known_without_their_parameters_names():
    model = nn.Sequential(nn.Linear(4, 4), Gain(4), RMSNorm(4), PlaneLayerNorm2d(4, 5, 5))
    assert decayed(model) == {"0.weight"}
    assert [role(model, name) for name in ("1.weight", "2.weight", "3.gain")] == ["vector", "norm", "norm"]


def test_a_linear_map_called_norm_keeps_its_decay():
    assert decayed(WeightNormalizedNorm()) == {"matrix"}


def test_names_in_the_tree_play_no_part():
    class Misnamed(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Linear(3, 3)
            self.layer_norm = nn.Conv1d(3, 3, 2)
            self.weight = nn.LayerNorm(3)
            self.linear = nn.Embedding(3, 3)

    assert decayed(Misnamed()) == {"bias.weight", "layer_norm.weight"}


def test_embeddings_are_left_out_unless_a_rule_takes_them_in():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 2))
    assert decayed(model) == {"1.weight"}
    both = {"0.weight", "1.weight"}
    assert decayed(model, rules={"embedding": True}) == decayed(model, rules={nn.Embedding: True}) == both
    assert decayed(nn.EmbeddingBag(5, 3)) == set()


def test_tied_embeddings_are_decayed_as_the_linear_weight_and_listed_once():
    model = TiedLanguageModel()
    assert decayed(model) == {"tokens.weight", "head.weight"}
    row = explain(model).rows[0]
    assert row.names == ("tokens.weight", "head.weight")
    assert row.module == "Embedding, Linear"
    assert row.role == "weight"
    assert "embedding" in row.why
    assert decayed(model, rules={nn.Embedding: False}) == set()


def test_a_module_that_appears_twice_is_listed_once_with_both_names():
    layer = nn.Linear(3, 3)
    table = explain(nn.ModuleDict({"first": layer, "again": nn.Sequential(layer)}))
    assert [row.names for row in table.rows] == [
        ("first.weight", "again.0.weight"),
        ("first.bias", "again.0.bias"),
    ]


def test_adapters():
    model = nn.Sequential(LoRALinear(nn.Linear(6, 4), 1), LoRAInherited(4, 4, 2))
    assert decayed(model) == {"0.A", "0.B", "1.weight", "1.lora_A", "1.lora_B"}
    assert explain(model).frozen == 6 * 4 + 4


def test_adapter_as_a_parametrization():
    class LowRank(nn.Module):
        def __init__(self, rows, columns):
            super().__init__()
            self.A, self.B = nn.Parameter(torch.zeros(rows, 2)), nn.Parameter(torch.zeros(2, columns))

        def forward(self, W):
            return W + self.A @ self.B

    model = nn.Linear(5, 4)
    model.weight.requires_grad_(False)
    parametrize.register_parametrization(model, "weight", LowRank(4, 5))
    assert decayed(model) == {"parametrizations.weight.0.A", "parametrizations.weight.0.B"}
    model.parametrizations.weight.original.requires_grad_(True)
    assert "parametrizations.weight.original" in decayed(model)


def test_parameters_of_the_top_module_and_of_lists_and_dicts():
    assert decayed(VisionTransformer()) == {"projection", "patches.weight"}
    assert role(VisionTransformer(), "positions") == role(VisionTransformer(), "token") == "embedding"
    assert role(VisionTransformer(), "channels") == "vector"
    model = nn.ModuleList(
        [
            nn.ParameterList([torch.zeros(2, 2), torch.zeros(2)]),
            nn.ParameterDict({"W": torch.zeros(3, 2), "b": torch.tensor(0.0)}),
        ]
    )
    assert decayed(model) == {"0.0", "1.W"}


@pytest.mark.parametrize("dim", [0, 1, None])
def test_under_weight_norm_the_norms_are_decayed_because_they_are_the_weights_norm(dim):
    torch.manual_seed(0)
    model = parametrizations.weight_norm(nn.Linear(5, 4).double(), dim=dim)
    assert decayed(model) == {"parametrizations.weight.original0"}
    g, v = model.parametrizations.weight.original0, model.parametrizations.weight.original1
    model.weight.square().sum().backward()
    torch.testing.assert_close(g.grad, 2 * g, rtol=1e-12, atol=0)
    torch.testing.assert_close(v.grad, torch.zeros_like(v), rtol=0, atol=1e-12)


@pytest.mark.parametrize("wrap", [parametrizations.spectral_norm, parametrizations.orthogonal])
def test_weights_of_fixed_size_are_not_decayed(wrap):
    model = nn.Sequential(wrap(nn.Linear(4, 4)), nn.Linear(4, 2))
    assert decayed(model) == {"1.weight"}
    assert role(model, "0.parametrizations.weight.original") == "normalised"


def test_a_shared_weight_whose_size_is_set_in_one_use_is_not_decayed():
    model = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)])
    model[1].weight = model[0].weight
    parametrizations.spectral_norm(model[1])
    assert decayed(model) == set()
    page = Path("docs/weight-decay.md").read_text(encoding="utf-8")
    assert "unless one of them sets its size" in " ".join(page.split())


def test_parametrisation_does_not_make_an_exempt_parameter_decayed():
    model = parametrizations.weight_norm(nn.Embedding(5, 3))
    assert decayed(model) == set()
    assert decayed(parametrizations.spectral_norm(nn.Embedding(5, 3))) == set()


def test_old_parametrisations_by_hooks():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = nn.ModuleList(
            [
                weight_norm(nn.Linear(3, 4)),
                weight_norm(nn.GRU(3, 4), "weight_hh_l0", dim=None),
                spectral_norm(nn.Conv1d(3, 4, 2)),
            ]
        )
    model.append(prune.random_unstructured(nn.Linear(3, 4), "weight", 0.5))
    model.append(prune.random_unstructured(nn.BatchNorm1d(4), "weight", 0.5))
    assert decayed(model) == {"0.weight_g", "1.weight_ih_l0", "1.weight_hh_l0_g", "3.weight_orig"}


class Window(nn.Module):
    """A part that lists one of its own parameters, by a name as it sees it."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.ones(5, 2))
        self.relative_bias = nn.Parameter(torch.ones(5, 2))
        self.map = nn.Linear(3, 3)

    def no_weight_decay(self):
        return {"table", "not_there"}


class Listing(nn.Module):
    def __init__(self):
        super().__init__()
        self.window = Window()
        self.table = nn.Parameter(torch.ones(5, 2))
        self.projection = nn.Parameter(torch.ones(3, 2))

    def no_weight_decay(self):
        return ["projection", "window.map.weight"]

    def no_weight_decay_keywords(self):
        return {"relative_"}


def test_what_a_model_exempts_is_not_decayed():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[0].weight._no_weight_decay = True  # Mamba
    model[1].weight._optim = {"lr": 1e-3, "weight_decay": 0.0}  # S4
    model[2].weight._no_weight_decay = False
    model[3].weight._optim = {"lr": 1e-3}
    assert decayed(model) == {"2.weight", "3.weight"}
    assert role(model, "0.weight") == role(model, "1.weight") == "exempt"
    assert decayed(model, rules={"exempt": True, "weight": False}) == {"0.weight", "1.weight"}
    penalty = l2_penalty(model, 1.0).item()
    assert penalty == pytest.approx(sum(model[k].weight.square().sum().item() for k in (2, 3)))
    tied = nn.Linear(3, 3, bias=False)
    tied.weight = model[0].weight
    assert decayed(nn.Sequential(tied, nn.Linear(3, 3))) == {"1.weight"}


def test_names_that_a_model_lists_are_exempt_as_seen_from_the_module_that_lists_them():
    assert decayed(Listing()) == {"table"}
    why = {row.names[0]: row.why for row in explain(Listing()).rows}
    assert why["window.table"] == "in no_weight_decay of Window"
    assert why["window.map.weight"] == "in no_weight_decay of Listing"
    assert why["window.relative_bias"] == "in no_weight_decay_keywords of Listing"
    assert decayed(nn.ModuleList([Window()])) == {"0.relative_bias", "0.map.weight"}


def test_listed_names_are_known_in_wrapped_parametrised_and_pruned_modules():
    model = Listing()
    model.window = compiled(model.window)
    assert decayed(nn.DataParallel(model)) == {"module.table"}
    parametrizations.weight_norm(model.window.map)
    prune.random_unstructured(model, "projection", 0.5)
    assert decayed(model) == {"table"}


def test_a_list_of_names_that_is_none_is_refused():
    model = Window()
    for wrong in ("table", [3], 0.1):
        model.no_weight_decay = lambda wrong=wrong: wrong
        with pytest.raises(InputError, match=r"\(Window\): no_weight_decay must give a set or list of names"):
            explain(model)
    model.no_weight_decay = False  # a setting of its own
    assert decayed(model) == {"table", "relative_bias", "map.weight"}


def test_a_pruned_parameter_keeps_its_role():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 4))
    for layer in model:
        prune.random_unstructured(layer, "weight", 0.5)
    roles = {row.names[0]: (row.role, row.why) for row in explain(model).rows}
    assert roles["0.weight_orig"] == ("embedding", "embedding of Embedding, pruned")
    assert roles["1.weight_orig"] == ("weight", "weight of Linear, pruned")


def compiled(model):
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("wrap", [compiled, nn.DataParallel])
def test_wrappers_change_neither_parameters_nor_the_names_shown(wrap):
    plain = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    wrapped = wrap(nn.Sequential(wrap(plain[0]), plain[1]))
    assert explain(wrapped).rows == explain(plain).rows
    for a, b in zip(param_groups(wrapped, 0.1), param_groups(plain, 0.1), strict=True):
        assert [id(p) for p in a["params"]] == [id(p) for p in b["params"]]


def test_frozen_parameters_are_listed_and_in_no_group():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    groups = param_groups(model, 0.1)
    assert [id(p) for g in groups for p in g["params"]] == [id(model[1].weight), id(model[1].bias)]
    assert [row.frozen for row in explain(model).rows] == [True, True, False, False]


def test_lazy_modules_ask_for_a_batch_by_name():
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.LazyBatchNorm1d())
    with pytest.raises(InputError, match=r"'1' \(LazyLinear\) is lazy.*Run one batch"):
        param_groups(model, 0.1)
    model(torch.zeros(2, 3))
    assert decayed(model) == {"1.weight"}


def test_models_without_types_or_shapes_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(nn.Linear(2, 2))
    with pytest.raises(InputError, match="TorchScript"):
        explain(nn.Sequential(scripted))
    flat = nn.Module()
    flat.vector = nn.Parameter(torch.zeros(6))
    flat.vector._is_flat_param = True  # what FullyShardedDataParallel marks its own with
    with pytest.raises(InputError, match="Shard the model with fully_shard"):
        param_groups(flat, 0.1)


def test_rules_by_type_role_and_function_the_first_one_wins():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    assert decayed(model, rules={lambda use: use.module is model[0]: False}) == {"2.weight"}
    assert decayed(model, rules={"weight": False, nn.Linear: True}) == {"0.bias", "2.bias"}
    assert decayed(model, rules={nn.Linear: False, "weight": True}) == set()
    assert decayed(model, rules={nn.Module: True}) == {name for name, _ in model.named_parameters()}
    assert "rule for LayerNorm" in {row.why for row in explain(model, rules={nn.LayerNorm: True}).rows}


def test_a_rule_for_a_type_reaches_what_is_inside_and_decays_no_bias_there():
    model = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8), nn.Linear(4, 2))
    assert decayed(model, rules={nn.TransformerEncoderLayer: False}) == {"1.weight"}
    assert decayed(model, rules={nn.MultiheadAttention: False}) == {
        "0.linear1.weight",
        "0.linear2.weight",
        "1.weight",
    }
    half = explain(model, rules={nn.TransformerEncoderLayer: 0.5}).rows
    assert {row.times for row in half if row.names[0].startswith("0.") and row.role == "weight"} == {0.5}
    assert {row.times for row in half if row.role in ("bias", "norm")} == {0.0}


def test_a_rule_for_a_type_knows_parametrised_modules():
    model = nn.Sequential(nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 2))))
    assert decayed(model, rules={nn.Linear: False}) == set()
    assert decayed(model, rules={nn.Sequential: 1}) == {"0.0.parametrizations.weight.original0"}


def test_embeddings_of_custom_types():
    class PositionEmbedding(nn.Module):
        def __init__(self, rows, columns):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(rows, columns))

    class PatchEmbedding(nn.Module):
        def __init__(self):
            super().__init__()
            self.projection, self.shift = nn.Parameter(torch.zeros(8, 3)), nn.Parameter(torch.zeros(8))

    assert decayed(nn.Sequential(PositionEmbedding(7, 3), PatchEmbedding())) == {"1.projection"}


def test_a_number_as_rule_makes_a_group_of_its_own():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 2))
    groups = param_groups(model, 0.5, rules={nn.Embedding: 0.2})
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [(0.5, 1), (0.0, 1), (0.1, 1)]
    assert "× 0.2" in str(explain(model, rules={nn.Embedding: 0.2}))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([nn.Linear], "must be a mapping"),
        ({"bais": False}, "is no role.*Did you mean 'bias'"),
        ({int: False}, "int is no subclass of Module"),
        ({3: False}, "type, a role or a function, not int"),
        ({"bias": "yes"}, "rule for 'bias' must be a number, not str"),
        ({"bias": -1.0}, "finite and not negative, not -1.0"),
        ({nn.Linear: float("nan")}, "rule for Linear must be finite"),
    ],
)
def test_unusable_rules(rules, message):
    with pytest.raises(InputError, match=message):
        param_groups(nn.Linear(2, 2), 0.1, rules=rules)


@pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf"), "0.1", True, None, torch.tensor(0.1)])
def test_unusable_weight_decay(value):
    with pytest.raises(InputError, match="weight_decay must be"):
        param_groups(nn.Linear(2, 2), value)


def test_what_is_no_module_is_refused():
    with pytest.raises(InputError, match=r"torch.nn.Module, not list"):
        explain([nn.Linear(2, 2)])


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_optimisers_take_the_groups_and_their_states_load_again(kind):
    def trained(state):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1))
        optimiser = kind(param_groups(model, 0.1), lr=0.01)
        if state is not None:
            optimiser.load_state_dict(state)
        model(torch.ones(2, 3)).sum().backward()
        optimiser.step()
        return optimiser

    first = trained(None).state_dict()
    assert trained(first).state_dict()["param_groups"] == first["param_groups"]
    only_weights = nn.Linear(3, 1, bias=False)
    optimiser = kind(param_groups(only_weights, 0.1), lr=0.01)  # one group is empty
    only_weights(torch.ones(1, 3)).sum().backward()
    optimiser.step()


def test_only_the_decayed_group_shrinks():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.SGD(param_groups(model, 0.5), lr=0.1)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimiser.step()
    for name, p in model.named_parameters():
        factor = 1 - 0.1 * 0.5 if name == "0.weight" else 1.0
        torch.testing.assert_close(p.detach(), factor * before[name])


def test_table_prints_and_has_plain_values():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[2].requires_grad_(False)
    table = explain(model)
    assert (table.decayed, table.undecayed, table.frozen) == (12, 4 + 4 + 4, 8 + 2)
    lines = str(table).splitlines()
    assert lines[0].split() == ["Parameter", "Shape", "Module", "Role", "Decay", "Why"]
    assert lines[2].split()[:7] == ["0.weight", "4", "×", "3", "Linear", "weight", "yes"]
    assert lines[-1] == "12 decayed, 12 not decayed, 10 frozen (entries of 6 parameters)."
    plain = table.to_dict()
    assert plain["rows"][0] == {
        "names": ("0.weight",),
        "shape": (4, 3),
        "module": "Linear",
        "role": "weight",
        "times": 1.0,
        "kept": "",
        "frozen": False,
        "why": "weight of Linear",
        "decayed": True,
        "size": 12,
    }
    assert plain["decayed"] == 12


class Holder(nn.Module):
    """A module of unknown type with parameters of any shape and with children."""

    def __init__(self, shapes, children):
        super().__init__()
        for k, shape in enumerate(shapes):
            self.register_parameter(
                f"bias{k}" if len(shape) > 1 else f"weight{k}", nn.Parameter(torch.ones(shape))
            )
        for k, child in enumerate(children):
            self.add_module(f"norm{k}", child)


LEAVES = (
    lambda: nn.Linear(3, 2),
    lambda: nn.Linear(2, 3, bias=False),
    lambda: nn.Conv2d(2, 2, 1),
    lambda: nn.BatchNorm1d(3),
    lambda: nn.LayerNorm((2, 3)),
    lambda: nn.Embedding(4, 2),
    lambda: nn.GRU(2, 2),
    lambda: nn.MultiheadAttention(2, 1, add_bias_kv=True),
    lambda: parametrizations.weight_norm(nn.Linear(2, 2)),
    lambda: parametrizations.spectral_norm(nn.Linear(2, 2)),
    lambda: RMSNorm(3),
    lambda: nn.ReLU(),
)
SHAPES = st.lists(st.integers(1, 3), max_size=3).map(tuple)


@st.composite
def models(draw):
    made = [draw(st.sampled_from(LEAVES))() for _ in range(draw(st.integers(1, 5)))]
    for _ in range(draw(st.integers(0, 4))):  # children are drawn with replacement, so modules are shared
        children = draw(st.lists(st.sampled_from(made), max_size=3))
        made.append(Holder(draw(st.lists(SHAPES, max_size=3)), children))
    model = Holder([], made)
    for parameter in model.parameters():
        parameter.requires_grad_(draw(st.integers(0, 4)) > 0)
    return model


@settings(max_examples=60, deadline=None)
@given(
    models(), st.dictionaries(st.sampled_from(sorted(ROLES)), st.sampled_from([True, False, 0.5]), max_size=2)
)
def test_each_trained_parameter_is_in_one_group_and_the_table_agrees(model, rules):
    groups = param_groups(model, 0.1, rules=rules)
    order = {id(p): k for k, p in enumerate(model.parameters())}
    placed = [(order[id(p)], g["weight_decay"]) for g in groups for p in g["params"]]
    assert sorted(k for k, _ in placed) == [k for k, p in enumerate(model.parameters()) if p.requires_grad]
    for group in groups:
        places = [order[id(p)] for p in group["params"]]
        assert places == sorted(places)
    rows = explain(model, rules=rules).rows
    assert [row.shape for row in rows] == [tuple(p.shape) for p in model.parameters()]
    assert {name for row in rows for name in row.names} == {
        name for name, _ in model.named_parameters(remove_duplicate=False)
    }
    for k, strength in placed:
        assert strength == pytest.approx(0.1 * rows[k].times)


@settings(max_examples=60, deadline=None)
@given(models())
def test_no_bias_norm_embedding_or_vector_is_decayed(model):
    shrunk = {id(p) for p in param_groups(model, 0.1)[0]["params"]}
    exempt = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.Embedding, RMSNorm)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, exempt) or parameter.ndim < 2:
                assert id(parameter) not in shrunk
            if isinstance(module, nn.MultiheadAttention) and name.startswith("bias"):
                assert id(parameter) not in shrunk


def test_the_page_has_the_table_of_roles():
    page = (Path(__file__).parents[2] / "docs" / "weight-decay.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \| (yes|no) \|", page, re.MULTILINE)
    assert listed == [(name, "yes" if is_decayed else "no") for name, is_decayed in ROLES.items()]
