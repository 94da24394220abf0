include: "reproduction_inputs.smk"


rule reproduction_file:
    output:
        # A link to the download, or the reason for a failure, which does not stop other jobs. The
        # outcome file is no output, so that Snakemake does not delete it with this file.
        layout.REPRODUCTION_FILE.output,
    log:
        layout.REPRODUCTION_FILE.log,
    conda:
        "../envs/detector.yaml"
    params:
        address=reproduction_address,
        attempt=lambda wildcards: reproduction.next_attempt(reproduction_file(wildcards)),
    shell:
        "cuvler reproduction fetch {wildcards.entry} {params.address:q}"
        " --attempt {params.attempt} --output {output:q} &> {log:q}"


use rule predictions as reproduction_predictions with:
    input:
        detector=layout.REPRODUCTION_FILE.output,
        listing=layout.LISTING.output,
    output:
        layout.REPRODUCTION_PREDICTIONS.output,
    log:
        layout.REPRODUCTION_PREDICTIONS.log,
    benchmark:
        layout.REPRODUCTION_PREDICTIONS.benchmark
    params:
        program=reproduction_step(layout.REPRODUCTION_PREDICTIONS, after=reproduction_file),
        detector=lambda wildcards, input: [
            *(input.detector, "--detector-config", reproduced(wildcards).detector_config)
        ],
        # The published figures are without test-time augmentation.
        tta=[],


use rule evaluation as reproduction_evaluation with:
    input:
        ground_truth=reproduction_truth,
        results=reproduction_results,
    output:
        layout.REPRODUCTION_EVALUATION.output,
    log:
        layout.REPRODUCTION_EVALUATION.log,
    benchmark:
        layout.REPRODUCTION_EVALUATION.benchmark
    params:
        program=reproduction_step(layout.REPRODUCTION_EVALUATION, after=reproduction_results),
        boxes=reproduction_scoring,


rule reproduction:
    input:
        evaluations=reproduction_evaluations,
    output:
        layout.REPRODUCTION.output,
    log:
        layout.REPRODUCTION.log,
    conda:
        "../envs/cuvler.yaml"
    params:
        options=reproduction_options,
    shell:
        "cuvler reproduction table {params.options:q} --output {output:q} &> {log:q}"
