rule annotations:
    input:
        listing=layout.LISTING.output,
        shards=pseudo_masks_of,
    output:
        layout.ANNOTATIONS.output,
    log:
        layout.ANNOTATIONS.log,
    benchmark:
        layout.ANNOTATIONS.benchmark
    conda:
        "../envs/cuvler.yaml"
    params:
        folder=folder_of_shards,
        max_failed=settings.annotations.max_failed,
    shell:
        "cuvler annotations --listing {input.listing:q} --max-failed {params.max_failed}"
        " --output {output:q} {params.folder:q} &> {log:q}"
