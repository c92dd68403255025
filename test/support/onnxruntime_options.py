# SPDX-License-Identifier: Apache-2.0
"""The options of ONNX Runtime's providers that its pages list, of 1.18 and later:

https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#configuration-options
https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html#configurations

An option that a provider does not know is an error when the session is made.
"""

DOCUMENTED = {
    'CUDAExecutionProvider': {
        'arena_extend_strategy',
        'cudnn_conv_algo_search',
        'cudnn_conv_use_max_workspace',
        'device_id',
        'do_copy_in_default_stream',
        'gpu_mem_limit',
        'use_tf32',
    },
    'TensorrtExecutionProvider': {
        'device_id',
        'trt_auxiliary_streams',
        'trt_build_heuristics_enable',
        'trt_builder_optimization_level',
        'trt_context_memory_sharing_enable',
        'trt_detailed_build_log',
        'trt_dla_core',
        'trt_dla_enable',
        'trt_dump_subgraphs',
        'trt_engine_cache_enable',
        'trt_engine_cache_path',
        'trt_extra_plugin_lib_paths',
        'trt_force_sequential_engine_build',
        'trt_force_timing_cache',
        'trt_fp16_enable',
        'trt_int8_calibration_table_name',
        'trt_int8_enable',
        'trt_int8_use_native_calibration_table',
        'trt_layer_norm_fp32_fallback',
        'trt_max_partition_iterations',
        'trt_max_workspace_size',
        'trt_min_subgraph_size',
        'trt_profile_max_shapes',
        'trt_profile_min_shapes',
        'trt_profile_opt_shapes',
        'trt_sparsity_enable',
        'trt_tactic_sources',
        'trt_timing_cache_enable',
    },
}
# Of onnxruntime-gpu, beside its Python.
LIBRARIES = {
    'CUDAExecutionProvider': 'libonnxruntime_providers_cuda.so',
    'TensorrtExecutionProvider': 'libonnxruntime_providers_tensorrt.so',
}
