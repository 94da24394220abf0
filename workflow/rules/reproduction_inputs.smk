from snakemake.logging import logger

from cuvler import reproduction

REPRODUCED = reproduction.entries()


@cache
def reproduction_skipped():
    """Entries with no known source of their file, and missing datasets, each with the reason."""
    files, datasets = reproduction.unknown_files(settings), reproduction.missing_datasets(settings)
    for name, reason in {**files, **datasets}.items():
        logger.info(f"reproduction: {name} is skipped: {reason}")
    return files, datasets


def reproduction_pairs():
    """The pairs (entry, dataset) that can be scored."""
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
    """The URL and digest of an entry's file, if they are in the config."""
    own = settings.download.get(reproduced(wildcards).file)
    given = own.model_dump(exclude_none=True) if own else {}
    return [word for key, value in given.items() for word in (f"--{key}", value)]


def reproduction_path(file, wildcards):
    return str(file.under(settings.results, **dict(wildcards.items())))


def reproduction_step(file, after):
    """A parameter function: the prefix of a command that records a failure instead of failing.

    After a failure the attempt number changes, so that the next run tries again. The function
    takes only wildcards: Snakemake does not compare parameters that depend on input or output.

    Args:
        file: kind of file that the command writes.
        after: function of wildcards that returns the previous step's output.
    """

    def words(wildcards):
        output = reproduction_path(file, wildcards)
        return [
            *("cuvler", "reproduction", "step", "--after", after(wildcards)),
            *("--attempt", reproduction.next_attempt(output), "--output", output),
        ]

    return words


def reproduction_file(wildcards):
    return str(layout.REPRODUCTION_FILE.under(settings.results, entry=wildcards.entry))


def reproduction_truth(wildcards):
    """The ground truth; it must have classes if classes are scored."""
    if reproduced(wildcards).per_category:
        labels_of(wildcards)
    return scored_ground_truth(wildcards)


def reproduction_results(wildcards):
    """The results to score: a detector's predictions, or the published pseudo-masks."""
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
    titles = {name: dataset(name).title for name in names if name in settings.datasets}
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
