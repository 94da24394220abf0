rule download:
    output:
        "<resources>/downloads/{file}",
    log:
        "<logs>/download/{file}.log",
    wildcard_constraints:
        file="|".join(map(re.escape, published_files())),
    conda:
        "../envs/cuvler.yaml"
    params:
        folder=lambda wildcards, output: Path(output[0]).parent,
    shell:
        "cuvler download {wildcards.file:q} --folder {params.folder:q} &> {log:q}"
