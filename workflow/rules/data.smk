"""Datasets and teachers, from their sources to checked files."""


rule download:
    output:
        "data/downloads/{file}",
    log:
        "data/logs/download-{file}.log",
    wildcard_constraints:
        file="|".join(
            re.escape(entry.file)
            for entry in [*SOURCES.datasets.values(), *SOURCES.weights.values()]
        ),
    # Where Snakemake itself runs: compute nodes may have no internet.
    localrule: True
    conda:
        "../../envs/maskrd.yaml"
    params:
        source=source_key,
        checksum=lambda wildcards: checksum(source_key(wildcards)),
    message:
        "Downloading {wildcards.file}."
    # Not redirected: the progress bar of gigabytes belongs on the screen.
    shell:
        f"python -m maskrd download --source {{params.source}} {SOURCE_OPTIONS} "
        "--output {output:q} --log {log:q}"


rule unpack:
    input:
        archive,
    output:
        "data/{dataset}.unpacked.json",
    log:
        "data/logs/unpack-{dataset}.log",
    wildcard_constraints:
        dataset="|".join(SOURCES.datasets),
    conda:
        "../../envs/maskrd.yaml"
    params:
        checksum=lambda wildcards: checksum(f"datasets.{wildcards.dataset}"),
    message:
        "Unpacking {input}."
    shell:
        f"python -m maskrd unpack --source datasets.{{wildcards.dataset}} {SOURCE_OPTIONS} "
        "--archive {input:q} --folder data/{wildcards.dataset} --output {output:q} "
        "> {log:q} 2>&1"


rule index:
    input:
        # What was unpacked is known by its checksum: unpacked later, or by another clone, it is the same.
        ancient(data_source),
    output:
        f"{RESULTS}/data/{{dataset}}/{{category}}.json",
    log:
        f"{RESULTS}/logs/index/{{dataset}}/{{category}}.log",
    conda:
        "../../envs/maskrd.yaml"
    threads: 4
    params:
        # With `input`, so that Snakemake doesn't compare it: the same images in another folder are no others.
        data=lambda wildcards, input: data_folder(wildcards.dataset),
        # Data that the user brings may change under us; what the pipeline fetched itself doesn't.
        content=data_digest,
        memory=data_memory,
    message:
        "Checking the images of {wildcards.dataset}/{wildcards.category}."
    shell:
        "python -m maskrd index --dataset {wildcards.dataset} --category {wildcards.category} --data {params.data:q} "
        "--output {output:q} --memory {params.memory:q} --threads {threads} > {log:q} 2>&1"


rule teacher:
    input:
        teacher_weights,
    output:
        f"{RESULTS}/teachers/{{backbone}}.safetensors",
    log:
        f"{RESULTS}/logs/teacher/{{backbone}}.log",
    wildcard_constraints:
        backbone="|".join(SOURCES.weights),
    conda:
        "../../envs/maskrd.yaml"
    threads: 1
    message:
        "Turning the ImageNet weights of {wildcards.backbone} into a teacher."
    shell:
        "python -m maskrd teacher --backbone {wildcards.backbone} --weights {input:q} --output {output:q} "
        "> {log:q} 2>&1"
