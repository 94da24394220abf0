rule pseudo_masks:
    input:
        images="<results>/images/{dataset}.parquet",
        eigenvectors=eigenvectors_of,
    output:
        "<results>/pseudo_masks/{dataset}/{method}/{shard}.json",
    log:
        "<logs>/pseudo_masks/{dataset}/{method}/{shard}.log",
    benchmark:
        "<benchmarks>/pseudo_masks/{dataset}/{method}/{shard}.tsv"
    conda:
        "../envs/cuvler.yaml"
    threads: 16
    params:
        root=images_of,
        eigenvectors=lambda wildcards, input: [
            word for path in input.eigenvectors for word in ("--eigenvectors", path)
        ],
        ks=[word for k in config["pseudo_masks"]["votecut"]["ks"] for word in ("--ks", k)],
        tau_m=config["pseudo_masks"]["votecut"]["tau_m"],
        crf=config["pseudo_masks"]["votecut"]["crf"],
    shell:
        "cuvler pseudo-masks --method {wildcards.method} --images {input.images:q}"
        " --root {params.root:q} --shard {wildcards.shard} {params.eigenvectors:q}"
        " {params.ks} --tau-m {params.tau_m} --crf {params.crf} --workers {threads}"
        " --output {output:q} &> {log:q}"
