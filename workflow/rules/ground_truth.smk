rule ground_truth:
    input:
        official_annotations,
    output:
        layout.GROUND_TRUTH.output,
    log:
        layout.GROUND_TRUTH.log,
    benchmark:
        layout.GROUND_TRUTH.benchmark
    # Early: what is not where the config says is told before anything long has begun.
    priority: 1
    conda:
        "../envs/cuvler.yaml"
    params:
        image_root=images_of,
        options=ground_truth_options,
    shell:
        "cuvler ground-truth --dataset {wildcards.dataset} --image-root {params.image_root:q}"
        " {params.options:q} --output {output:q} &> {log:q}"
