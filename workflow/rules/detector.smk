rule detector:
    input:
        annotations=training_annotations,
        weights=initial_weights,
        validation=validation_ground_truth("detector"),
    output:
        # Checkpoints are in the same folder, but no outputs: Snakemake would delete them when a job
        # is killed, and training resumes from them.
        layout.DETECTOR.output,
    log:
        layout.DETECTOR.log,
    benchmark:
        layout.DETECTOR.benchmark
    conda:
        "../envs/detector.yaml"
    threads: gpu_job_threads("detector")
    resources:
        **slurm.several_nodes(settings.detector.nodes),
        gpus=GPUS["detector"],
    params:
        launcher=lambda wildcards, resources: resources.get("mpi", ""),
        image_root=lambda wildcards: training_dataset(wildcards).images,
        weights=lambda wildcards, input: ["--weights", input.weights] if input.weights else [],
        detector_config=training_detector_config,
        num_gpus=settings.detector.num_gpus,
        access=IMAGE_ACCESS,
        workers=settings.detector.workers,
        evaluate=validation_options("detector"),
        folder=lambda wildcards, output: Path(output[0]).parent,
        opts=lambda wildcards: settings.detector.opts,
    shell:
        "{params.launcher} cuvler detector --annotations {input.annotations:q}"
        " --image-root {params.image_root:q}"
        " --detector-config {params.detector_config} {params.weights:q} --num-gpus {params.num_gpus}"
        " --workers {params.workers} {params.access} {params.evaluate:q}"
        " --output {params.folder:q} {params.opts:q} &> {log:q}"
