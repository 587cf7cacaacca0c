"""Tiny models in int8, as the published ones are made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx


def quantising_inside(path: Path, operator: str) -> None:
    """Write a model of one of onnxruntime's own operators that find their scale inside. It is for
    looking at: it has no weights."""
    make = onnx.helper.make_tensor_value_info
    x, y = (make(name, onnx.TensorProto.FLOAT, ["N", 16]) for name in "xy")
    node = onnx.helper.make_node(operator, ["x"], ["y"], domain="com.microsoft")
    graph = onnx.helper.make_graph([node], "inside", [x], [y])
    onnx.save(onnx.helper.make_model(graph), str(path))


def in_int8(path: Path) -> None:
    """Rewrite a file as onnxruntime's quantize_dynamic does: MatMul by constants becomes
    DynamicQuantizeLinear, MatMulInteger, Cast and Mul."""
    model = onnx.load(str(path))
    constants = {each.name: each for each in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for index, node in enumerate(model.graph.node):
        weights = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weights is None:
            nodes.append(node)
            continue
        values = onnx.numpy_helper.to_array(weights)
        scale = np.float32(max(np.abs(values).max() / 127, 1e-9))
        names = [f"int8_{index}_{part}" for part in ("w", "s", "q", "qs", "z", "whole", "f", "by")]
        w, s, q, qs, z, whole, f, by = names
        model.graph.initializer.extend(
            [
                onnx.numpy_helper.from_array(np.round(values / scale).astype(np.int8), w),
                onnx.numpy_helper.from_array(np.array(scale), s),
            ]
        )
        make = onnx.helper.make_node
        nodes += [
            make("DynamicQuantizeLinear", [node.input[0]], [q, qs, z]),
            make("MatMulInteger", [q, w, z], [whole]),
            make("Cast", [whole], [f], to=onnx.TensorProto.FLOAT),
            make("Mul", [qs, s], [by]),
            make("Mul", [f, by], [node.output[0]]),
        ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, str(path))
