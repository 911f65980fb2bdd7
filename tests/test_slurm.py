"""The graph of notebooks through a real SLURM: a cluster of this one machine, started for the tests."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from synthtune import cluster, settings as settings_module
from synthtune.errors import SettingsError
from test_pipeline import NOTEBOOKS, start
from test_reproduce import Study

CONFIGURATION = """
ClusterName=synthtune
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmdPort={second}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=10
CredType=cred/munge
SlurmUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
MinJobAge=300
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""

DAEMONS = ("munged", "slurmctld", "slurmd")
MISSING = [name for name in DAEMONS if shutil.which(name) is None and not Path("/usr/sbin", name).exists()]

QUICK = ["--slurm-init-seconds-before-status-checks=1", "--seconds-between-status-checks=1"]
LITTLE = {stage: {"runtime": 30, "mem_mb": 10} for stage in ("teacher", "annotate", "generate", "students")}
AS_JOBS = ["--executor", "slurm", "--set", f"cluster.options={QUICK}", "--set", f"cluster.resources={LITTLE}"]

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed: apt-get install slurm-wlm munge"),
    pytest.mark.skipif(os.geteuid() != 0, reason="munged and slurmd are started by root only"),
]


@pytest.fixture(scope="module")
def slurm():
    """A cluster of one node, in a folder of its own, on ports of its own; without accounting, as some are."""
    folder = Path(tempfile.mkdtemp(prefix="synthtune-slurm-", dir="/tmp"))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    port = 20000 + os.getpid() % 20000
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, user="root", port=port, second=port + 1))
    # Snakemake's executor drops SLURM_CONF inside of jobs: clusters have theirs in /etc.
    (folder / "bin").mkdir()
    (folder / "bin" / "srun").write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
    (folder / "bin" / "srun").chmod(0o755)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"),
                   "PATH": f"{folder}/bin:{os.environ['PATH']}:/usr/sbin"}
    started = [["munged", "--force", "--foreground", f"--key-file={folder}/munge.key", f"--socket={folder}/munge.sock",
                f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed"],
               ["slurmctld", "-D"], ["slurmd", "-D"]]
    processes = []
    try:
        for command in started:
            processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL,
                                              stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL))
            time.sleep(1)
        deadline = time.monotonic() + 60
        while "idle" not in asked(environment, "sinfo", "--noheader", "--format", "%t"):
            assert time.monotonic() < deadline, (folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.5)
        yield environment
    finally:
        asked(environment, "scancel", "--me")
        for again in processes_with("SLURM_CONF", environment["SLURM_CONF"], "slurmd"):
            again.terminate()
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def asked(environment, *command):
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


@pytest.fixture
def study(tmp_path, slurm, monkeypatch):
    """Quick notebooks of the right names, with little asked for and the queue looked at every second."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm[name])
    study = Study(tmp_path)
    on_this_machine = study.start
    study.start = lambda *arguments: on_this_machine(*AS_JOBS, *arguments)
    return study


def jobs(slurm, state=None):
    lines = asked(slurm, "squeue", "--noheader", "--format", "%i %T").split("\n")
    return [line.split()[0] for line in lines if line.strip() and (state is None or line.split()[1] == state)]


def processes_with(variable, value, name=""):
    """Processes of this machine that have an environment variable."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(variable) == value and name in process.name():
                found.append(process)
    return found


def processes_of(job):
    """Everything that a job has started on this machine, and what watches it there."""
    mine = processes_with("SLURM_JOB_ID", job)
    above = [each for process in mine for each in process.parents() if each.name() == "slurmstepd"]
    return {*mine, *above}


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return found


def test_a_run_is_a_queue_of_jobs_and_a_second_one_has_nothing_to_do(study, slurm):
    said = study.command()
    assert "5 notebooks to run, as jobs of the cluster." in said
    assert len(re.findall(r"SLURM job \d+ submitted", said)) == 5 and "[5/5] 05_figures: done" in said
    assert not jobs(slurm)
    assert "Nothing to do" in study.command()
    assert "Nothing to do" in Study.command(study)  # and on this machine alone


def test_the_real_notebooks_run_as_jobs(slurm, tmp_path, monkeypatch):
    """The smoke profile's graph, cut to one task and little of everything, with real models and data."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm[name])
    process = start(tmp_path / "run", *AS_JOBS)
    said, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, said
    assert len(re.findall(r"SLURM job \d+ submitted", said)) == 5 and "[5/5] 05_figures: done" in said and not jobs(slurm)
    assert {path.stem for path in (tmp_path / "run" / "notebooks").glob("*.ipynb")} == set(NOTEBOOKS)
    assert (tmp_path / "run" / "tweets" / "results.parquet").exists()


def test_a_job_that_is_put_back_into_the_queue_is_done_again(study, slurm):
    """As a cluster does with the jobs of a machine that it has lost."""
    study.plan(**{"02_annotate": "hang"})
    process = study.start()
    teacher = study.runs / "tweets/budget-20/teacher.parquet"
    wait_for(teacher.exists)
    hanging = wait_for(lambda: jobs(slurm, "RUNNING"))
    study.plan()
    time.sleep(4)  # the notebook has begun
    for job in hanging:
        asked(slurm, "scontrol", "requeue", job)
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert "05_figures: done" in said and not jobs(slurm)


def test_a_job_whose_machine_is_lost_is_done_again_when_there_is_one(study, slurm):
    study.plan(**{"02_annotate": "hang"})
    process = study.start()
    before = wait_for(lambda: jobs(slurm, "RUNNING"))
    job = wait_for(lambda: [job for job in jobs(slurm, "RUNNING") if job not in before])[0]
    study.plan()
    wait_for(lambda: len(processes_of(job)) > 3)
    # The power goes: nothing of the machine answers any more, and the cluster notices.
    daemon, running = processes_with("SLURM_CONF", slurm["SLURM_CONF"], "slurmd"), jobs(slurm, "RUNNING")
    for each in {*daemon, *(process for one in running for process in processes_of(one))}:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    asked(slurm, "scontrol", "update", "NodeName=localhost", "State=DOWN", "Reason=lost")
    wait_for(lambda: job in jobs(slurm, "PENDING") and not jobs(slurm, "RUNNING"))
    time.sleep(cluster.QUEUE_SECONDS + 5)
    subprocess.Popen(["slurmd", "-D"], env=slurm, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert said.count(f"SLURM job {job} is back in the queue") == 1
    assert "05_figures: done" in said and not jobs(slurm)


def test_a_job_that_cannot_start_says_what_it_waits_for(study, slurm):
    asked(slurm, "scontrol", "update", "NodeName=localhost", "State=DRAIN", "Reason=repairs")
    process = study.start()
    try:
        [job] = wait_for(lambda: jobs(slurm, "PENDING"))
        time.sleep(cluster.QUEUE_SECONDS + 5)
    finally:
        asked(slurm, "scontrol", "update", "NodeName=localhost", "State=RESUME")
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert said.count(f"SLURM job {job} waits, and SLURM says: Nodes required for job are DOWN, DRAINED") == 1


def test_a_failing_notebook_is_one_sentence(study, slurm):
    study.plan(**{"02_annotate": "fail"})
    said = study.command(status=1)
    assert "02_annotate · tweets · budget 20: tweets.txt, line 7: no rating; correct that line." in said
    assert "Finished work is kept" in said and not jobs(slurm)


def test_a_job_that_is_lost_is_told(study, slurm):
    study.plan(**{"01_teacher": "hang"})
    process = study.start()
    [job] = wait_for(lambda: jobs(slurm, "RUNNING"))
    asked(slurm, "scancel", job)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1 and re.search(rf"The SLURM job {job} ended as CANCELLED", said), said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_job_outlives_a_run(study, slurm, number):
    study.plan(**{"01_teacher": "hang"})
    process = study.start()
    wait_for(lambda: jobs(slurm, "RUNNING"))
    process.send_signal(number)
    process.communicate(timeout=60)
    study.plan()
    if number == signal.SIGKILL:
        study.command()  # the next run ends what a killed one has left
    assert wait_for(lambda: not jobs(slurm))


def test_what_jobs_ask_for_is_planned_and_can_be_changed():
    chosen = settings_module.load("paper", {"tasks": ["rte"], "cluster.resources": {"students": {"runtime": 7}}})
    asks = cluster.resources(chosen)["rte"]
    assert set(asks) == {"teacher", "annotate", "generate", "students"} and asks["students"]["runtime"] == 7
    assert asks["teacher"]["gpu"] >= 1 and asks["teacher"]["mem_mb"] > 41_000 > asks["students"]["mem_mb"]
    full = cluster.resources(settings_module.load("paper", {"tasks": ["rte"], "teacher.method": "full"}))["rte"]
    assert full["teacher"]["gpu"] > asks["teacher"]["gpu"]
    assert "gpu" not in cluster.resources(settings_module.load("smoke"))["tweets"]["teacher"]


def test_without_slurm_the_option_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SettingsError, match="there is no sbatch here"):
        cluster.arguments(settings_module.load("smoke"), None)
