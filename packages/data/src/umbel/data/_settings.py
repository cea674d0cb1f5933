"""Settings of Ray's `DataContext` that are not ours: what becomes of one that a program gives.

Those that only say how Ray's engine goes about its work are taken, with a warning that says why they have no effect. Those
that would change an answer or an error are refused, with what to do instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_PROGRESS: Final = "enable_progress_bars is the one switch, beside enable_operator_progress_bars"
_MEASURED: Final = "partitions are as large as the data says, see target_shuffle_block_size"
_ONE_WAY: Final = "there is one way, which needs no choice"
_BUDGET: Final = "what runs at once is bounded by bytes, see ExecutionOptions.resource_limits"
_POOLS: Final = "actors are started as there is work, and tasks begin on those that are there"
_STATS: Final = "stats() has all figures"
_STALLS: Final = "what everything waits for is logged when nothing has come for 10 s"
_NO_AGGREGATORS: Final = "exchanges run in tasks, without actors of their own"
_GPU: Final = "exchanges use CPUs"

WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "accurate_map_phase_timing": _STATS,
    "actor_init_max_retries": "the constructor of a class is called once in each actor",
    "actor_locality_enabled": "blocks are read where they are",
    "actor_prefetcher_enabled": _ONE_WAY,
    "arrow_fixed_shape_tensor_format": "tensors of one shape are Arrow's own",
    "autoscaling_config": _POOLS,
    "batch_to_block_arrow_format": "blocks are Arrow's",
    "dataset_logger_id": "the logger is called umbel.data",
    "decoding_size_estimation": _ONE_WAY,
    "default_hash_shuffle_parallelism": _MEASURED,
    "default_map_logical_memory_enabled": "what tasks take of memory is measured",
    "downstream_capacity_backpressure_ratio": _BUDGET,
    "enable_auto_log_stats": "print stats() after a run",
    "enable_dynamic_output_queue_size_backpressure": _BUDGET,
    "enable_get_object_locations_for_metrics": _STATS,
    "enable_lineage_reconstruction_resource_accounting": _ONE_WAY,
    "enable_pandas_block": "blocks are Arrow's",
    "enable_per_node_metrics": _STATS,
    "enable_progress_bar_name_truncation": _PROGRESS,
    "enable_rich_progress_bars": _PROGRESS,
    "enable_stats_summary_collection": "each dataset has its own get_stats_summary()",
    "enable_tensor_extension_casting": "arrays make tensors",
    "enforce_schemas": "blocks whose schemas differ have one for all, or are an error",
    "execution_no_progress_timeout_s": _STALLS,
    "gpu_shuffle_num_actors": _GPU,
    "gpu_shuffle_rmm_pool_size": _GPU,
    "gpu_shuffle_setup_timeout_s": _GPU,
    "gpu_shuffle_spill_memory_limit": _GPU,
    "hash_aggregate_operator_actor_num_cpus_override": _NO_AGGREGATORS,
    "hash_shuffle_aggregator_health_warning_interval_s": _NO_AGGREGATORS,
    "hash_shuffle_compression": _ONE_WAY,
    "hash_shuffle_operator_actor_num_cpus_override": _NO_AGGREGATORS,
    "hash_shuffle_reduce_batch_size": _MEASURED,
    "hash_shuffle_reduce_get_timeout_s": _STALLS,
    "isolate_read_workers": _ONE_WAY,
    "issue_detectors_config": _STALLS,
    "join_operator_actor_num_cpus_override": _NO_AGGREGATORS,
    "large_args_threshold": _ONE_WAY,
    "log_internal_stack_trace": "errors have the frames of the user's functions, and the rest as their cause",
    "log_internal_stack_trace_to_stdout": "errors have the frames of the user's functions, and the rest as their cause",
    "max_hash_shuffle_aggregators": _NO_AGGREGATORS,
    "max_hash_shuffle_finalization_batch_size": _NO_AGGREGATORS,
    "memory_usage_poll_interval_s": _STATS,
    "min_hash_shuffle_aggregator_wait_time_in_s": _NO_AGGREGATORS,
    "min_parallelism": "use read_op_min_num_blocks",
    "object_store_memory_pressure_fraction": _BUDGET,
    "object_store_reservation_overshoot_ratio": _BUDGET,
    "op_resource_reservation_enabled": _BUDGET,
    "op_resource_reservation_ratio": _BUDGET,
    "output_backpressure_guard_release_interval_s": _BUDGET,
    "override_object_store_memory_limit_fraction": "set ExecutionOptions.resource_limits, whose object_store_memory is bytes",
    "pandas_block_ignore_metadata": "types are those of the columns",
    "per_stage_map_timing": _STATS,
    "pipeline_push_based_shuffle_reduce_tasks": _ONE_WAY,
    "print_on_execution_start": "nothing is printed",
    "raise_original_map_exception": "what is raised is an error of the original class as well",
    "s3_try_create_dir": "give a writer try_create_dir=",
    "scheduling_strategy": "give it to an operator, as scheduling_strategy=",
    "scheduling_strategy_large_args": "give it to an operator, as scheduling_strategy=",
    "shuffle_compression": _ONE_WAY,
    "shuffle_input_batch_bytes": _MEASURED,
    "shuffle_strategy": _ONE_WAY,
    "streaming_read_buffer_size": _ONE_WAY,
    "trace_allocations": "stats() has the memory of each stage",
    "use_arrow_tensor_v2": "offsets are as wide as they need be",
    "use_datasource_v2": _ONE_WAY,
    "use_disk_based_hash_shuffle": "what an exchange keeps goes to disk as the store fills",
    "use_external_hash_shuffle": "what an exchange keeps goes to disk as the store fills",
    "use_legacy_dataset_ids": _ONE_WAY,
    "use_legacy_iter_batches": _ONE_WAY,
    "use_polars": "it is used where it is installed and quicker",
    "use_polars_sort": "it is used where it is installed and quicker",
    "use_push_based_shuffle": _ONE_WAY,
    "use_ray_tqdm": _PROGRESS,
    "use_streaming_executor": _ONE_WAY,
    "verbose_stats_logs": _STATS,
    "wait_for_min_actors_s": _POOLS,
    "warn_on_driver_memory_usage_bytes": _ONE_WAY,
}

_NOT_AGAIN: Final = (
    "what the system did is tried again; an error of a function is not: catch it there, or give on_error="
)
_THEIR_OWN: Final = "the library tries again by itself; give its own options in catalog_kwargs= or storage_options="
_OF_PANDAS: Final = "frames have NumPy's types; Arrow's come with batch_format='pyarrow'"
_OF_ACTORS: Final = "catch the error in the constructor of the class, and try again there"

REFUSED: Final[Mapping[str, str]] = {
    "actor_init_retry_on_errors": _OF_ACTORS,
    "actor_task_retry_on_errors": _NOT_AGAIN,
    "delta_config": _THEIR_OWN,
    "enable_arrow_backed_pandas_conversion": _OF_PANDAS,
    "enable_fallback_to_arrow_object_ext_type": "give such values as bytes, of pickle.dumps() for example",
    "iceberg_config": _THEIR_OWN,
    "lance_config": _THEIR_OWN,
    "max_consecutive_actor_init_deaths": _OF_ACTORS,
    "max_errored_blocks": "give the operator on_error='skip' or 'collect', which is for rows that fail",
    "max_map_retries": _NOT_AGAIN,
    "retried_map_errors": _NOT_AGAIN,
}

CLASSES: Final[Mapping[str, str]] = {
    "AutoscalingConfig": _POOLS,
    "DeltaConfig": _THEIR_OWN,
    "IcebergConfig": _THEIR_OWN,
    "LanceConfig": _THEIR_OWN,
    "ShuffleStrategy": f"{_ONE_WAY} to exchange rows",
}
"""Of `ray.data.context`, for such settings."""
