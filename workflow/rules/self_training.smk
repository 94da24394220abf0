rule self_training:
    input:
        predictions=self_training_predictions,
        images=self_training_images,
        former=former_annotations,
    output:
        "<results>/self_training/{recipe}_round{round}.json",
    log:
        "<logs>/self_training/{recipe}_round{round}.log",
    benchmark:
        "<benchmarks>/self_training/{recipe}_round{round}.tsv"
    conda:
        "../envs/cuvler.yaml"
    params:
        former=lambda wildcards, input: ["--former", input.former] if input.former else [],
        limit=lambda wildcards: self_training_of(wildcards)["detections_per_image"],
        threshold=self_training_threshold,
    shell:
        "cuvler self-training --predictions {input.predictions:q} --images {input.images:q}"
        " {params.former:q} --detections-per-image {params.limit} --threshold {params.threshold}"
        " --output {output:q} &> {log:q}"
