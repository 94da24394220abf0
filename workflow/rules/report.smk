include: "report_inputs.smk"


rule report:
    input:
        [path for option, name, path in report_files()],
    output:
        # Also included in `snakemake --report`.
        report(layout.REPORT.output, caption="../report/results.rst", category="Results"),
    log:
        layout.REPORT.log,
    conda:
        "../envs/cuvler.yaml"
    params:
        options=report_options,
        benchmarks=str(Path(settings.results, layout.BENCHMARKS)),
        access=IMAGE_ACCESS,
        num_images=settings.report.images,
        gpus=report_gpus,
        config=lambda wildcards: yaml.safe_dump(config, sort_keys=False),
    shell:
        "cuvler report {params.options:q} --benchmarks {params.benchmarks:q} {params.gpus}"
        " --num-images {params.num_images} {params.access} --config {params.config:q}"
        " --output {output:q} &> {log:q}"
