rule pseudo_masks:
    input:
        listing=layout.LISTING.output,
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
        image_root=images_of,
        access=IMAGE_ACCESS,
        eigenvectors=lambda wildcards, input: [
            word for path in input.eigenvectors for word in ("--eigenvectors", path)
        ],
        options=method_options,
    shell:
        "cuvler pseudo-masks --method {wildcards.method} --listing {input.listing:q}"
        " --image-root {params.image_root:q} --shard {wildcards.shard} {params.eigenvectors:q}"
        " {params.options:q} {params.access} --workers {threads}"
        " --output {output:q} &> {log:q}"
