# SPDX-License-Identifier: Apache-2.0
"""The machine's ceiling: an fp32 product of 2048 x 2048 x 2048 by every library at hand, of which the fastest counts.
Not a peer, but measured like one, in the same rounds."""


import numpy as np
import onnxruntime
import torch

import peer

SIZE = 2048
FLOPS = 2 * SIZE**3


def mlas(threads):
    """ONNX Runtime's own product, as a graph of one node."""
    import onnx
    from onnx import TensorProto, helper

    info = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIZE, SIZE])
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", [info("a"), info("b")],
                              [info("c")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Gemm(peer.Peer):
    def load(self, workload, threads, options):
        torch.set_num_threads(threads)
        self.a, self.b = torch.rand(SIZE, SIZE), torch.rand(SIZE, SIZE)
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.b)
        self.session = mlas(threads)
        return {"torch": torch.__version__, "numpy": np.__version__, "onnxruntime": onnxruntime.__version__}

    def settings(self, beams, batch):
        return [dict(library=name) for name in ("MKL in torch", "oneDNN in torch", "OpenBLAS in numpy",
                                                "MLAS in ONNX Runtime")]

    def configure(self, beams, batch, library):
        super().configure(1, 1)
        a, b = self.a.numpy(), self.b.numpy()
        self.product = {
            "MKL in torch": lambda: torch.mm(self.a, self.b),
            "oneDNN in torch": lambda: torch.ops.mkldnn._linear_pointwise(self.a, self.packed, None, "none", [], ""),
            "OpenBLAS in numpy": lambda: np.matmul(a, b),
            "MLAS in ONNX Runtime": lambda: self.session.run(None, {"a": a, "b": b}),
        }[library]

    def run(self, requests):
        with torch.inference_mode():
            return self.product()


if __name__ == "__main__":
    peer.main(Gemm())
