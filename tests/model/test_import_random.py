"""Random networks: the import computes what the format's reference implementation computes.

In double precision, but few: the reference fails on some pools with padding. Many networks are
compared with onnxruntime (`test_random_semantics`).
"""

import numpy as np
from hypothesis import HealthCheck, given, settings
from onnx_graphs import channel_last, reference, save
from random_onnx import random_models

from pvq_hw.model.model import load_model
from pvq_hw.model.nodes import Window

CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
QUIET = {"deadline": None, "derandomize": True, "suppress_health_check": CHECKS}


def check(tmp_path, case):
    model, shape = case
    x = np.random.default_rng(0).standard_normal((3, *shape))
    expected = channel_last(reference(model, x)[0])
    imported = load_model(save(tmp_path, model))
    assert np.allclose(imported.predict(x), expected, rtol=1e-8, atol=1e-8)
    shapes = {imported.input_name: imported.shape}
    for node, out in imported.steps(imported.to_internal(x)):
        assert out.shape == (3, *node.shape)
        if isinstance(node, Window):
            assert np.prod(shapes[node.inputs[0]]) == np.prod(node.input_shape)
        shapes[node.output] = node.shape


@settings(max_examples=25, **QUIET)
@given(random_models())
def test_random_network_equals_the_reference(tmp_path, case):
    check(tmp_path, case)
