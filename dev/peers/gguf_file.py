"""The gguf package as the reader of exported models.

In (JSON): files {type: path}, of which F32 holds the exact weights. Out: metadata of F32; its tensors as base64 of f32, with shapes as GGUF
has them; of the others the number of tensors whose bytes are those that the package itself makes of the exact weights; known architectures.
"""

import base64
import json
import sys

import gguf
import numpy

given = json.load(sys.stdin)
readers = {kind: gguf.GGUFReader(path) for kind, path in given["files"].items()}
exact = {tensor.name: tensor for tensor in readers["F32"].tensors}
same = {}
for kind, reader in readers.items():
    of_kind = gguf.GGMLQuantizationType[kind]
    same[kind] = sum(
        tensor.tensor_type == of_kind
        and numpy.array_equal(gguf.quants.quantize(exact[tensor.name].data, of_kind).view(numpy.uint8),
                              numpy.asarray(tensor.data).view(numpy.uint8))
        for tensor in reader.tensors
    )
values = {name: field.contents() for name, field in readers["F32"].fields.items()}
json.dump({
    "values": values,
    "fileTypes": {kind: reader.fields["general.file_type"].contents() for kind, reader in readers.items()},
    "shapes": {name: tensor.shape.tolist() for name, tensor in exact.items()},
    "weights": {name: base64.b64encode(tensor.data.astype("<f4").tobytes()).decode() for name, tensor in exact.items()},
    "same": same,
    "architectures": list(gguf.MODEL_ARCH_NAMES.values()),
}, sys.stdout)
