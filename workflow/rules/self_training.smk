rule self_training:
    input:
        predictions=self_training_predictions,
        images=f"<results>/images/{config['self_training']['dataset']}.parquet",
    output:
        "<results>/self_training/{recipe}_round{round}.json",
    log:
        "<logs>/self_training/{recipe}_round{round}.log",
    benchmark:
        "<benchmarks>/self_training/{recipe}_round{round}.tsv"
    conda:
        "../envs/cuvler.yaml"
    params:
        threshold=self_training_threshold,
    shell:
        "cuvler self-training --recipe {wildcards.recipe} --predictions {input.predictions:q}"
        " --images {input.images:q} --threshold {params.threshold}"
        " --output {output:q} &> {log:q}"
