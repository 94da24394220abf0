rule images:
    input:
        ground_truth=listed_ground_truth,
    output:
        layout.LISTING.output,
    log:
        layout.LISTING.log,
    # Runs first and alone, with all cores, so that a wrong path is reported before any download.
    priority: 1
    conda:
        "../envs/cuvler.yaml"
    threads: lambda wildcards: workflow.cores
    params:
        # A string, because Snakemake does not detect changes of Path parameters. A dataset in a new
        # folder must be listed again; later rules depend on the listing.
        image_root=lambda wildcards: str(images_of(wildcards)),
        ground_truth=lambda wildcards: (
            ["--ground-truth", dataset(wildcards.dataset).ground_truth]
            if dataset(wildcards.dataset).ground_truth
            else []
        ),
        ids=lambda wildcards: dataset(wildcards.dataset).ids,
        access=ALLOW_OUTSIDE,
        shards=lambda wildcards: dataset(wildcards.dataset).shards,
        # Changes when images are added to or removed from the folder.
        state=lambda wildcards: listed_state(wildcards.dataset),
    shell:
        "cuvler images --dataset {wildcards.dataset} --image-root {params.image_root:q}"
        " {params.ground_truth:q} --ids {params.ids} --shards {params.shards}"
        " {params.access} --state {params.state:q} --output {output:q} &> {log:q}"
