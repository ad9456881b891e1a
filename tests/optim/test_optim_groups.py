"""Which parameters are exempt, whatever a model calls them; and models that change behind the optimizer's back.

Truth: transformers' own choice of what its Trainer decays, which looks at types and patterns of names.
"""

import pytest
import torch
from torch import nn

from bert_lamb.optim import Lamb, Lars, parameter_groups

BOTH = pytest.mark.parametrize("optimizer_class", [Lamb, Lars])
SIZES = {
    "vocab_size": 50,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 20,
}
NORMALIZATION = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


def models():
    import transformers as t

    distil = {"vocab_size": 50, "dim": 8, "n_layers": 1, "n_heads": 2, "hidden_dim": 8, "max_position_embeddings": 20}
    return {
        "bert": t.BertForPreTraining(t.BertConfig(**SIZES)),
        "roberta": t.RobertaForMaskedLM(t.RobertaConfig(**SIZES)),
        "distilbert": t.DistilBertForMaskedLM(t.DistilBertConfig(**distil)),
        "albert": t.AlbertForMaskedLM(t.AlbertConfig(embedding_size=8, **SIZES)),
        "electra": t.ElectraForMaskedLM(t.ElectraConfig(embedding_size=8, **SIZES)),
        "modernbert": t.ModernBertForMaskedLM(t.ModernBertConfig(pad_token_id=0, **SIZES)),
    }


def test_vectors_are_exempt_whatever_they_are_called():
    from transformers.trainer_pt_utils import get_parameter_names

    for name, model in models().items():
        expected = set(get_parameter_names(model, [nn.LayerNorm, nn.RMSNorm], NORMALIZATION))
        expected &= {found for found, _ in model.named_parameters()}  # tied ones come once
        assert expected, name
        for parameters in (model, model.named_parameters()):
            regular, exempt = parameter_groups(parameters, weight_decay=0.01)
            assert {found for found, _ in regular["params"]} == expected, name
            assert not {found for found, _ in exempt["params"]} & expected


def exempt_of(parameters):
    groups = parameter_groups(parameters, weight_decay=0.01)
    return [name for group in groups if not group["adapt"] for name, _ in group["params"]]


def test_embeddings_are_exempt_where_that_is_asked_for():
    """Truth: the type of the module that holds a table, for every model; of names alone the same."""
    for name, model in models().items():
        tables = {f"{path}.weight" for path, module in model.named_modules() if isinstance(module, nn.Embedding)}
        tables &= {found for found, _ in model.named_parameters()}
        usual = {found for found, _ in parameter_groups(model, weight_decay=0.01)[0]["params"]}
        assert tables
        assert tables <= usual
        for parameters in (model, model.named_parameters()):
            regular, exempt = parameter_groups(parameters, weight_decay=0.01, exempt_embeddings=True)
            assert {found for found, _ in regular["params"]} == usual - tables, name
            assert (exempt["weight_decay"], exempt["adapt"]) == (0.0, False)


def test_what_dimensions_do_not_tell():
    """A normalization over two dimensions, a bias of two, a number; an embedding that is only called bias."""
    model = nn.ModuleDict(
        {"plane": nn.LayerNorm((3, 4)), "table_of_bias": nn.Embedding(5, 2), "dense": nn.Linear(2, 2)}
    )
    model.register_parameter("pair_bias", nn.Parameter(torch.zeros(1, 3)))
    model.register_parameter("temperature", nn.Parameter(torch.zeros(())))
    assert exempt_of(model) == ["pair_bias", "temperature", "plane.weight", "plane.bias", "dense.bias"]


def test_a_partition_of_stage_3_keeps_its_parameters_shape():
    matrix, vector = nn.Parameter(torch.empty(0)), nn.Parameter(torch.empty(0))
    matrix.ds_shape, vector.ds_shape = torch.Size((4, 3)), torch.Size((4,))
    assert exempt_of([("a.weight", matrix), ("b.weight", vector)]) == ["b.weight"]


def test_a_flat_parameter_of_fsdp1_is_refused():
    class FlatParameter(nn.Parameter):
        pass

    with pytest.raises(ValueError, match="_flat_param is a flat tensor of several parameters"):
        parameter_groups([("_flat_param", FlatParameter(torch.zeros(7)))], weight_decay=0.01)


@BOTH
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (torch.float32, torch.bfloat16),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float64),
    ],
    ids=str,
)
def test_a_model_cast_or_moved_after_the_first_step_is_refused(optimizer_class, before, after):
    model = nn.Linear(3, 2).to(before)
    optimizer = optimizer_class(parameter_groups(model, weight_decay=0.01), lr=0.1)

    def step(optimizer):
        optimizer.zero_grad()
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()

    step(optimizer)
    model.to(after)
    with pytest.raises(RuntimeError, match="cast or moved after the first step"):
        step(optimizer)
    # What the sentence says works: state of another precision is taken over by a new optimizer.
    state = optimizer.state_dict()
    resumed = optimizer_class(parameter_groups(model, weight_decay=0.01), lr=0.1)
    resumed.load_state_dict(state)
    weight = model.weight.detach().clone()
    step(resumed)
    assert not torch.equal(model.weight, weight)
    assert ("master" in resumed.state[model.weight]) == (after is torch.bfloat16)
    resumed.state[model.weight][optimizer.MOMENTS[0]] = torch.zeros(2, 3, device="meta")  # as if the model had moved
    with pytest.raises(RuntimeError, match=r"with moments of torch\.float.. on meta.*: the model was cast or moved"):
        step(resumed)
