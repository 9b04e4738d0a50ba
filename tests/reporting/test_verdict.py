"""A number is called reproduced only if it is: under the paper's conditions, on its data, within the band."""

import json
import re

import pytest

from maskrd.config.load import parse_experiment, shipped_configuration
from maskrd.config.settings import Evaluation, Model
from maskrd.data.registry import published_counts
from maskrd.errors import MaskrdError
from maskrd.paper import OURS, TABLES, reported_values, value
from maskrd.paper.claims import evaluate_claims
from maskrd.paper.settings import paper_categories, questions
from maskrd.reporting.claims import reproduced_claims, sentence_claims
from maskrd.reporting.verdict import estimate, judge, verdicts, write_verdict
from maskrd.reporting.verdict_page import markdown, write_page, write_plot
from tests.conftest import ROOT
from tests.records import make_record, write_record

CONFIG = shipped_configuration(ROOT.joinpath)
EXPERIMENT = parse_experiment(CONFIG)
WIDE = "wide_resnet50_2"
MVTEC = paper_categories("mvtec_ad")


def put(
    folder,
    category,
    values,
    *,
    dataset="mvtec_ad",
    variant="maskrd",
    backbone=WIDE,
    seed=0,
    images=None,
    trained_on=None,
    tested=None,
    **recipe,
):
    """Write the metrics.json of a model with `values` in percent, by default as the paper would have trained it."""
    model = Model(dataset, category, variant, backbone, seed)
    wanted = EXPERIMENT.recipe("mvtec_ad", variant)
    training = type(wanted.training).model_validate(wanted.training.model_dump() | recipe)
    published = published_counts(dataset).get(category)
    if published:
        held_out = round(published.train * training.validation_fraction)
        trained_on, images = trained_on or published.train - held_out, images or published.test
    evaluation = Evaluation.model_validate(wanted.evaluation.model_dump() | (tested or {}))
    record = make_record(model, values, training, evaluation, {"images": trained_on or 100}, {"images": images or 50})
    write_record(folder, model, record)


def find(rows, table, row, metric="image_auroc", method=OURS):
    return next(r for r in rows if (r.table, r.method, r.row, r.metric) == (table, method, row, metric))


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([98.6], "reproduced"),  # the edge belongs to the band
        ([99.6], "reproduced"),
        ([98.59], "lower"),
        ([99.61], "higher"),
        ([99.0, 99.1, 99.2], "reproduced"),  # 99.1 +/- 0.25
        ([98.9, 99.1, 99.3], "reproduced"),  # 99.1 +/- 0.497
        ([98.8, 99.1, 99.4], "inconclusive"),  # 99.1 +/- 0.745: around the whole band
        ([98.4, 98.5, 98.6], "inconclusive"),  # 98.5 +/- 0.25: over the lower edge
        ([98.2, 98.3, 98.4], "lower"),  # 98.3 +/- 0.25
        ([99.8, 99.9, 100.0], "higher"),
        ([98.7, 98.7], "reproduced"),
    ],
)
def test_verdict_compares_interval_and_band(values, verdict):
    assert judge(99.1, estimate(values)) == verdict


def test_the_edges_belong_to_the_band_in_spite_of_binary_numbers():
    assert 63.9 - 64.4 < -0.5
    assert judge(64.4, estimate([63.9])) == "reproduced"


def test_interval_is_students():
    found = estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.sd, found.n) == (2, 1, 3)
    assert found.high - 2 == pytest.approx(4.302653 / 3**0.5)  # t table, 2 degrees of freedom
    assert 2 - found.low == pytest.approx(found.high - 2)


def test_an_interval_ends_at_100(tmp_path):
    """The paper has 99.8; 99.2 to 100.4 would reach over the band's upper end, 100.3, where no metric can be."""
    for seed, number in enumerate((99.6, 99.8, 100.0)):
        put(tmp_path, "carpet", {"image_auroc": number}, seed=seed)
    row = find(verdicts(tmp_path, WIDE, [0, 1, 2]), "table1", "carpet")
    assert (row.low, row.high, row.verdict) == (pytest.approx(99.303, abs=1e-3), 100, "reproduced")


def test_without_models_every_reported_number_is_not_run(tmp_path):
    rows = verdicts(tmp_path, WIDE, [0])
    own = [cell for table in TABLES for cell in reported_values(table) if cell.method == OURS]
    assert [(r.table, r.row, r.metric) for r in rows] == [(c.table, c.row, c.metric) for c in own]
    assert {row.verdict for row in rows} == {"not run"}
    assert reproduced_claims(rows) == []


def test_generated_data_never_count(tmp_path):
    for dataset in ("demo", "digits"):
        for category in (*MVTEC, *paper_categories("cifar10")):
            put(tmp_path, category, {"image_auroc": 99.1, "pixel_auroc": 98.5, "aupro": 95.9}, dataset=dataset)
    assert {row.verdict for row in verdicts(tmp_path, WIDE, [0])} == {"not run"}


def test_mvtec_by_name_only_is_not_comparable(tmp_path):
    put(tmp_path, "bottle", {"image_auroc": 100}, images=12)
    row = find(verdicts(tmp_path, WIDE, [0]), "table1", "bottle")
    assert (row.verdict, row.conditions) == ("not comparable", "12 test images of bottle instead of 83")


def test_single_run_of_a_category(tmp_path):
    put(tmp_path, "screw", {"image_auroc": 98.4, "pixel_auroc": 97.0, "aupro": 98.5})
    rows = verdicts(tmp_path, WIDE, [0, 1, 2])
    row = find(rows, "table1", "screw")  # the paper has 98.7
    assert (row.verdict, row.runs, row.n, row.sd, row.low, row.conditions) == (
        "reproduced",
        "single run",
        1,
        *[None] * 2,
        "",
    )
    assert row.difference == pytest.approx(-0.3)
    assert find(rows, "table3", "screw", "pixel_auroc").verdict == "lower"
    mean = find(rows, "table1", "mean")
    assert (mean.verdict, mean.reproduced) == ("not run", None)
    assert mean.remarks == "1 of 15 categories run: no mean"


def test_mean_is_taken_for_each_seed_first(tmp_path):
    """Two categories that vary against each other: every seed has the same mean, whose sd is 0."""
    for seed, shift in enumerate((-6.0, 0.0, 6.0)):
        for place, category in enumerate(MVTEC):
            sign = {0: 1, 1: -1}.get(place, 0)
            put(tmp_path, category, {"image_auroc": 90 + sign * shift}, seed=seed)
    rows = verdicts(tmp_path, WIDE, [0, 1, 2])
    mean = find(rows, "table1", "mean")
    assert (mean.n, mean.reproduced, mean.verdict) == (3, pytest.approx(90), "lower")
    assert mean.sd == pytest.approx(0, abs=1e-9)
    assert find(rows, "table1", MVTEC[0]).sd == pytest.approx(6)


def test_a_mean_uses_complete_seeds_only(tmp_path):
    for seed, number in enumerate((99.0, 50.0)):
        for category in MVTEC[seed:]:
            put(tmp_path, category, {"image_auroc": number}, seed=seed)
    mean = find(verdicts(tmp_path, WIDE, [0, 1]), "table1", "mean")
    assert (mean.reproduced, mean.n, mean.verdict) == (pytest.approx(99), 1, "reproduced")


def test_a_seed_that_is_not_complete_sets_no_condition(tmp_path):
    for category in MVTEC:
        put(tmp_path, category, {"image_auroc": 99.0})
    put(tmp_path, "bottle", {"image_auroc": 50.0}, seed=1, epochs=20)
    mean = find(verdicts(tmp_path, WIDE, [0, 1]), "table1", "mean")
    assert (mean.n, mean.verdict, mean.conditions) == (1, "reproduced", "")


def test_an_interval_ends_at_0(tmp_path):
    for seed, number in enumerate((0.0, 0.2, 0.4)):
        put(tmp_path, "carpet", {"image_auroc": number}, seed=seed)
    assert find(verdicts(tmp_path, WIDE, [0, 1, 2]), "table1", "carpet").low == 0


@pytest.mark.parametrize(
    ("changes", "condition"),
    [
        ({"epochs": 20}, "epochs 20 instead of 200"),
        ({"image_size": 128}, "image_size 128 instead of 256"),
        ({"fmm": False}, "fmm off instead of on"),
        ({"layers": [1, 2]}, "layers [1, 2] instead of [1, 2, 3]"),
        ({"loss": "flattened"}, "loss flattened instead of per_location"),
        ({"weight_decay": 0}, "weight_decay 0 instead of some"),
        ({"msff_channels": None}, "msff_channels none instead of some"),
        ({"tested": {"score_layers": [1]}}, "score_layers [1] instead of none"),
    ],
)
def test_other_conditions_are_not_comparable(tmp_path, changes, condition):
    put(tmp_path, "bottle", {"image_auroc": 100}, **changes)
    row = find(verdicts(tmp_path, WIDE, [0]), "table1", "bottle")
    assert (row.verdict, row.conditions) == ("not comparable", condition)
    assert row.difference == pytest.approx(0)


def test_fusion_is_left_open_by_the_paper(tmp_path):
    """Section 3.8 has a map for each level, and no word on how they are fused."""
    put(tmp_path, "bottle", {"image_auroc": 100}, tested={"map_fusion": "product"})
    assert find(verdicts(tmp_path, WIDE, [0]), "table1", "bottle").verdict == "reproduced"


def test_others_stand_beside_the_cell_they_are_for(tmp_path):
    put(tmp_path, "transistor", {"pixel_auroc": 90, "aupro": 80, "pro_per_image": 80}, variant="rd")
    rows = verdicts(tmp_path, WIDE, [0])
    assert find(rows, "table3", "transistor", "pixel_auroc", method="RD").others == "89.3 (open-edge-platform/anomalib)"
    assert find(rows, "table3", "transistor", "pixel_auroc").others == ""  # nobody but the paper has its method
    assert "89.3 (open-edge-platform/anomalib)" in markdown(rows, "plot.png", [])


def test_settings_that_an_older_run_does_not_record_have_their_old_values(tmp_path):
    for variant, backbone in (("maskrd", WIDE), ("mkd", "vgg16")):
        put(tmp_path, "bottle", {"image_auroc": 99.4}, variant=variant, backbone=backbone)
    for path in tmp_path.rglob("metrics.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        del content["training"]["recipe"]["normalize"]
        path.write_text(json.dumps(content), encoding="utf-8")
    rows = verdicts(tmp_path, WIDE, [0])
    assert find(rows, "table1", "bottle").conditions == ""
    assert find(rows, "table1", "bottle", method="MKD").conditions == "normalize on instead of off"


def test_another_backbone_answers_its_row_of_table4_and_nothing_else(tmp_path):
    for category in MVTEC:
        put(tmp_path, category, {"image_auroc": 98.2, "pixel_auroc": 97.3, "aupro": 94.4}, backbone="resnet18")
    rows = verdicts(tmp_path, "resnet18", [0])
    assert find(rows, "table4", "resnet18").verdict == "reproduced"
    row = find(rows, "table1", "mean")
    assert (row.verdict, row.conditions) == ("not comparable", "ResNet18 instead of WideResNet50")


def test_ablation_rows_are_judged_by_what_they_leave_out(tmp_path):
    for category in MVTEC:
        put(tmp_path, category, {"image_auroc": 98.8, "pixel_auroc": 98.1, "aupro": 95.3}, variant="no_fmm")
    rows = verdicts(tmp_path, WIDE, [0])
    assert {row.verdict for row in rows if row.table == "table5" and row.row == "no_fmm"} == {"reproduced"}
    assert find(rows, "table5", "maskrd").verdict == "not run"


def test_precision_is_remarked_but_comparable(tmp_path):
    put(tmp_path, "bottle", {"image_auroc": 100}, precision="bf16")
    row = find(verdicts(tmp_path, WIDE, [0]), "table1", "bottle")
    assert (row.verdict, row.conditions, row.remarks) == ("reproduced", "", "precision bf16")


def test_a_leak_reproduces_nothing(tmp_path):
    leak = {"checkpoint": "best_on_test", "selection": CONFIG["evaluation"]}
    put(tmp_path, "bottle", {"image_auroc": 100}, **leak)
    row = find(verdicts(tmp_path, WIDE, [0]), "table1", "bottle")
    assert (row.verdict, row.conditions) == ("not comparable", "a checkpoint chosen on the test images")


def test_the_other_pro_is_remarked(tmp_path):
    put(tmp_path, "bottle", {"aupro": 97.8, "pro_per_image": 96.4, "pixel_auroc": 98.9})
    rows = verdicts(tmp_path, WIDE, [0])
    assert find(rows, "table3", "bottle", "aupro").remarks == "PRO per image 96.4"
    assert find(rows, "table3", "bottle", "pixel_auroc").remarks == ""


def test_numbers_lost_in_print_are_not_known(tmp_path):
    for category in ("dog", "airplane"):
        put(tmp_path, category, {"image_auroc": 93.1}, dataset="cifar10")
    rows = verdicts(tmp_path, WIDE, [0])
    assert (find(rows, "table2", "dog").verdict, find(rows, "table2", "dog").reported) == ("not known", None)
    assert find(rows, "table2", "airplane").verdict == "reproduced"


def test_baselines_are_judged_where_retrained(tmp_path):
    put(tmp_path, "screw", {"image_auroc": 97.0}, variant="rd")
    put(tmp_path, "screw", {"pixel_auroc": 90.0, "aupro": 80.0}, variant="stpm", backbone="resnet18")
    rows = verdicts(tmp_path, WIDE, [0])
    assert {(row.table, row.method) for row in rows if row.method != OURS} == {("table1", "RD"), ("table3", "STPM")}
    assert find(rows, "table1", "screw", method="RD").verdict == "reproduced"
    assert find(rows, "table3", "screw", "aupro", "STPM").verdict == "lower"


def test_pro_of_rd_is_that_of_its_code(tmp_path):
    """Its reported numbers are per image: 78.0 on transistor."""
    put(tmp_path, "transistor", {"aupro": 85.0, "pro_per_image": 78.1}, variant="rd")
    row = find(verdicts(tmp_path, WIDE, [0]), "table3", "transistor", "aupro", "RD")
    assert (row.reproduced, row.verdict) == (pytest.approx(78.1), "reproduced")
    assert row.remarks == "PRO per image, as its code has it; pooled 85.0"


def test_a_number_computed_on_other_images_is_not_comparable(tmp_path):
    put(tmp_path, "bottle", {"image_auroc": 99.4, "pixel_auroc": 96.3}, variant="mkd", backbone="vgg16")
    rows = verdicts(tmp_path, WIDE, [0])
    assert find(rows, "table1", "bottle", method="MKD").verdict == "reproduced"
    row = find(rows, "table3", "bottle", "pixel_auroc", "MKD")
    assert (row.verdict, row.conditions) == ("not comparable", "good test images included, which MKD's code leaves out")


def test_rows_that_print_does_not_tell_apart_have_a_verdict_where_both_give_it(tmp_path):
    """PRO of the pairs 2+3 and 1+3 is 95.3 and 94.4, or the other way round; image AUROC 98.9 and 98.5."""
    reported_pro = [value("table7", OURS, row, "aupro") for row in ("layers_2_3", "layers_1_3")]
    for category in MVTEC:
        put(tmp_path, category, {"aupro": min(reported_pro), "image_auroc": 90.0}, variant="layers_2_3")
    rows = verdicts(tmp_path, WIDE, [0])
    pro, auroc = (find(rows, "table7", "layers_2_3", metric) for metric in ("aupro", "image_auroc"))
    assert (pro.verdict, auroc.verdict) == ("not known", "lower")
    assert pro.remarks == "the paper leaves the order of the pairs 2+3 and 1+3 open"


def test_a_mean_off_by_rounding_alone_is_no_misprint(tmp_path):
    """Ours of Table 3: the means of the reported entries, cut instead of rounded."""
    for category in MVTEC:
        put(tmp_path, category, {"pixel_auroc": 98.5, "aupro": 95.9})
    rows = verdicts(tmp_path, WIDE, [0])
    assert [find(rows, "table3", "mean", metric).remarks for metric in ("pixel_auroc", "aupro")] == ["", ""]


def test_a_misreported_mean_says_so(tmp_path):
    for category in MVTEC:
        put(tmp_path, category, {"pixel_auroc": 97.0}, variant="stpm", backbone="resnet18")
    row = find(verdicts(tmp_path, WIDE, [0]), "table3", "mean", "pixel_auroc", "STPM")
    assert (row.verdict, row.remarks) == ("reproduced", "reported mean; the reported entries give 97.09")


def test_the_configuration_is_what_the_paper_says():
    """With config.yaml as it is, every number would be comparable."""
    for question in questions():
        if question.variant in EXPERIMENT.variants:
            recipe = EXPERIMENT.recipe(question.dataset, question.variant).training.model_dump(mode="json")
            assert {key: recipe[key] for key in question.settings} == question.settings
            assert all(recipe[key] for key in question.given)
            tests = EXPERIMENT.recipe(question.dataset, question.variant).evaluation.model_dump(mode="json")
            assert {key: tests[key] for key in question.evaluation} == question.evaluation
            own = EXPERIMENT.variants[question.variant].get("backbone", WIDE)
            assert question.cell.table == "table4" or own == question.paper_backbone


def test_claims_are_judged_on_reproduced_numbers(tmp_path):
    for category in MVTEC:
        numbers = {metric: value("table3", OURS, category, metric) for metric in ("pixel_auroc", "aupro")}
        put(tmp_path, category, {**numbers, "image_auroc": 90.0, "pro_per_image": numbers["aupro"]})
    results = {result.claim.id: result for result in reproduced_claims(verdicts(tmp_path, WIDE, [0]))}
    assert results["t1_headline"].outcome.verdict is False
    assert results["t3_headline"].outcome.verdict is True
    assert results["t1_headline"].numbers == "reproduced, single run"
    assert "t2_headline" not in results


def transistor_claims(folder):
    results = reproduced_claims(verdicts(folder, WIDE, [0]))
    return {r.numbers: r.outcome for r in results if r.claim.id == "t3_transistor_above_rd"}


def test_pooled_pro_is_not_compared_with_rds_pro_per_image(tmp_path):
    """RD's reported 78.0 is per image. So ours is compared per image, and pooled only with a reproduced RD."""
    put(tmp_path, "transistor", {"pixel_auroc": 96.0, "aupro": 80.0, "pro_per_image": 93.5})
    outcomes = transistor_claims(tmp_path)
    pooled, per_image = (outcomes[f"reproduced, single run, PRO {kind}"] for kind in ("pooled", "per image"))
    assert (pooled.verdict, pooled.detail) == (None, "not known: aupro of RD transistor")
    assert (per_image.verdict, per_image.detail) == (True, "lead aupro +15.5")


def test_claims_use_the_reproduced_rd_where_there_is_one(tmp_path):
    put(tmp_path, "transistor", {"pixel_auroc": 96.0, "aupro": 80.0, "pro_per_image": 93.5})
    put(tmp_path, "transistor", {"pixel_auroc": 92.0, "aupro": 70.0, "pro_per_image": 78.0}, variant="rd")
    outcomes = transistor_claims(tmp_path)
    label = "reproduced, single run; RD reproduced, too"
    assert (outcomes[f"{label}, PRO pooled"].verdict, outcomes[f"{label}, PRO per image"].verdict) == (False, True)
    put(tmp_path, "transistor", {"pixel_auroc": 92.0, "aupro": 10.0, "pro_per_image": 10.0}, variant="rd", epochs=3)
    assert "reproduced, single run, PRO per image" in transistor_claims(tmp_path)  # an RD of 3 epochs is not used


def test_scconvs_cost_is_that_of_the_models(tmp_path):
    for variant, parameters in (("scconv_in_msff", 90), ("simam_only", 100)):
        recipe = EXPERIMENT.recipe("mvtec_ad", variant)
        model = Model("mvtec_ad", "screw", variant, WIDE, 0)
        facts = {"parameters": parameters * 10**6}
        write_record(tmp_path, model, make_record(model, {}, recipe.training, recipe.evaluation, facts))
    (result,) = sentence_claims(tmp_path, WIDE, [0])
    assert (result.claim.id, result.outcome.verdict) == ("scconv_costs_less", True)
    assert result.outcome.detail == "parameters: scconv_in_msff 90.0, simam_only 100.0"


def test_a_mean_of_the_text_is_over_complete_seeds(tmp_path):
    for category in paper_categories("mvtec_ad"):
        put(tmp_path, category, {"image_auroc": 96.0, "pixel_auroc": 98.0}, variant="asymmetric")
    put(tmp_path, "bottle", {"image_auroc": 10.0, "pixel_auroc": 10.0}, variant="asymmetric", seed=1)
    (result,) = sentence_claims(tmp_path, WIDE, [0, 1])
    assert result.claim.id == "asymmetric_headline"
    assert "96.0" in result.outcome.detail
    assert "not comparable" in result.outcome.detail


@pytest.mark.parametrize(("dataset", "category", "table"), [("mvtec_ad", "bottle", 1), ("cifar10", "ship", 2)])
def test_numbers_made_otherwise_decide_no_claim(tmp_path, dataset, category, table):
    """Ship is one of the classes whose reported number isn't known, so that its verdict doesn't say not comparable."""
    put(tmp_path, category, {"image_auroc": 10.0}, dataset=dataset, epochs=3)
    results = [r for r in reproduced_claims(verdicts(tmp_path, WIDE, [0])) if r.claim.table == f"table{table}"]
    assert {result.outcome.verdict for result in results} == {None}
    assert {result.numbers for result in results} == {"reproduced, single run (epochs 3 instead of 200)"}
    assert all(result.outcome.detail.startswith("not comparable: ") for result in results)


def test_a_part_of_the_training_images_is_not_comparable(tmp_path):
    put(tmp_path, "truck", {"image_auroc": 90.0}, dataset="cifar10", trained_on=1000)
    row = find(verdicts(tmp_path, WIDE, [0]), "table2", "truck")
    assert (row.verdict, row.conditions) == ("not comparable", "1000 training images of truck instead of 5000")


def test_a_damaged_metrics_file_is_named(tmp_path):
    put(tmp_path, "screw", {})
    path = next(tmp_path.rglob("metrics.json"))
    path.write_text("{", encoding="utf-8")
    with pytest.raises(MaskrdError, match=r"screw.*Delete it"):
        verdicts(tmp_path, WIDE, [0])


def test_the_record_of_another_model_is_not_taken(tmp_path):
    put(tmp_path, "screw", {"image_auroc": 99.1})
    put(tmp_path, "grid", {"image_auroc": 99.1})
    screw, grid = (next(tmp_path.rglob(f"{category}/**/metrics.json")) for category in ("screw", "grid"))
    grid.write_bytes(screw.read_bytes())
    with pytest.raises(MaskrdError, match=r"grid/.*: the record of mvtec_ad/screw/maskrd/.*delete it"):
        verdicts(tmp_path, WIDE, [0])


def test_csv_page_and_plot(tmp_path):
    put(tmp_path / "models", "screw", {"image_auroc": 98.7, "pixel_auroc": 97.0, "aupro": 98.5})
    put(tmp_path / "models", "bottle", {"image_auroc": 100.0}, epochs=5)
    rows = verdicts(tmp_path / "models", WIDE, [0])
    write_verdict(rows, tmp_path / "v.csv")
    lines = (tmp_path / "v.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("table,method,row,metric,reported,reproduced,sd,n,low,high,difference,verdict")
    assert "table1,Ours,screw,image_auroc,98.70,98.70,,1,,,0.00,reproduced,single run,,,,image_auroc," in lines
    write_plot(rows, tmp_path / "v.png", tmp_path / "v.pdf")
    assert (tmp_path / "v.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "v.pdf").read_bytes().startswith(b"%PDF")
    write_page(rows, "v.png", evaluate_claims(), tmp_path / "v.md")
    page = (tmp_path / "v.md").read_text(encoding="utf-8")
    assert "](v.png)" in page
    assert (
        "Ours: of 16 reported numbers 1 reproduced, 1 not comparable and 14 not run. Single run. "
        "Not comparable: epochs 5 instead of 200." in page
    )
    assert "1 lower (most: Screw AUROC_AL, -2.6)" in page
    assert "| Ours | Screw | AUROC_AD | 98.7 | 98.7 |  |  | +0.0 | reproduced (single run) |  |" in page


def test_page_and_plot_without_models(tmp_path):
    rows = verdicts(tmp_path, WIDE, [0])
    write_plot(rows, tmp_path / "v.png", tmp_path / "v.pdf")
    write_page(rows, "v.png", evaluate_claims(), tmp_path / "v.md")
    page = (tmp_path / "v.md").read_text(encoding="utf-8")
    assert "Nothing was run on the paper's data" in page
    for result in evaluate_claims():
        assert result.claim.text in page
    assert not re.search(r"image_auroc|aupro|layers_1|metal_nut", page)
    assert "Ours: of 21 reported numbers 21 not run." in page
    assert "](v.png)" not in page
