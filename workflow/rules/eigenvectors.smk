rule weights:
    output:
        layout.WEIGHTS.output,
    log:
        layout.WEIGHTS.log,
    conda:
        "../envs/cuvler.yaml"
    params:
        definitions=model_of_backbone,
    shell:
        "cuvler weights --backbone {wildcards.backbone} --definitions {params.definitions:q}"
        " --output {output:q} &> {log:q}"


rule eigenvectors:
    input:
        listing=layout.LISTING.output,
        weights=weights_of,
    output:
        layout.EIGENVECTORS.output,
    log:
        layout.EIGENVECTORS.log,
    benchmark:
        layout.EIGENVECTORS.benchmark
    conda:
        "../envs/cuvler.yaml"
    threads: gpu_job_threads("eigenvectors")
    resources:
        gpus=GPUS["eigenvectors"],
    params:
        image_root=images_of,
        weights=lambda wildcards, input: ["--weights", input.weights] if input.weights else [],
        definitions=definition_of_backbone,
        access=IMAGE_ACCESS,
        vectors=needed_vectors,
        tau=graph_option("tau"),
        eps=graph_option("eps"),
        batch_size=settings.eigenvectors.batch_size,
        device=settings.eigenvectors.device,
        precision=settings.eigenvectors.precision,
    shell:
        "cuvler eigenvectors --listing {input.listing:q} --image-root {params.image_root:q}"
        " --backbone {wildcards.backbone} --shard {wildcards.shard} {params.weights:q}"
        " --definitions {params.definitions:q} {params.vectors} --tau {params.tau} --eps {params.eps}"
        " --batch-size {params.batch_size} --device {params.device} --precision {params.precision}"
        " {params.access} --threads {threads} --output {output:q} &> {log:q}"
