"""A build by the jobs of a cluster: each runs ``ptm-plus recipe build … --shard I/N``.

Nothing but that command travels. Jobs take part in one stage after another: an array of Slurm jobs,
or a round of Ray tasks, for each of them.
"""

from __future__ import annotations

import importlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptm_plus.errors import EnvironmentProblem
from ptm_plus.files import write_whole
from ptm_plus.progress import Watch

ENGINES = ("local", "slurm", "ray")


def job_command(arguments: Sequence[str], shard: str) -> list[str]:
    """Return the command of a job.

    Args:
        arguments: of ``recipe build``, without those about the cluster.
        shard: its share, ``I/N``.
    """
    python = [sys.executable, "-m", "ptm_plus", "recipe", "build"]
    return [*python, *arguments, "--shard", shard, "--workers", "1", "--json", "--quiet"]


def submit_to_slurm(
    arguments: Sequence[str], jobs: int, stages: int, options: Sequence[str], folder: Path
) -> list[str]:
    """Submit an array of jobs for each stage, each after the one before; return their numbers.

    Args:
        arguments: of ``recipe build``.
        jobs: of an array.
        stages: how many arrays.
        options: of ``sbatch``, such as ``--time=4:00:00``.
        folder: for the script and the jobs' output.

    Raises:
        EnvironmentProblem: there is no ``sbatch``, or it refuses.
    """
    if shutil.which("sbatch") is None:
        raise EnvironmentProblem("there is no sbatch here", "submit on a machine of the cluster")
    command = shlex.join(job_command(arguments, "SHARD"))
    command = command.replace("SHARD", f'"$SLURM_ARRAY_TASK_ID/{jobs}"')
    script = folder / "slurm" / "build.sh"
    write_whole(script, f"#!/bin/bash\nexec {command}\n")
    numbers: list[str] = []
    for _ in range(stages):
        call = ["sbatch", "--parsable", f"--array=0-{jobs - 1}", "--job-name=ptm-plus-recipe"]
        call += [f"--output={folder / 'slurm'}/%A-%a.log", *options]
        call += [f"--dependency=afterok:{numbers[-1]}"] if numbers else []
        done = subprocess.run([*call, str(script)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise EnvironmentProblem(f"sbatch: {done.stderr.strip()}", "mend its options: --slurm")
        numbers.append(done.stdout.strip().partition(";")[0])
    return numbers


def run_on_ray(arguments: Sequence[str], jobs: int, stages: int, watch: Watch) -> None:
    """Run rounds of jobs on the Ray cluster that ``RAY_ADDRESS`` names, or on this machine.

    Raises:
        EnvironmentProblem: Ray is not installed, or a job failed; with what it said.
    """
    try:
        ray: Any = importlib.import_module("ray")  # no dependency: it is the cluster's
    except ImportError as error:
        raise EnvironmentProblem("Ray is not installed", "pip install ray") from error
    ray.init(ignore_reinit_error=True, log_to_driver=False)
    job = ray.remote(num_cpus=1, max_retries=0)(_call)
    with watch.task("rounds of jobs on Ray") as task:
        for stage in range(stages):
            commands = [job_command(arguments, f"{number}/{jobs}") for number in range(jobs)]
            for code, said in ray.get([job.remote(command) for command in commands]):
                if code:
                    raise EnvironmentProblem(f"a job failed with exit code {code}:\n{said}")
            task.update(stage + 1, stages)
    ray.shutdown()


def _call(command: list[str]) -> tuple[int, str]:
    """Run a command where Ray puts it; return its exit code and what it said of errors."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr[-2000:].strip()
