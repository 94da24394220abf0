rule pseudo_masks:
    input:
        images=layout.LISTING.output,
        eigenvectors=eigenvectors_of,
    output:
        layout.PSEUDO_MASKS.output,
    log:
        layout.PSEUDO_MASKS.log,
    benchmark:
        layout.PSEUDO_MASKS.benchmark
    conda:
        "../envs/cuvler.yaml"
    threads: 16
    params:
        root=images_of,
        eigenvectors=lambda wildcards, input: [
            word for path in input.eigenvectors for word in ("--eigenvectors", path)
        ],
        options=method_options,
    shell:
        "cuvler pseudo-masks --method {wildcards.method} --images {input.images:q}"
        " --root {params.root:q} --shard {wildcards.shard} {params.eigenvectors:q}"
        " {params.options:q} --workers {threads}"
        " --output {output:q} &> {log:q}"
