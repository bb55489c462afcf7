"""The table of names covers every parameter and loses nothing in either direction."""

import numpy as np
import pytest

from jaxlm.models.names import canonical, head_of, rules_for

from .reference import CLASSES, SHAPES, flat_params, torch_model


@pytest.mark.parametrize("class_name", CLASSES)
def test_a_models_parameters_have_exactly_the_names_that_transformers_gives_them(class_name: str) -> None:
    model = CLASSES[class_name]
    rules = rules_for(SHAPES["relu"])
    ours = [model._prefix + name for name in flat_params(model.abstract(SHAPES["relu"])[1])]
    theirs = [name for our in ours for name in rules[our].theirs]
    assert len(theirs) == len(set(theirs))
    assert set(theirs) == {canonical(name) for name, _ in torch_model(class_name, "relu").named_parameters()}


@pytest.mark.parametrize("class_name", CLASSES)
def test_reading_what_was_written_gives_the_same_parameter(class_name: str) -> None:
    config, rng = SHAPES["tanh"], np.random.default_rng(0)
    rules = rules_for(config)
    for name, leaf in flat_params(CLASSES[class_name].abstract(config)[1]).items():
        rule, value = rules[CLASSES[class_name]._prefix + name], rng.normal(size=leaf.shape)
        np.testing.assert_array_equal(rule.load(config, rule.save(value)), value, err_msg=name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("embeddings.LayerNorm.gamma", "bert.embeddings.LayerNorm.weight"),
        ("bert.encoder.layer.0.output.LayerNorm.beta", "bert.encoder.layer.0.output.LayerNorm.bias"),
        ("pooler.dense.weight", "bert.pooler.dense.weight"),
        ("cls.predictions.transform.LayerNorm.gamma", "cls.predictions.transform.LayerNorm.weight"),
        ("classifier.weight", "classifier.weight"),
        ("bert.encoder.layer.11.output.dense.weight", "bert.encoder.layer.11.output.dense.weight"),
    ],
)
def test_names_of_older_checkpoints_become_those_of_the_table(name: str, expected: str) -> None:
    assert canonical(name) == expected
    assert canonical(expected) == expected


def test_every_parameter_outside_the_encoder_belongs_to_a_head() -> None:
    for rule in rules_for(SHAPES["relu"]).values():
        in_encoder = rule.ours.startswith(("bert.embeddings", "bert.layers"))
        heads = {head_of(name) for name in (rule.ours, *rule.theirs)}
        assert len(heads) == 1
        assert (heads == {None}) == in_encoder
