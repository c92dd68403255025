# SPDX-License-Identifier: Apache-2.0
"""The engines and precisions there are, by the names that users give them; without torch."""

from __future__ import annotations

# What torch calls the numbers of a precision.
PRECISIONS = {'fp32': 'float32', 'bf16': 'bfloat16', 'fp16': 'float16'}
# What ONNX Runtime calls the part of it that runs an engine, by the type of the device.
PROVIDERS = {
    'onnxruntime': {'cpu': 'CPUExecutionProvider', 'cuda': 'CUDAExecutionProvider'},
    'onnxruntime:tensorrt': {'cuda': 'TensorrtExecutionProvider'},
}
ENGINES = ('auto', 'torch', 'openvino', *PROVIDERS)


class DeviceError(ValueError):
    """A device, a precision or an engine that this machine does not offer."""
