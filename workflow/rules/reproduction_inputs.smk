from snakemake.logging import logger

from cuvler import reproduction

REPRODUCED = reproduction.entries()


@cache
def reproduction_skipped():
    """Entries without a file, and datasets that are not here, each with the reason."""
    files, datasets = reproduction.unknown_files(config), reproduction.missing_datasets(config)
    for name, reason in {**files, **datasets}.items():
        logger.info(f"reproduction: {name} is skipped: {reason}")
    return files, datasets


def reproduction_pairs():
    """What can be scored: (entry, dataset)."""
    files, datasets = reproduction_skipped()
    return [
        (entry.name, name)
        for entry in REPRODUCED.values()
        for name in entry.datasets
        if entry.name not in files and name not in datasets
    ]


def reproduced(wildcards):
    require_known("reproduction", wildcards.entry, REPRODUCED)
    return REPRODUCED[wildcards.entry]


def reproduction_address(wildcards):
    """Where a file comes from and its digest, if the config names them."""
    own = config["download"].get(reproduced(wildcards).file, {})
    return [word for key, value in own.items() for word in (f"--{key}", value)]


def reproduction_path(file, wildcards):
    return str(file.under(config["results"], **dict(wildcards.items())))


def reproduction_step(file, after):
    """What runs a command so that its failure is an outcome, and stops nothing else.

    After a failure the number of the attempt is another one, and the next run tries again.
    Snakemake compares parameters of wildcards alone: none may be a function of input or output.

    Args:
        file: the kind of file that the command makes.
        after: the function of wildcards that gives what is made before.
    """

    def words(wildcards):
        output = reproduction_path(file, wildcards)
        return [
            *("cuvler", "reproduction", "step", "--after", after(wildcards)),
            *("--attempt", reproduction.next_attempt(output), "--output", output),
        ]

    return words


def reproduction_file(wildcards):
    return str(layout.REPRODUCTION_FILE.under(config["results"], entry=wildcards.entry))


def reproduction_truth(wildcards):
    """Ground truth; where classes are scored, one that has some."""
    if reproduced(wildcards).per_category:
        labels_of(wildcards)
    return scored_ground_truth(wildcards)


def reproduction_results(wildcards):
    """What is scored: a detector's predictions, or pseudo-masks as they are published."""
    if reproduced(wildcards).detector_config:
        return reproduction_path(layout.REPRODUCTION_PREDICTIONS, wildcards)
    return reproduction_file(wildcards)


def reproduction_scoring(wildcards):
    entry = reproduced(wildcards)
    masks = dataset(wildcards.dataset).masks
    scored = [iou_type for iou_type in entry.iou_types if masks or iou_type == "bbox"]
    return [
        *(word for iou_type in scored for word in ("--iou-type", iou_type)),
        *(["--per-category"] if entry.per_category else []),
    ]


def reproduction_evaluations(wildcards):
    return [
        layout.REPRODUCTION_EVALUATION.of(entry=entry, dataset=name)
        for entry, name in reproduction_pairs()
    ]


def reproduction_options(wildcards, input):
    files, datasets = reproduction_skipped()
    names = dict.fromkeys(name for entry in REPRODUCED.values() for name in entry.datasets)
    titles = {name: dataset(name).title for name in names if name in config["datasets"]}
    scores = {
        f"{entry}/{name}": path
        for (entry, name), path in zip(reproduction_pairs(), input.evaluations, strict=True)
    }
    given = {"--scores": scores, "--skipped": files, "--missing": datasets, "--title": titles}
    return [
        word
        for option, values in given.items()
        for name, value in values.items()
        for word in (option, f"{name}={value}")
    ]
