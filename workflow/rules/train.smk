"""One model at a time: train it, test it, and keep a few anomaly maps for figures.

Snakemake doesn't compare parameters that take `input` with those of the last run. So nothing is trained again because
images moved to another folder, or because the device changed. The digests of images and weights are compared; dates
count only if there are no digests. A training job that is planned for any other reason finds the finished model in the
store.
"""


rule train:
    input:
        index=index_of,
        teacher=teacher_of,
        files=lambda wildcards: views.files_read(Model(**wildcards)),
    output:
        model=MODEL.weights if experiment.keep_weights else temp(MODEL.weights),
        history=MODEL.history,
    log:
        MODEL.log("train"),
    benchmark:
        MODEL.benchmark
    conda:
        "../../envs/maskrd.yaml"
    threads: share_of_cores
    resources:
        gpu=1,
    params:
        data=lambda wildcards, input: files.data(wildcards.dataset),
        content=content_digests,
        recipe=training_json,
        # Not an output: Snakemake deletes outputs before a job starts, and a trained model must survive that and a kill.
        store=lambda wildcards, input: files.store,
        keep_weights=lambda wildcards, input: (
            "" if experiment.keep_weights else "--no-keep-weights"
        ),
        device=lambda wildcards, input: experiment.device,
    message:
        "Training {wildcards.variant} on {wildcards.dataset}/{wildcards.category} "
        "({wildcards.backbone}, seed {wildcards.seed})."
    shell:
        # exec: signals reach Python itself. A shell in between would die first, and unsaved steps would be lost.
        "exec python -m maskrd train --index {input.index:q} --data {params.data:q} --teacher {input.teacher:q} "
        "--recipe {params.recipe:q} --seed {wildcards.seed} "
        "--model {output.model:q} --history {output.history:q} --store {params.store:q} {params.keep_weights} "
        "--device {params.device} --threads {threads} > {log:q} 2>&1"


rule evaluate:
    input:
        index=index_of,
        teacher=teacher_of,
        model=lambda wildcards: model_files(wildcards).weights,
    output:
        metrics=MODEL.metrics,
        scores=MODEL.scores,
        gallery=MODEL.gallery,
    log:
        MODEL.log("evaluate"),
    conda:
        "../../envs/maskrd.yaml"
    threads: share_of_cores
    resources:
        gpu=1,
    params:
        data=lambda wildcards, input: files.data(wildcards.dataset),
        content=content_digests,
        recipe=training_json,
        evaluation=evaluation_json,
        device=lambda wildcards, input: experiment.device,
    message:
        "Testing {wildcards.variant} on {wildcards.dataset}/{wildcards.category} "
        "({wildcards.backbone}, seed {wildcards.seed})."
    shell:
        "exec python -m maskrd evaluate --index {input.index:q} --data {params.data:q} --teacher {input.teacher:q} "
        "--model {input.model:q} --recipe {params.recipe:q} --evaluation {params.evaluation:q} "
        "--metrics {output.metrics:q} --scores {output.scores:q} --gallery {output.gallery:q} "
        "--device {params.device} --threads {threads} > {log:q} 2>&1"


rule maps:
    input:
        index=index_of,
        teacher=teacher_of,
        model=lambda wildcards: model_files(wildcards).weights,
    output:
        directory(MODEL.maps),
    log:
        MODEL.log("maps"),
    conda:
        "../../envs/maskrd.yaml"
    threads: share_of_cores
    resources:
        gpu=1,
    params:
        data=lambda wildcards, input: files.data(wildcards.dataset),
        recipe=training_json,
        evaluation=evaluation_json,
        device=lambda wildcards, input: experiment.device,
    message:
        "Saving all anomaly maps of {wildcards.variant} on {wildcards.dataset}/{wildcards.category} "
        "({wildcards.backbone}, seed {wildcards.seed})."
    shell:
        "exec python -m maskrd maps --index {input.index:q} --data {params.data:q} --teacher {input.teacher:q} "
        "--model {input.model:q} --recipe {params.recipe:q} --evaluation {params.evaluation:q} "
        "--output {output:q} --device {params.device} --threads {threads} > {log:q} 2>&1"
