"""Datasets and teachers, from their sources to checked files."""


rule download:
    output:
        "data/downloads/{file}",
    wildcard_constraints:
        file="|".join(re.escape(entry.file) for entry in [*SOURCES.datasets.values(), *SOURCES.weights.values()]),
    log:
        "data/logs/download-{file}.log",
    retries: 2
    resources:
        network=1,
    params:
        source=source_key,
        checksum=lambda wildcards: checksum(source_key(wildcards)),
    message:
        "Downloading {wildcards.file}."
    conda:
        "../../envs/maskrd.yaml"
    shell:
        f"python -m maskrd download --source {{params.source}} {SOURCE_OPTIONS} "
        "--output {output:q} --log {log:q}"  # not redirected: the progress bar belongs on the screen


rule unpack:
    input:
        archive,
    output:
        "data/{dataset}.unpacked.json",
    log:
        "data/logs/unpack-{dataset}.log",
    wildcard_constraints:
        dataset="|".join(SOURCES.datasets),
    params:
        checksum=lambda wildcards: checksum(f"datasets.{wildcards.dataset}"),
    message:
        "Unpacking {input}."
    conda:
        "../../envs/maskrd.yaml"
    shell:
        f"python -m maskrd unpack --source datasets.{{wildcards.dataset}} {SOURCE_OPTIONS} "
        "--archive {input:q} --folder data/{wildcards.dataset} --output {output:q} "
        "> {log:q} 2>&1"


rule index:
    input:
        data_source,
    output:
        f"{RESULTS}/data/{{dataset}}/{{category}}.json",
    log:
        f"{RESULTS}/logs/index/{{dataset}}/{{category}}.log",
    threads: 4
    params:
        data=lambda wildcards: data_folder(wildcards.dataset),
        # Data that the user brings may change under us; what the pipeline fetched itself doesn't.
        content=data_digest,
        memory=data_memory,
    message:
        "Checking the images of {wildcards.dataset}/{wildcards.category}."
    conda:
        "../../envs/maskrd.yaml"
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
    threads: 1
    message:
        "Turning the ImageNet weights of {wildcards.backbone} into a teacher."
    conda:
        "../../envs/maskrd.yaml"
    shell:
        "python -m maskrd teacher --backbone {wildcards.backbone} --weights {input:q} --output {output:q} "
        "> {log:q} 2>&1"
