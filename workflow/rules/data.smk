"""Datasets and teachers, from their sources to checked files."""


rule download:
    output:
        downloaded_file("{file}"),
    log:
        data_log("download", "{file}"),
    wildcard_constraints:
        file=data.file_pattern(),
    # It runs on Snakemake's own machine, because compute nodes may have no internet.
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        source=lambda wildcards: data.source_key(wildcards.file),
        checksum=lambda wildcards: data.checksum(data.source_key(wildcards.file)),
        # With `input`, so that Snakemake doesn't compare them: another mirror must not download a verified file again.
        sources=lambda wildcards, input: experiment.sources,
        digests=lambda wildcards, input: DIGESTS,
    message:
        "Downloading {wildcards.file}."
    # Not redirected: the progress bar belongs on the screen.
    shell:
        "python -m maskrd download --source {params.source} --sources {params.sources:q} --digests {params.digests:q} "
        "--output {output:q} --log {log:q}"


rule unpack:
    input:
        lambda wildcards: data.archive(wildcards.dataset),
    output:
        unpacked_marker("{dataset}"),
    log:
        data_log("unpack", "{dataset}"),
    wildcard_constraints:
        dataset="|".join(data.sources.datasets),
    conda:
        "../../envs/maskrd.yaml"
    params:
        checksum=lambda wildcards: data.checksum(f"datasets.{wildcards.dataset}"),
        sources=lambda wildcards, input: experiment.sources,
        digests=lambda wildcards, input: DIGESTS,
        folder=lambda wildcards, input: files.data(wildcards.dataset),
    message:
        "Unpacking {input}."
    shell:
        "python -m maskrd unpack --source datasets.{wildcards.dataset} --sources {params.sources:q} "
        "--digests {params.digests:q} --archive {input:q} --folder {params.folder:q} --output {output:q} "
        "> {log:q} 2>&1"


rule index:
    input:
        # ancient: a later date of the same unpacked archive means nothing.
        ancient(lambda wildcards: data.markers(wildcards.dataset, wildcards.category)),
    output:
        files.index("{dataset}", "{category}"),
    log:
        files.log("index", "{dataset}", "{category}"),
    conda:
        "../../envs/maskrd.yaml"
    # More would wait for all cores of a small machine.
    threads: lambda wildcards: min(4, share_of_cores(wildcards))
    params:
        # With `input`, so that Snakemake doesn't compare it: the images may move to another folder.
        data=lambda wildcards, input: files.data(wildcards.dataset),
        # The user's images may change at any time. Downloaded images don't.
        digest=lambda wildcards: data.digest(wildcards.dataset, wildcards.category),
        memory=str(files.image_memory("{dataset}", "{category}")),
        layout=lambda wildcards: experiment.datasets[wildcards.dataset].layout,
    message:
        "Checking the images of {wildcards.dataset}/{wildcards.category}."
    shell:
        "python -m maskrd index --dataset {wildcards.dataset} --category {wildcards.category} --data {params.data:q} "
        "--layout {params.layout} --output {output:q} --memory {params.memory:q} --threads {threads} > {log:q} 2>&1"


rule teacher:
    input:
        weights_of,
    output:
        files.teacher("{backbone}"),
    log:
        files.log("teacher", "{backbone}"),
    wildcard_constraints:
        backbone="|".join(data.sources.weights),
    conda:
        "../../envs/maskrd.yaml"
    threads: 1
    params:
        checksum=lambda wildcards: data.weights_checksum(wildcards.backbone),
        # The digest counts, not the date: weights that are copied again are the same weights.
        digest=lambda wildcards: data.weights_digest(wildcards.backbone),
    message:
        "Turning the ImageNet weights of {wildcards.backbone} into a teacher."
    shell:
        "python -m maskrd teacher --backbone {wildcards.backbone} --weights {input:q} --output {output:q} "
        "--checksum {params.checksum:q} > {log:q} 2>&1"
