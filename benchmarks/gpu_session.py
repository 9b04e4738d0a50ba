"""This package on a GPU: speed, memory, repeatability. Under ten minutes on one card; nothing is downloaded.

    python benchmarks/gpu_session.py --json out.json

Please send `out.json`: it holds the card, the driver, versions and numbers, and no path or name of yours. Every part is
independent; one that fails says why in its place. Without a GPU there is nothing to measure, and the script says so.
`--dry-run` runs every part that a CPU can, on tiny networks, to show that the script works; its numbers mean nothing.
"""

import argparse
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import common
import torch
from safetensors.torch import load_file
from torch import Tensor
from training_step import our_step

from maskrd.config.load import build_experiment
from maskrd.config.settings import canonical_json
from maskrd.config.teachers import ARCHITECTURES
from maskrd.engine.inputs import TrainingJob, load_inputs
from maskrd.engine.loop import Trainer
from maskrd.engine.machine import autocast, synchronize
from maskrd.inspection.flops import network_cost
from maskrd.methods import build_method
from maskrd.methods.teacher import Teacher

BATCH_SIZE = 16
# Variant, backbone and pixels of the networks that are timed.
NETWORKS = (
    ("maskrd", "resnet18", 256),
    ("maskrd", "wide_resnet50_2", 256),
    ("maskrd", "wide_resnet50_2", 64),
    ("rd", "wide_resnet50_2", 256),
)
METHODS = ("maskrd", "rd", "stpm", "mkd", "msfd", "asymmetric")
SECONDS = 300  # that a training may take before it counts as hung
TRIES = 5  # to stop a training before it ends by itself


@dataclass(frozen=True)
class Session:
    """Where it runs, and how large."""

    device: torch.device
    dry: bool
    folder: Path

    def networks(self) -> Sequence[tuple[str, str, int]]:
        return [("maskrd", "demo_resnet18", 32)] if self.dry else NETWORKS

    def job(self, name: str, variant: str, backbone: str, size: int, **changes: object) -> TrainingJob:
        """A training of generated images in a folder of its own."""
        arguments = argparse.Namespace(
            variant=variant,
            backbone=backbone,
            image_size=size,
            precision=changes.pop("precision", "fp32"),
            device=self.device.type,
            threads=1,
        )
        settings, _ = common.recipe(arguments, batch_size=4 if self.dry else BATCH_SIZE, **changes)
        images = (2 if self.dry else 8) * settings.batch_size
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return common.training_job(arguments, settings, folder, images, cache_gb=4)


def compare_with_cpu(session: Session) -> dict:
    """Loss and gradient of one batch, in fp32 and with TF32 off: how far from the CPU's, relative to their size."""
    experiment, found = build_experiment({}, common.ROOT.joinpath), {}
    precise = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    try:
        for variant in METHODS:
            settings = experiment.recipe("mvtec_ad", variant).training
            settings = settings.model_copy(update={"mask_ratio": 0} if variant == "maskrd" else {})
            backbone = "demo_vgg16" if settings.teacher_family == "VGG" else "demo_resnet18"
            results = []
            for device in (torch.device("cpu"), session.device):
                torch.manual_seed(0)
                teacher = Teacher(ARCHITECTURES[backbone], settings.normalize)
                method = build_method(settings, teacher).to(device, memory_format=torch.channels_last).train()
                images = torch.randint(0, 256, (8, 3, 64, 64), generator=torch.Generator().manual_seed(1))
                images = images.to(device, torch.uint8)
                loss = method.loss(images, teacher.to(device)(images))
                loss.backward()
                gradients = [p.grad.flatten().double().cpu() for p in method.parameters() if p.grad is not None]
                results.append((loss.detach().double().cpu(), torch.cat(gradients)))
            found[variant] = {
                part: distance(*pair)
                for part, pair in zip(("loss", "gradient"), zip(*results, strict=True), strict=True)
            }
    finally:
        torch.backends.cudnn.allow_tf32 = precise[0]
        torch.set_float32_matmul_precision(precise[1])
    return found


def distance(one: Tensor, other: Tensor) -> float:
    """Relative to the length of the first."""
    return ((one - other).norm() / one.norm()).item()


def command(job: TrainingJob) -> list[str]:
    files = {name: getattr(job, name) for name in ("index", "data", "teacher", "model", "history", "store")}
    options = [str(word) for name, path in files.items() for word in (f"--{name}", path)]
    options += ["--recipe", canonical_json(job.recipe), "--device", job.machine.device, "--threads", "1"]
    options += ["--cuda-graphs" if job.machine.cuda_graphs else "--no-cuda-graphs"]
    return [sys.executable, "-m", "maskrd", "train", *options]


@dataclass(frozen=True)
class Running:
    """A training in a process of its own, and what it prints."""

    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, job: TrainingJob) -> "Running":
        log = job.model.with_name("log.txt")
        with log.open("wb") as file:
            return cls(subprocess.Popen(command(job), stdout=file, stderr=subprocess.STDOUT), log)

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_for_steps(self) -> None:
        """Until its progress bar is there."""
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends and self.process.poll() is None and "img" not in self.output():
            time.sleep(0.01)


def finish(trainings: Sequence[Running]) -> list[tuple[int, str]]:
    """Exit codes and outputs. A process that hangs is ended."""
    try:
        return [(training.process.wait(SECONDS), training.output()) for training in trainings]
    finally:
        for training in trainings:
            training.process.kill()
            training.process.wait()


def small_training(session: Session, name: str, epochs: int, cuda_graphs: bool = True) -> TrainingJob:
    variant, backbone, size = session.networks()[0]
    job = session.job(name, variant, backbone, size, epochs=epochs)
    return replace(job, machine=replace(job.machine, cuda_graphs=cuda_graphs))


def repeat_and_resume(session: Session) -> dict:
    """A training twice, without CUDA graphs, and stopped by SIGTERM and continued: how far apart are the weights?"""
    epochs = 20 if session.dry else 40
    weights, codes = {}, {}
    for name in ("first", "second", "without graphs", "stopped"):
        if name == "stopped":
            job, codes["stopped by SIGTERM"] = stop(session, name, epochs)
            codes["a state was saved"] = any(job.store.rglob("*.pt"))  # not if the signal came before the first step
        else:
            job = small_training(session, name, epochs, cuda_graphs=name != "without graphs")
        codes[name] = finish([Running.start(job)])[0][0]
        weights[name] = load_file(job.model)
    return {"exit codes": codes, **{f"first and {name}": difference(weights, name) for name in [*weights][1:]}}


def stop(session: Session, name: str, epochs: int) -> tuple[TrainingJob, int]:
    """A training that SIGTERM stopped, and its exit code. One that ended before the signal came is tried again."""
    for _ in range(TRIES):
        job = small_training(session, name, epochs)
        training = Running.start(job)
        training.wait_for_steps()
        training.process.send_signal(signal.SIGTERM)
        code = finish([training])[0][0]
        if code == 128 + signal.SIGTERM:
            break
    return job, code


def difference(weights: dict[str, dict[str, Tensor]], name: str) -> float:
    """Of all weights together; 0 where they are equal to the last bit."""
    first, other = (
        torch.cat([weights[part][key].double().flatten() for key in sorted(weights["first"])])
        for part in ("first", name)
    )
    return 0.0 if torch.equal(first, other) else distance(first, other)


def time_steps(session: Session) -> list[dict]:
    """Seconds of a step, kernels it launches and peak memory: four networks in both precisions, without CUDA graphs
    and with them."""
    rows = []
    for variant, backbone, size in session.networks():
        for precision in ("fp32", "bf16"):
            for graphs in (False, True):
                job = session.job("steps", variant, backbone, size, precision=precision)
                row = {"variant": variant, "backbone": backbone, "pixels": size, "precision": precision}
                rows.append({**row, "graphs": graphs, **time_step(session, job, variant, backbone, graphs)})
                print("  ", rows[-1], file=sys.stderr)
    return rows


def time_step(session: Session, job: TrainingJob, variant: str, backbone: str, graphs: bool) -> dict:
    on_card = session.device.type == "cuda"
    if on_card:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer = Trainer(load_inputs(replace(job, machine=replace(job.machine, cuda_graphs=graphs))))
    step = our_step(trainer)
    found = {"seconds": seconds_of(step, session), "kernels": count_kernels(step, session)}
    if on_card:
        found["peak_gb"] = torch.cuda.max_memory_reserved() / 1e9
    evaluation = build_experiment({}, common.ROOT.joinpath).recipe("mvtec_ad", variant).evaluation
    cost = network_cost(trainer.settings, evaluation, backbone)
    found["planned_gb"] = cost.training_bytes(trainer.settings, len(trainer.images), job.cache_gb * 1e9) / 1e9
    found["tflops"] = cost.step_flops * trainer.settings.batch_size / found["seconds"] / 1e12
    return found


def seconds_of(step: Callable[[], object], session: Session) -> float:
    """The mean of steps in a row, as they are in a training; the first ones warm up."""
    warm, count = (1, 2) if session.dry else (5, 30)
    for _ in range(warm):
        step()
    synchronize(session.device)
    started = time.perf_counter()
    for _ in range(count):
        step()
    synchronize(session.device)
    return (time.perf_counter() - started) / count


def count_kernels(step: Callable[[], object], session: Session) -> int | None:
    """Kernels that the card ran in one step; None on a CPU."""
    if session.device.type != "cuda":
        return None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        synchronize(session.device)
    on_card = [event for event in profile.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    return len([event for event in on_card if not event.name.startswith(("Memcpy", "Memset"))])


def share_the_card(session: Session) -> dict:
    """Images a second of 1, 2 and 3 trainings at a time, all together; with MPS, too, where it can be started."""
    found = {"without MPS": rates(session)}
    daemon = shutil.which("nvidia-cuda-mps-control")
    if daemon is None or session.dry:
        return {**found, "with MPS": "nvidia-cuda-mps-control is not there"}
    folders = {f"CUDA_MPS_{part}_DIRECTORY": str(session.folder / part) for part in ("PIPE", "LOG")}
    os.environ.update(folders)
    try:
        subprocess.run([daemon, "-d"], check=True, timeout=20)
        found["with MPS"] = rates(session)
    finally:
        subprocess.run([daemon], input="quit\n", text=True, timeout=20, check=False)
        for name in folders:
            os.environ.pop(name)
    return found


def rates(session: Session) -> dict[int, float]:
    """By how many train at a time. Start-up counts, as in a run of Snakemake."""
    found, epochs = {}, 2 if session.dry else 60
    for count in (1, 2) if session.dry else (1, 2, 3):
        jobs = [small_training(session, f"shared{number}", epochs) for number in range(count)]
        started = time.perf_counter()
        results = finish([Running.start(job) for job in jobs])
        if any(code for code, _ in results):
            raise RuntimeError(next(output for code, output in results if code)[-500:])
        images = sum(epochs * len(list((job.data / "noise/train/good").iterdir())) for job in jobs)
        found[count] = images / (time.perf_counter() - started)
    return found


def fill_the_card(session: Session) -> dict:
    """What a training says on a card without free memory."""
    if session.device.type != "cuda":
        return {"skipped": "a CPU"}
    free, _ = torch.cuda.mem_get_info()
    filler = torch.empty(max(0, int(free - 0.7e9)), dtype=torch.uint8, device=session.device)  # a context fits, no more
    code, output = finish([Running.start(small_training(session, "full", 2))])[0]
    del filler
    torch.cuda.empty_cache()
    lines = [line for line in output.splitlines() if line.startswith("Error")]
    return {"exit code": code, "message": lines[-1] if lines else output[-500:]}


def test_pass(session: Session) -> dict:
    """Seconds of testing an image, in a batch of 16."""
    variant, backbone, size = session.networks()[0]
    trainer = Trainer(load_inputs(session.job("test", variant, backbone, size)))
    evaluation = build_experiment({}, common.ROOT.joinpath).recipe("mvtec_ad", variant).evaluation
    images = trainer.images[:BATCH_SIZE]
    trainer.method.eval()

    def score() -> None:
        with torch.no_grad(), autocast(session.device, "fp32"):
            trainer.method.maps_and_scores(images, evaluation)

    return {"variant": variant, "backbone": backbone, "seconds": seconds_of(score, session) / len(images)}


def describe_card(session: Session) -> dict:
    found = common.machine(session.device)
    if session.device.type == "cuda":
        properties = torch.cuda.get_device_properties(session.device)
        found["memory_gb"] = properties.total_memory / 1e9
        found["multiprocessors"] = properties.multi_processor_count
        found["capability"] = list(torch.cuda.get_device_capability())
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        if shutil.which(query[0]):
            found["driver"] = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
    return {**found, "cuda": torch.version.cuda}


PARTS = (describe_card, compare_with_cpu, time_steps, test_pass, repeat_and_resume, share_the_card, fill_the_card)


def run(session: Session) -> dict:
    """Every part's result, or the error that ended it."""
    result: dict[str, object] = {}
    for part in PARTS:
        started = time.perf_counter()
        try:
            result[part.__name__] = part(session)
        except Exception as error:  # the other parts are worth having
            result[part.__name__] = {"failed": f"{type(error).__name__}: {error}"}
        print(f"{part.__name__}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--dry-run", action="store_true", help="tiny networks on the CPU, to try the script")
    arguments = parser.parse_args()
    if not (arguments.dry_run or torch.cuda.is_available()):
        print("torch sees no NVIDIA GPU here, so there is nothing to measure. --dry-run tries the script on the CPU.")
        return
    device = torch.device("cpu" if arguments.dry_run else "cuda")
    torch.set_num_threads(1 if arguments.dry_run else torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder:
        result = run(Session(device, arguments.dry_run, Path(folder)))
    arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{arguments.json}: written. Please send it.")


if __name__ == "__main__":
    main()
