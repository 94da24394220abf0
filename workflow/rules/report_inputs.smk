# Without datasets to evaluate, the report shows predictions on the images of `train`.
PREDICTED = settings.evaluate or [settings.train]


def report_files():
    """The input files of the report, as (option of ``cuvler report``, name, path)."""
    results = settings.results
    scored = settings.evaluation.pseudo_masks
    listed = dict.fromkeys([*scored, settings.train])
    masks = {(name, method) for name in listed for method in METHODS}
    return [
        *(("metrics", name, layout.METRICS.under(results, dataset=name)) for name in SCORED),
        *(
            (
                "evaluation",
                f"{name}/{entry}",
                layout.EVALUATION.under(results, dataset=name, entry=entry),
            )
            for name in SCORED
            for entry in scored_entries(name)
        ),
        *(
            ("fine-tuning", name, layout.FINE_TUNING_METRICS.under(results, dataset=name))
            for name in settings.fine_tuning.evaluate
        ),
        *(("listing", name, layout.LISTING.under(results, dataset=name)) for name in listed),
        *(
            (
                "annotations",
                f"{name}/{method}",
                layout.ANNOTATIONS.under(results, dataset=name, method=method),
            )
            for name, method in sorted(masks)
        ),
        *(
            (
                "annotations",
                f"{settings.self_training_dataset(detector.recipe)}/labels of {detector}",
                layout.SELF_TRAINING.under(results, detector=detector),
            )
            for detector in DETECTORS
            if detector.round > 0
        ),
        *(
            (
                "predictions",
                f"{name}/{detector}",
                layout.PREDICTIONS.under(results, detector=detector, dataset=name),
            )
            for name in PREDICTED
            for detector in DETECTORS
        ),
    ]


def report_folders():
    """The input folders of the report; their files are made by the rules of the input files."""
    results = settings.results
    return [
        *(
            ("image-root", name, dataset(name).images)
            for name in dict.fromkeys([*SCORED, settings.train])
        ),
        *(("ground-truth", name, dataset(name).ground_truth) for name in SCORED),
        *(
            (
                "eigenvectors",
                f"{name}/{method}/{backbone}",
                layout.EIGENVECTORS.under(
                    results, dataset=name, method=method, backbone=backbone, shard=0
                ).parent,
            )
            for name in dict.fromkeys([*settings.evaluation.pseudo_masks, settings.train])
            for method in METHODS
            for backbone in configured_method(method).needs()
        ),
        *(
            ("detector", detector, layout.DETECTOR.under(results, detector=detector).parent)
            for detector in DETECTORS
        ),
        *(
            ("detector", detector, layout.FINE_TUNING.under(results, fine_tuned=detector).parent)
            for detector in (FINE_TUNED if settings.fine_tuning.evaluate else [])
        ),
    ]


def report_options(wildcards):
    files = [*report_files(), *report_folders()]
    return [word for option, name, path in files for word in (f"--{option}", f"{name}={path}")]


def report_gpus(wildcards):
    """The number of GPUs of each rule's jobs, for the report's GPU-hours."""
    return [f"--gpus={rule}={count}" for rule, count in GPUS.items()]
