rule evaluation:
    input:
        ground_truth=scored_ground_truth,
        results=scored_results,
    output:
        layout.EVALUATION.output,
    log:
        layout.EVALUATION.log,
    benchmark:
        layout.EVALUATION.benchmark
    conda:
        "../envs/cuvler.yaml"
    params:
        # Rules that inherit from this one run it as a separate step.
        program=["cuvler"],
        ground_truth=lambda wildcards: dataset(wildcards.dataset).ground_truth,
        boxes=lambda wildcards: [] if dataset(wildcards.dataset).masks else ["--iou-type", "bbox"],
        limit=limit_of("max_detections", "--max-detections"),
    shell:
        "{params.program:q} evaluation --ground-truth {params.ground_truth:q}"
        " --results {input.results:q} {params.boxes} {params.limit} --output {output:q} &> {log:q}"


rule metrics:
    input:
        evaluations=evaluations_of,
    output:
        layout.METRICS.output,
    log:
        layout.METRICS.log,
    conda:
        "../envs/cuvler.yaml"
    params:
        entries=lambda wildcards, input: entry_options(
            scored_entries(wildcards.dataset), input.evaluations
        ),
    shell:
        "cuvler metrics {params.entries:q} --output {output:q} &> {log:q}"


rule table:
    input:
        [layout.METRICS.of(dataset=name) for name in settings.evaluate],
    output:
        csv=layout.TABLE.of(format="csv"),
        markdown=layout.TABLE.of(format="md"),
    log:
        layout.TABLE.log,
    conda:
        "../envs/cuvler.yaml"
    params:
        metrics=lambda wildcards, input: metrics_options(settings.evaluate, input),
    shell:
        "cuvler table {params.metrics:q} --csv {output.csv:q} --markdown {output.markdown:q}"
        " &> {log:q}"


rule model_card:
    input:
        detector=layout.DETECTOR.output,
        metrics=[layout.METRICS.of(dataset=name) for name in settings.evaluate],
    output:
        layout.MODEL_CARD.output,
    log:
        layout.MODEL_CARD.log,
    conda:
        "../envs/detector.yaml"
    params:
        folder=lambda wildcards, output: Path(output[0]).parent,
        metrics=lambda wildcards, input: metrics_options(settings.evaluate, input.metrics),
    shell:
        "cuvler model-card --detector {params.folder:q} {params.metrics:q} &> {log:q}"
