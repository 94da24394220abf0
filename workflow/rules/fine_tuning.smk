rule splits:
    input:
        annotations=listed_annotations,
    output:
        [f"<results>/splits/{{dataset}}/{percent}.json" for percent in PERCENTS],
    log:
        "<logs>/splits/{dataset}.log",
    benchmark:
        "<benchmarks>/splits/{dataset}.tsv"
    conda:
        "../envs/cuvler.yaml"
    params:
        annotations=labels_of,
        percents=[word for percent in PERCENTS for word in ("--percent", percent)],
        seed=config["fine_tuning"]["seed"],
        folder=lambda wildcards, output: Path(output[0]).parent,
    shell:
        "cuvler splits --annotations {params.annotations:q} {params.percents}"
        " --seed {params.seed} --output {params.folder:q} &> {log:q}"


use rule detector as fine_tuning with:
    input:
        annotations=f"<results>/splits/{config['fine_tuning']['dataset']}/{{percent}}.json",
        weights="<results>/detectors/{recipe}_round{round}/model_final.pth",
    output:
        "<results>/fine_tuning/detectors/{recipe}_round{round}_{percent}percent/model_final.pth",
    log:
        "<logs>/fine_tuning/detectors/{recipe}_round{round}_{percent}percent.log",
    benchmark:
        "<benchmarks>/fine_tuning/{recipe}_round{round}_{percent}percent.tsv"
    params:
        root=dataset(config["fine_tuning"]["dataset"]).images,
        recipe=lambda wildcards: settings.fine_tuning_detector(config, wildcards.percent),
        opts=lambda wildcards: config["fine_tuning"]["opts"],


use rule predictions as fine_tuning_predictions with:
    input:
        detector="<results>/fine_tuning/detectors/{detector}/model_final.pth",
        images="<results>/images/{dataset}.parquet",
    output:
        "<results>/fine_tuning/predictions/{detector}/{dataset}.json",
    log:
        "<logs>/fine_tuning/predictions/{detector}/{dataset}.log",
    benchmark:
        "<benchmarks>/fine_tuning_predictions/{detector}/{dataset}.tsv"


rule fine_tuning_evaluation:
    input:
        ground_truth=listed_annotations,
        results="<results>/fine_tuning/predictions/{detector}/{dataset}.json",
    output:
        "<results>/fine_tuning/evaluation/{dataset}/{detector}.json",
    log:
        "<logs>/fine_tuning/evaluation/{dataset}/{detector}.log",
    benchmark:
        "<benchmarks>/fine_tuning_evaluation/{dataset}/{detector}.tsv"
    conda:
        "../envs/cuvler.yaml"
    params:
        ground_truth=labels_of,
    shell:
        "cuvler evaluation --ground-truth {params.ground_truth:q} --results {input.results:q}"
        " --per-category --output {output:q} &> {log:q}"


use rule metrics as fine_tuning_metrics with:
    input:
        evaluations=expand(
            "<results>/fine_tuning/evaluation/{{dataset}}/{detector}.json", detector=FINE_TUNED
        ),
    output:
        "<results>/fine_tuning/{dataset}_metrics.json",
    log:
        "<logs>/fine_tuning/{dataset}_metrics.log",
