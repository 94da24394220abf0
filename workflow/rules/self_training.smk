rule self_training:
    input:
        predictions=self_training_predictions,
        listing=self_training_listing,
        previous=previous_annotations,
    output:
        layout.SELF_TRAINING.output,
    log:
        layout.SELF_TRAINING.log,
    benchmark:
        layout.SELF_TRAINING.benchmark
    conda:
        "../envs/cuvler.yaml"
    params:
        previous=lambda wildcards, input: ["--previous", input.previous] if input.previous else [],
        limit=lambda wildcards: self_training_of(wildcards).detections_per_image,
        score_threshold=self_training_score_threshold,
    shell:
        "cuvler self-training --predictions {input.predictions:q} --listing {input.listing:q}"
        " {params.previous:q} --detections-per-image {params.limit}"
        " --score-threshold {params.score_threshold} --output {output:q} &> {log:q}"
