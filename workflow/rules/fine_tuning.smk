rule splits:
    input:
        ground_truth=listed_ground_truth,
    output:
        [layout.SPLIT.of(percent=percent) for percent in PERCENTS],
    log:
        layout.SPLIT.log,
    benchmark:
        layout.SPLIT.benchmark
    conda:
        "../envs/cuvler.yaml"
    params:
        ground_truth=labels_of,
        percents=[word for percent in PERCENTS for word in ("--percent", percent)],
        seed=settings.fine_tuning.seed,
        folder=lambda wildcards, output: Path(output[0]).parent,
    shell:
        "cuvler splits --ground-truth {params.ground_truth:q} {params.percents}"
        " --seed {params.seed} --output {params.folder:q} &> {log:q}"


use rule detector as fine_tuning with:
    input:
        annotations=fine_tuning_split,
        weights=fine_tuning_weights,
        validation=validation_ground_truth("fine_tuning"),
    output:
        layout.FINE_TUNING.output,
    log:
        layout.FINE_TUNING.log,
    benchmark:
        layout.FINE_TUNING.benchmark
    params:
        image_root=dataset(settings.fine_tuning.dataset).images,
        detector_config=fine_tuning_detector_config,
        evaluate=validation_options("fine_tuning"),
        opts=lambda wildcards: settings.fine_tuning.opts,


use rule predictions as fine_tuning_predictions with:
    input:
        detector=layout.FINE_TUNING.output,
        listing=layout.LISTING.output,
    output:
        layout.FINE_TUNING_PREDICTIONS.output,
    log:
        layout.FINE_TUNING_PREDICTIONS.log,
    benchmark:
        layout.FINE_TUNING_PREDICTIONS.benchmark


rule fine_tuning_evaluation:
    input:
        ground_truth=listed_ground_truth,
        results=layout.FINE_TUNING_PREDICTIONS.output,
    output:
        layout.FINE_TUNING_EVALUATION.output,
    log:
        layout.FINE_TUNING_EVALUATION.log,
    benchmark:
        layout.FINE_TUNING_EVALUATION.benchmark
    conda:
        "../envs/cuvler.yaml"
    params:
        ground_truth=labels_of,
    shell:
        "cuvler evaluation --ground-truth {params.ground_truth:q} --results {input.results:q}"
        " --per-category --output {output:q} &> {log:q}"


use rule metrics as fine_tuning_metrics with:
    input:
        evaluations=[layout.FINE_TUNING_EVALUATION.of(fine_tuned=name) for name in FINE_TUNED],
    output:
        layout.FINE_TUNING_METRICS.output,
    log:
        layout.FINE_TUNING_METRICS.log,
    params:
        entries=lambda wildcards, input: entry_options(FINE_TUNED, input.evaluations),


use rule model_card as fine_tuning_model_card with:
    input:
        detector=layout.FINE_TUNING.output,
        metrics=[
            layout.FINE_TUNING_METRICS.of(dataset=name) for name in settings.fine_tuning.evaluate
        ],
    output:
        layout.FINE_TUNING_MODEL_CARD.output,
    log:
        layout.FINE_TUNING_MODEL_CARD.log,
    params:
        metrics=lambda wildcards, input: metrics_options(
            settings.fine_tuning.evaluate, input.metrics
        ),
