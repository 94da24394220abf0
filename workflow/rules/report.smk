rule report:
    input:
        metrics=expand("<results>/{dataset}_metrics.json", dataset=config["evaluate"]),
    output:
        "<results>/report.html",
    log:
        "<logs>/report.log",
    conda:
        "../envs/cuvler.yaml"
    shell:
        "cuvler report --output {output:q} &> {log:q}"
