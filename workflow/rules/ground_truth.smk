rule ground_truth:
    input:
        official_annotations,
    output:
        layout.GROUND_TRUTH.output,
    log:
        layout.GROUND_TRUTH.log,
    benchmark:
        layout.GROUND_TRUTH.benchmark
    # Early, so that missing files are reported before any long job starts.
    priority: 1
    conda:
        "../envs/cuvler.yaml"
    params:
        image_root=images_of,
        options=ground_truth_options,
    shell:
        "cuvler ground-truth --dataset {wildcards.dataset} --image-root {params.image_root:q}"
        " {params.options:q} --output {output:q} &> {log:q}"
