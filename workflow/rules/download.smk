rule download:
    output:
        layout.DOWNLOAD.output,
    log:
        layout.DOWNLOAD.log,
    wildcard_constraints:
        file="|".join(map(re.escape, [*published_files(), *settings.download])),
    conda:
        "../envs/cuvler.yaml"
    params:
        source=download_source,
    shell:
        "cuvler download {params.source:q} --output {output:q} &> {log:q}"
