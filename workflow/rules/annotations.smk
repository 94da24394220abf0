rule annotations:
    input:
        images="<results>/images/{dataset}.parquet",
        shards=pseudo_masks_of,
    output:
        "<results>/annotations/{dataset}/{method}.json",
    log:
        "<logs>/annotations/{dataset}/{method}.log",
    benchmark:
        "<benchmarks>/annotations/{dataset}/{method}.tsv"
    conda:
        "../envs/cuvler.yaml"
    params:
        folder=folder_of_shards,
        max_failed=config["annotations"]["max_failed"],
    shell:
        "cuvler annotations --images {input.images:q} --max-failed {params.max_failed}"
        " --output {output:q} {params.folder:q} &> {log:q}"
