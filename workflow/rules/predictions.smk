rule predictions:
    input:
        detector=layout.DETECTOR.output,
        listing=layout.LISTING.output,
    output:
        layout.PREDICTIONS.output,
    log:
        layout.PREDICTIONS.log,
    benchmark:
        layout.PREDICTIONS.benchmark
    conda:
        "../envs/detector.yaml"
    threads: gpu_job_threads("predictions")
    resources:
        gpus=GPUS["predictions"],
    params:
        # Rules that inherit from this one run it as a separate step.
        program=["cuvler"],
        detector=lambda wildcards, input: Path(input.detector).parent,
        image_root=images_of,
        access=IMAGE_ACCESS,
        limit=limit_of("detections_per_image", "--detections-per-image"),
        batch_size=settings.predictions.batch_size,
        num_gpus=settings.predictions.num_gpus,
        max_failed=settings.annotations.max_failed,
        tta=["--tta"] if settings.predictions.tta else [],
    shell:
        "{params.program:q} predictions --detector {params.detector:q} --listing {input.listing:q}"
        " --image-root {params.image_root:q} --batch-size {params.batch_size}"
        " --num-gpus {params.num_gpus} --max-failed {params.max_failed} {params.limit} {params.tta}"
        " {params.access} --output {output:q} &> {log:q}"
