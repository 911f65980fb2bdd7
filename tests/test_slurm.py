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
from synthtune import settings as settings_module
from synthtune.errors import SettingsError
from synthtune.scale import cluster, planner
from test_pipeline import start
from test_reproduce import QUEUE_SECONDS, Study

pytestmark = pytest.mark.slow

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


@pytest.fixture(scope="module")
def slurm():
    """A cluster of one node, in a folder of its own, on ports of its own; without accounting, as some are."""
    if MISSING:
        pytest.skip(f"{', '.join(MISSING)} not installed: apt-get install slurm-wlm munge")
    if os.geteuid():
        pytest.skip("munged and slurmd are started by root only")
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
    mine = set(processes_with("SLURM_JOB_ID", job))
    for process in list(mine):
        with contextlib.suppress(psutil.NoSuchProcess):
            mine |= {each for each in process.parents() if each.name() == "slurmstepd"}
    return mine


def machine(slurm):
    """Everything of the only node: its daemon, and all that jobs have started there."""
    return {*processes_with("SLURM_CONF", slurm["SLURM_CONF"], "slurmd"),
            *(process for job in jobs(slurm, "RUNNING") for process in processes_of(job))}


def signalled(processes, number):
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def wait_for(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.3)
    return found


def stopped_once(process, condition):
    """What a run says that is interrupted once a condition holds: the jobs after that would take minutes."""
    wait_for(condition, 280)
    process.send_signal(signal.SIGTERM)  # SIGINT is ignored by what a shell runs in the background
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    return said


def test_a_run_is_a_queue_of_jobs_and_a_second_one_has_nothing_to_do(study, slurm):
    said = study.command()
    assert "5 notebooks to run, as jobs of the cluster." in said
    assert len(re.findall(r"SLURM job \d+ submitted", said)) == 5 and "[5/5] 05_figures: done" in said
    assert not jobs(slurm)
    assert "Nothing to do" in study.command()
    assert "Nothing to do" in Study.command(study)  # and on this machine alone


def test_real_notebooks_run_as_jobs(slurm, tmp_path, monkeypatch):
    """Until one is done with a real model and real data, and two others go on from what it has left."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, slurm[name])
    process, notebook = start(tmp_path / "run", *AS_JOBS), tmp_path / "run" / "notebooks" / "tweets-32-01_teacher.ipynb"
    said = stopped_once(process, lambda: notebook.exists() and len(jobs(slurm)) == 2)
    assert len(re.findall(r"SLURM job \d+ submitted", said)) == 3 and "[1/5] 01_teacher · tweets · budget 32: done" in said
    assert wait_for(lambda: not jobs(slurm))
    assert (tmp_path / "run" / "tweets" / "budget-32" / "teacher.parquet").exists()


def test_a_job_whose_machine_is_lost_is_done_again_when_there_is_one(study, slurm):
    study.plan(**{"02_annotate": "hang", "03_generate": "hang"})  # whichever is seen first
    process = study.start()
    before = wait_for(lambda: jobs(slurm, "RUNNING"))
    job = wait_for(lambda: [job for job in jobs(slurm, "RUNNING") if job not in before])[0]
    wait_for(lambda: len(processes_of(job)) > 3)
    # The power goes: nothing of the machine answers any more, and the cluster notices. First all is stopped: what saw
    # another end would tell how the job ended.
    stopped = set()
    while new := machine(slurm) - stopped:
        stopped |= new
        signalled(new, signal.SIGSTOP)
    signalled(stopped, signal.SIGKILL)
    study.plan()  # only now: a job that had ended well by itself could not be lost
    asked(slurm, "scontrol", "update", "NodeName=localhost", "State=DOWN", "Reason=lost")
    try:
        wait_for(lambda: job in jobs(slurm, "PENDING") and not jobs(slurm, "RUNNING"))
        time.sleep(QUEUE_SECONDS + 5)
    finally:
        subprocess.Popen(["slurmd", "-D"], env=slurm, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    made = [study.runs / "tweets/budget-20" / name for name in ("annotation.json", "generation.json")]
    said = stopped_once(process, lambda: all(path.exists() for path in made))
    assert said.count(f"SLURM job {job} is back in the queue") == 1


def test_a_job_that_cannot_start_says_what_it_waits_for(study, slurm):
    asked(slurm, "scontrol", "update", "NodeName=localhost", "State=DRAIN", "Reason=repairs")
    process = study.start()
    try:
        [job] = wait_for(lambda: jobs(slurm, "PENDING"))
        time.sleep(QUEUE_SECONDS + 5)
    finally:
        asked(slurm, "scontrol", "update", "NodeName=localhost", "State=RESUME")
    said = stopped_once(process, (study.runs / "tweets/budget-20/teacher.parquet").exists)
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
    [job] = wait_for(lambda: jobs(slurm, "RUNNING"))
    wait_for(lambda: study.kernels())
    process.send_signal(number)
    process.communicate(timeout=60)
    study.plan()
    if number == signal.SIGKILL:  # the next run ends what a killed one has left
        stopped_once(study.start(), lambda: set(jobs(slurm)) - {job})
    assert wait_for(lambda: not jobs(slurm))
    study.wait_for_end()


COPY = 41_109
"""Megabytes of GPT-NeoX-20B in bfloat16."""


def asks(**changes):
    return cluster.resources(settings_module.load("paper", {"tasks": ["rte"], **changes}))


def memory(rule, **changes):
    """Megabytes of one job, without what is asked for besides the models."""
    [found] = {job["mem_mb"] for job in asks(**changes)[rule]["rte"].values()}
    return found - cluster.MEGABYTES


def test_what_jobs_ask_for_is_planned_and_can_be_changed():
    mine = asks(**{"cluster.resources": {"students": {"runtime": 7}, "generate": {"mem_mb": 5}}})
    assert mine["students"]["rte"][""]["runtime"] == 7 and mine["generate"]["rte"]["2500"]["mem_mb"] == 5
    assert mine["teacher"]["rte"]["125"]["gpu"] >= 1 and mine["students"]["rte"][""]["mem_mb"] < 41_000
    assert asks(**{"teacher.method": "full"})["teacher"]["rte"]["125"]["gpu"] > mine["teacher"]["rte"]["125"]["gpu"]
    assert "gpu" not in cluster.resources(settings_module.load("smoke"))["teacher"]["tweets"]["40"]


def test_jobs_ask_for_every_copy_of_the_teacher_that_waits_in_the_machines_memory():
    assert 2 * COPY < memory("teacher") < 2.1 * COPY and 2 * COPY < memory("annotate") < 2.1 * COPY
    assert 3 * COPY < memory("generate") < 3.1 * COPY
    four, more = {"teacher.processes": 4, "annotate.processes": 4, "generate.processes": 4}, 4 * cluster.MEGABYTES_MORE
    assert memory("teacher", **four) == memory("teacher") + more  # the first of them reads for all
    assert (2 + 4) * COPY < memory("annotate", **four) - more < (2 + 4.1) * COPY
    assert (3 + 4) * COPY < memory("generate", **four) - more < (3 + 4.1) * COPY
    alone = {**four, "teacher.sharding": "replicated"}
    assert (1 + 2 * 4) * COPY < memory("teacher", **alone) - more < (1 + 2 * 4 + 0.1) * COPY
    # As many processes as GPUs, if no setting says: also where the user asks for the GPUs.
    named = {"cluster.resources": {"generate": {"gpu": 4}}}
    assert memory("generate", **named) == memory("generate", **four)
    # Full fine-tuning collects all weights in float32, and writes them.
    assert memory("teacher", **{"teacher.method": "full"}) > memory("teacher") + 4 * COPY


def test_on_a_processor_jobs_ask_for_what_is_computed_with_too():
    asked = cluster.resources(settings_module.load("laptop"))
    rows = planner.plan(settings_module.load("laptop", {"tasks": ["sgd"]})).table.set_index("stage")
    planned = 2**30 / 1e6 * rows.loc["generate", "memory_total"]
    assert asked["generate"]["sgd"]["125"]["mem_mb"] > cluster.MEGABYTES + planned


def test_a_jobs_time_follows_its_budget():
    chosen = settings_module.load("paper", {"tasks": ["boolq", "webnlg"], "cluster.hours_factor": 60,
                                            "teacher.epochs_larger": 2})
    rows = planner.plan(chosen).table
    asked = cluster.resources(chosen)
    for task in ("boolq", "webnlg"):
        for rule in ("teacher", "annotate", "generate"):
            minutes = {budget: job["runtime"] - cluster.MINUTES for budget, job in asked[rule][task].items()}
            hours = rows[(rows["task"] == task) & (rows["stage"].map(cluster.RULE_OF) == rule)]["gpu_hours"].sum()
            assert list(minutes) == ["125", "250", "500", "1250", "2500"]
            assert sum(minutes.values()) == pytest.approx(60 * 60 * hours, abs=10)  # all is shared out, but for rounding
        minutes = [job["runtime"] - cluster.MINUTES for job in asked["teacher"][task].values()]
        per_row = (minutes[4] - minutes[2]) / (2500 - 500)  # above what reading the model takes, the same for every budget
        assert per_row > 0.05 and minutes[3] == pytest.approx(minutes[2] + 750 * per_row, abs=3)
        assert minutes[1] > minutes[2] - 250 * per_row  # at 250 more passes, so that there are no fewer steps than at 125


def test_without_slurm_the_option_says_what_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SettingsError, match="there is no sbatch here"):
        cluster.arguments(settings_module.load("smoke"), None)
