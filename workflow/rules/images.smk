rule images:
    input:
        ground_truth=listed_ground_truth,
    output:
        layout.LISTING.output,
    log:
        layout.LISTING.log,
    # First and alone, as it takes all cores: a mistyped path is reported before a download begins.
    priority: 1
    conda:
        "../envs/cuvler.yaml"
    threads: lambda wildcards: workflow.cores
    params:
        # A string: Snakemake does not notice a change of paths. Here it must, or a dataset's new
        # folder goes on with the listing of the old one; later rules go by the listing.
        image_root=lambda wildcards: str(images_of(wildcards)),
        ground_truth=lambda wildcards: (
            ["--ground-truth", dataset(wildcards.dataset).annotations]
            if dataset(wildcards.dataset).annotations
            else []
        ),
        ids=lambda wildcards: dataset(wildcards.dataset).ids,
        shards=lambda wildcards: dataset(wildcards.dataset).shards,
        # Changes when images are added to the folder or removed.
        state=lambda wildcards: listed_state(wildcards.dataset),
    shell:
        "cuvler images --dataset {wildcards.dataset} --image-root {params.image_root:q}"
        " {params.ground_truth:q} --ids {params.ids} --shards {params.shards}"
        " --state {params.state:q} --output {output:q} &> {log:q}"
