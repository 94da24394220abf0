rule evaluation:
    input:
        ground_truth=scored_annotations,
        results=scored_results,
    output:
        "<results>/evaluation/{dataset}/{entry}.json",
    log:
        "<logs>/evaluation/{dataset}/{entry}.log",
    benchmark:
        "<benchmarks>/evaluation/{dataset}/{entry}.tsv"
    conda:
        "../envs/cuvler.yaml"
    params:
        ground_truth=lambda wildcards: dataset(wildcards.dataset).annotations,
        boxes=lambda wildcards: [] if dataset(wildcards.dataset).masks else ["--iou-type", "bbox"],
        limit=limit_of("max_detections", "--max-detections"),
    shell:
        "cuvler evaluation --ground-truth {params.ground_truth:q} --results {input.results:q}"
        " {params.boxes} {params.limit} --output {output:q} &> {log:q}"


rule metrics:
    input:
        evaluations=evaluations_of,
    output:
        "<results>/{dataset}_metrics.json",
    log:
        "<logs>/metrics/{dataset}.log",
    conda:
        "../envs/cuvler.yaml"
    params:
        entries=lambda wildcards, input: [
            word for path in input.evaluations for word in ("--entry", f"{Path(path).stem}={path}")
        ],
    shell:
        "cuvler metrics {params.entries:q} --output {output:q} &> {log:q}"


rule table:
    input:
        expand("<results>/{dataset}_metrics.json", dataset=config["evaluate"]),
    output:
        csv="<results>/table.csv",
        markdown="<results>/table.md",
    log:
        "<logs>/table.log",
    conda:
        "../envs/cuvler.yaml"
    params:
        metrics=lambda wildcards, input: [
            word
            for name, path in zip(config["evaluate"], input)
            for word in ("--metrics", f"{name}={path}", "--title", f"{name}={dataset(name).title}")
        ],
    shell:
        "cuvler table {params.metrics:q} --csv {output.csv:q} --markdown {output.markdown:q}"
        " &> {log:q}"
