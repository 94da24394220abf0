rule report:
    input:
        [path for option, name, path in report_files()],
    output:
        "<results>/report.html",
    log:
        "<logs>/report.log",
    conda:
        "../envs/cuvler.yaml"
    params:
        options=report_options,
        benchmarks=f"{config['results']}/benchmarks",
        images=config["report"]["images"],
        config=yaml.safe_dump(config, sort_keys=False),
    shell:
        "cuvler report {params.options:q} --benchmarks {params.benchmarks:q}"
        " --images {params.images} --config {params.config:q} --output {output:q} &> {log:q}"
