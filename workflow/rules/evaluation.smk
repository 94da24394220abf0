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
        metrics=lambda wildcards, input: [
            word
            for name, path in zip(settings.evaluate, input)
            for word in ("--metrics", f"{name}={path}", "--title", f"{name}={dataset(name).title}")
        ],
    shell:
        "cuvler table {params.metrics:q} --csv {output.csv:q} --markdown {output.markdown:q}"
        " &> {log:q}"
