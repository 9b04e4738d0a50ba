# Every table and figure of the paper, from nothing. What can be asked for:
#
#   snakemake --cores 8 tables      Tables 1 to 7 (the default)
#   snakemake --cores 8 table5      one of them; likewise every table and figure named in config.yaml
#   snakemake --cores 8 robustness  every ablation_... table: what hangs on the choices that the paper leaves open
#   snakemake --cores 8 supplement  Tables 1 to 7 as one PDF, with the printed tables' errata; needs a TeX engine
#   snakemake --cores 1 audit       do the printed numbers add up, and bear out the text? Seconds, no data
#   snakemake --cores 1 verdict     which printed numbers are reproduced by what was run so far; trains nothing
#   snakemake --cores 8 report      one page of everything, for the browser
#   snakemake --cores 8 -n          what would be run
#
# config.yaml is the experiment; `--configfile mine.yaml` is merged over it.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


# The first page of `snakemake --report`.
report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/demo.smk"


if not experiment.partial:  # what can't be made anew is taken as it is

    include: "workflow/rules/train.smk"


include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/review.smk"
include: "workflow/rules/report.smk"


# Target rules stay in this file: Snakemake drops `default_target` of an included one.
rule tables:
    default_target: True
    input:
        [table_files(name) + paired_files(name) for name in PAPER_TABLES],
    localrule: True
    message:
        "Tables of the paper are in {RESULTS}/tables."


for name in experiment.tables:

    rule:
        name:
            name
        input:
            table_files(name),
            paired_files(name),
        localrule: True


for name in experiment.figures:

    rule:
        name:
            name
        input:
            figure_files(name),
        localrule: True


rule robustness:
    input:
        [
            table_files(name) + paired_files(name)
            for name in experiment.tables
            if name.startswith("ablation_")
        ],
    localrule: True
    message:
        "Ablations are in {RESULTS}/tables."


rule supplement:
    input:
        f"{RESULTS}/supplement.tex",
        f"{RESULTS}/supplement.pdf",
    localrule: True
    message:
        "All tables with the errata of the printed ones: {input[1]}."


rule downloads:
    input:
        downloads(),
    localrule: True
    message:
        "Everything from the network is here; the rest runs offline."


rule models:
    input:
        [model_files(name) for name in experiment.tables],
    localrule: True
    message:
        "All models of all tables are trained."


rule audit:
    input:
        f"{RESULTS}/audit.csv",
        f"{RESULTS}/claims.csv",
    localrule: True
    message:
        "Printed means: {input[0]}. The paper's claims: {input[1]}."


# Judges what is there when it starts; ask for it again after further trainings.
rule verdict:
    input:
        VERDICT,
        f"{RESULTS}/claims.csv",
    localrule: True
    message:
        "Reported against reproduced: {input[1]}."


rule report:
    input:
        REPORT,
    localrule: True
    message:
        "Open {input} in a browser; it needs no other file."
