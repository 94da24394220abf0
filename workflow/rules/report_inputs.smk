# Without anything to be scored on, the detectors show what they find in the images of `train`.
PREDICTED = config["evaluate"] or [config["train"]]


def report_files():
    """The files the report shows, as (option of ``cuvler report``, name, path)."""
    results = config["results"]
    scored = config["evaluation"]["pseudo_masks"]
    masks = {(name, method) for name in [config["train"], *scored] for method in METHODS}
    return [
        *(("metrics", name, f"{results}/{name}_metrics.json") for name in config["evaluate"]),
        *(
            ("evaluation", f"{name}/{entry}", f"{results}/evaluation/{name}/{entry}.json")
            for name in config["evaluate"]
            for entry in scored_entries(name)
        ),
        *(
            ("fine-tuning", name, f"{results}/fine_tuning/{name}_metrics.json")
            for name in config["fine_tuning"]["evaluate"]
        ),
        *(
            ("annotations", f"{name}/{method}", f"{results}/annotations/{name}/{method}.json")
            for name, method in sorted(masks)
        ),
        *(
            (
                "annotations",
                f"{settings.self_training_dataset(config, recipe)}/labels of {recipe}_round{round}",
                f"{results}/self_training/{recipe}_round{round}.json",
            )
            for recipe in settings.recipes(config)
            for round in range(1, config["recipes"][recipe]["self_training"]["rounds"] + 1)
        ),
        *(
            ("predictions", f"{name}/{detector}", f"{results}/predictions/{detector}/{name}.json")
            for name in PREDICTED
            for detector in DETECTORS
        ),
    ]


def report_folders():
    """Folders the report looks into; the files in there are made on the way to the others."""
    results = config["results"]
    return [
        *(
            ("root", name, dataset(name).images)
            for name in dict.fromkeys([*config["evaluate"], config["train"]])
        ),
        *(("ground-truth", name, dataset(name).annotations) for name in config["evaluate"]),
        *(
            (
                "eigenvectors",
                f"{name}/{method}/{backbone}",
                f"{results}/eigenvectors/{name}/{method}/{backbone}",
            )
            for name in dict.fromkeys([*config["evaluation"]["pseudo_masks"], config["train"]])
            for method in METHODS
            for backbone in settings.backbones(config, method)
        ),
        *(("detector", detector, f"{results}/detectors/{detector}") for detector in DETECTORS),
    ]


def report_options(wildcards):
    files = [*report_files(), *report_folders()]
    return [word for option, name, path in files for word in (f"--{option}", f"{name}={path}")]


def report_gpus(wildcards):
    """The GPUs that each job of a rule holds, for the report's GPU-hours."""
    training, inference = (config[stage]["num_gpus"] for stage in ("detector", "predictions"))
    held = {
        "detector": training,
        "predictions": inference,
        "fine_tuning": training,
        "fine_tuning_predictions": inference,
    }
    return [f"--gpus={rule}={count}" for rule, count in held.items()]
