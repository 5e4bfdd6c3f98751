"""What a comparison consists of: a header, a row for each artefact and way of running it, and the answers behind them.

`rows` makes it from a manifest and a report, `table` and the pages show it, `document` keeps it as a file, and verdicts
are made from it alone. None is a figure that does not exist; nothing is estimated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from liteship.report.accuracy import Answers

NO_GAIN = 1.0


@dataclass(frozen=True)
class Row:
    """One line of the comparison table.

    Args:
        variant: For example `magnitude50-int8`.
        sha256: Of the .tflite file that every figure of the row belongs to.
        status: In words, the worst that is known: "refused: REASON", "failed: REASON", "not run", "parity failed:
            REASON", "golden failed: REASON", else "valid", "repeated", "unstable" or "throttle unknown"; after
            "forced, " where the preflight was overridden.
        runtime, runtime_version, threads, cpus: How it was run, or was to be run.
        requested_sparsity, achieved_sparsity: Ratio of zero weights, asked for and read back from the file.
        size_bytes, gzip_bytes: The file, plain and after gzip at level 9.
        multiply_adds: Of one inference.
        keras_model, keras_size_bytes, keras_gzip_bytes, parameters, removed_filters_ratio: The model it was converted
            from: name, its file, weights, and the share of the baseline's filters that pruning removed.
        parity_passed, parity_drop_ratio, parity_max_drop_ratio, parity_equal_ratio, parity_largest_difference: The file
            against that model on the host: whether it kept its accuracy, how much it lost (below 0: it gained) and may
            lose, the share of images with the same answer, the largest difference of a score.
        sparse_eligible, sparse_layer, sparse_reason, sparse_holds_for: Whether XNNPACK's sparse kernels take it, the
            first layer and rule that say no, and the runtime and machine that the rules are of.
        stored_sparse: Whether weights are stored in the sparse format.
        dense_twin_of: sha256 of the file whose weights this one stores densely.
        sparse_speedup_ratio: How many times faster than its dense twin it ran, both relative to the baseline.
        validity, reasons: Of its blocks: "valid", "repeated", "unstable" or "unknown", and why.
        forced: Whether it was measured although the preflight refused.
        blocks, repeated, void: Blocks that count; measurements beyond them; blocks that stayed void.
        queries: Timed invocations.
        median_ns, median_low_ns, median_high_ns: Latency of one invocation with its 95 % interval over blocks.
        p90_ns, p90_low_ns, p90_high_ns: The 90th percentile likewise; only from 64 queries on.
        p90_bound_ns: What the 90th percentile does not exceed, at 99 % confidence.
        ratio_to_baseline, ratio_low, ratio_high: Latency as a multiple of the baseline's in the same rounds with its
            95 % interval; 0.62 takes 62 % of its time. None, like `latency_gain`, on an emulated machine.
        latency_tie: Whether that interval holds 1; None for the baseline.
        round_medians_ns: Median latency in each round, of the measurement that counts; None where it is void or
            missing.
        end_to_end_median_ns: Decoding to classification of one image.
        decode_ns, preprocess_ns, invoke_ns, postprocess_ns: Its stages, median over blocks.
        init_ns, first_ns, warmup_ns, warmup_count: Loading, first invocation, warm-up: medians over blocks.
        rss_peak_bytes, rss_anon_bytes: Largest resident set and anonymous memory of its processes.
        cores_used: CPU time of its process per wall time of its invocations.
        own_overhead_ratio: Share of the timed loop that was not spent in invocations.
        delegated_nodes, total_nodes: Graph nodes run by the XNNPACK delegate, of all.
        peak_ratio, peak_core, peak_clock_hz, peak_reasons: Arithmetic as a share of the most that its cores can do in
            float32 at that clock, and why it is below a tenth or not known.
        target_correct, image_count: Images classified correctly on the target, of all that were classified there.
        target_accuracy_ratio: Their share.
        target_accuracy_low_ratio, target_accuracy_high_ratio: Its 95 % Wilson interval.
        host_accuracy_ratio: Of the same bytes on the host, over the whole validation set.
        accuracy_difference_ratio, accuracy_difference_low_ratio, accuracy_difference_high_ratio: Accuracy less the
            baseline's on the same images with its 95 % interval; None where the baseline's answers are its own.
        accuracy_p: Two-sided exact McNemar test that both are equally good.
        accuracy_tie: Whether that interval holds 0.
        golden_difference, golden_tolerance, golden_within_tolerance: Against the host's golden outputs.
        flips_host, flips_host_pixels, flips_host_kernels: Images that the host classifies otherwise; by cause.
        flips_baseline: Images that the baseline classifies otherwise on the target.
        file_gain, gzip_gain, memory_gain, latency_gain: How many times smaller or faster than the baseline; 1.0 where
            it is less than 1.05, for memory also where not every round shows it, for latency where the interval of
            the ratio is not below 1; None for latency where that has no interval, or the row or the baseline is
            unstable.
    """

    variant: str
    sha256: str | None
    status: str
    runtime: str | None = None
    runtime_version: str | None = None
    threads: int | None = None
    cpus: tuple[int, ...] | None = None
    requested_sparsity: float | None = None
    achieved_sparsity: float | None = None
    size_bytes: int | None = None
    gzip_bytes: int | None = None
    multiply_adds: int | None = None
    keras_model: str | None = None
    keras_size_bytes: int | None = None
    keras_gzip_bytes: int | None = None
    parameters: int | None = None
    removed_filters_ratio: float | None = None
    parity_passed: bool | None = None
    parity_drop_ratio: float | None = None
    parity_max_drop_ratio: float | None = None
    parity_equal_ratio: float | None = None
    parity_largest_difference: float | None = None
    sparse_eligible: bool | None = None
    sparse_layer: str | None = None
    sparse_reason: str | None = None
    sparse_holds_for: str | None = None
    stored_sparse: bool | None = None
    dense_twin_of: str | None = None
    sparse_speedup_ratio: float | None = None
    validity: str | None = None
    reasons: tuple[str, ...] = ()
    forced: bool = False
    blocks: int | None = None
    repeated: int | None = None
    void: int | None = None
    queries: int | None = None
    median_ns: float | None = None
    median_low_ns: float | None = None
    median_high_ns: float | None = None
    p90_ns: float | None = None
    p90_low_ns: float | None = None
    p90_high_ns: float | None = None
    p90_bound_ns: float | None = None
    ratio_to_baseline: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    latency_tie: bool | None = None
    round_medians_ns: tuple[float | None, ...] = ()
    end_to_end_median_ns: float | None = None
    decode_ns: float | None = None
    preprocess_ns: float | None = None
    invoke_ns: float | None = None
    postprocess_ns: float | None = None
    init_ns: float | None = None
    first_ns: float | None = None
    warmup_ns: float | None = None
    warmup_count: float | None = None
    rss_peak_bytes: int | None = None
    rss_anon_bytes: int | None = None
    cores_used: float | None = None
    own_overhead_ratio: float | None = None
    delegated_nodes: int | None = None
    total_nodes: int | None = None
    peak_ratio: float | None = None
    peak_core: str | None = None
    peak_clock_hz: float | None = None
    peak_reasons: tuple[str, ...] = ()
    target_correct: int | None = None
    image_count: int | None = None
    target_accuracy_ratio: float | None = None
    target_accuracy_low_ratio: float | None = None
    target_accuracy_high_ratio: float | None = None
    host_accuracy_ratio: float | None = None
    accuracy_difference_ratio: float | None = None
    accuracy_difference_low_ratio: float | None = None
    accuracy_difference_high_ratio: float | None = None
    accuracy_p: float | None = None
    accuracy_tie: bool | None = None
    golden_difference: float | None = None
    golden_tolerance: float | None = None
    golden_within_tolerance: bool | None = None
    flips_host: int | None = None
    flips_host_pixels: int | None = None
    flips_host_kernels: int | None = None
    flips_baseline: int | None = None
    file_gain: float | None = None
    gzip_gain: float | None = None
    memory_gain: float | None = None
    latency_gain: float | None = None


@dataclass(frozen=True)
class Header:
    """What all rows of one job share; runtime, threads and CPUs are None where they differ.

    Args:
        target: Name of the machine in the inventory.
        study: Name of the study.
        runtime, runtime_version, threads, cpus: How every row was run; None where they differ.
        tier: How long each case was timed.
        job_id: Of the job; ids sort by time.
        board: Model of the board, else of its CPU, None where neither is known.
        date: When the job was made, by the host's clock ("2026-11-22 10:15"), None if its id does not say.
        image_count: Validation images that were classified on the target.
        baseline: Variant of the job's first case, that ratios and gains refer to.
        baseline_is_float: Whether that is a file without quantization.
        repeats: How often a void block may be measured again.
        forced, problems: Whether the preflight could be overridden, and what it had found.
        blind_sensors: What would tell about throttling and is missing here, each with reason and remedy.
        environment: Of the target, as the agent read it: kernel, operating system, governor, memory and so on.
        images_sha256: Of the images and their labels in order: answers on equal ones can be compared one by one.
        manifest_sha256: Of the manifest that the report was made from.
        pixels_different: Images whose resized pixels are not the host's, None where that was not compared.
        largest_pixel_difference: Of those that were compared, 0 to 255; None where it is not known.
    """

    target: str
    study: str
    board: str | None
    runtime: str | None
    runtime_version: str | None
    threads: int | None
    cpus: tuple[int, ...] | None
    tier: str
    image_count: int
    job_id: str
    date: str | None
    baseline: str | None
    baseline_is_float: bool
    repeats: int
    forced: bool
    problems: tuple[str, ...]
    blind_sensors: tuple[str, ...]
    pixels_different: int | None
    largest_pixel_difference: int | None
    images_sha256: str
    manifest_sha256: str
    environment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """All that a table shows.

    Args:
        header: What the rows share.
        rows: Of the manifest's entries in their order, each with its cases in the job's order, then of what could not
            be made.
        answers: Of every artefact and runtime that classified the images.
    """

    header: Header
    rows: tuple[Row, ...]
    answers: tuple[Answers, ...]
