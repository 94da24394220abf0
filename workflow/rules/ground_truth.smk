rule ground_truth:
    input:
        official_annotations,
    output:
        "<results>/ground_truth/{dataset}.json",
    log:
        "<logs>/ground_truth/{dataset}.log",
    benchmark:
        "<benchmarks>/ground_truth/{dataset}.tsv"
    # Early: what is not where the config says is told before anything long has begun.
    priority: 1
    conda:
        "../envs/cuvler.yaml"
    params:
        root=images_of,
        options=ground_truth_options,
    shell:
        "cuvler ground-truth --dataset {wildcards.dataset} --images {params.root:q}"
        " {params.options:q} --output {output:q} &> {log:q}"
