"""What the demo has instead of downloads: generated images and small teachers."""


rule generate:
    output:
        f"{RESULTS}/generated/{{dataset}}/{{part}}.generated",
    log:
        f"{RESULTS}/logs/generate/{{dataset}}-{{part}}.log",
    wildcard_constraints:
        dataset="|".join(GENERATED_DATASETS),
    conda:
        "../../envs/maskrd.yaml"
    params:
        folder=f"{RESULTS}/generated/{{dataset}}",
    message:
        "Generating images of {wildcards.dataset}/{wildcards.part}."
    shell:
        "python -m maskrd generate --dataset {wildcards.dataset} --part {wildcards.part} --folder {params.folder:q} "
        "--output {output:q} > {log:q} 2>&1"


rule pretrain:
    output:
        f"{RESULTS}/teachers/{{backbone}}.safetensors",
    log:
        f"{RESULTS}/logs/pretrain/{{backbone}}.log",
    wildcard_constraints:
        backbone="demo_.*",
    conda:
        "../../envs/maskrd.yaml"
    # Small networks gain little from a second thread, and much from running side by side.
    threads: 1
    message:
        "Pre-training {wildcards.backbone} on generated textures."
    shell:
        "python -m maskrd pretrain --backbone {wildcards.backbone} --output {output:q} --threads {threads} > {log:q} 2>&1"
