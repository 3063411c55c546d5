"""A run as a Slurm job on three pretended nodes of this machine, whose nodes crash, which is requeued and signalled."""
import os, shutil, subprocess, time


class Slurm:
    """The cluster; None of it where there is no root or no Slurm."""

    def __init__(self, tree, work, environment):
        self.script = os.path.join(tree, "tests/slurm/slurm-cluster.sh")
        self.folder = os.path.join(work, "cluster")
        self.environment = dict(environment, GALLOP_BACK_OFF="0", GALLOP_STALE="20", GALLOP_GIVE_UP="20")
        os.chmod(work, 0o755)  # munged insists
        started = subprocess.run([self.script, "start", "3", self.folder], capture_output=True, text=True,
                                 env=self.environment)
        if started.returncode != 0:
            raise RuntimeError(started.stderr)
        name, value = started.stdout.strip().split("=", 1)
        self.environment[name] = value
        self.lost = None

    @staticmethod
    def is_possible():
        path = os.environ["PATH"] + ":/usr/sbin:/sbin"
        return os.geteuid() == 0 and all(shutil.which(one, path=path) for one in
                                         ("slurmctld", "slurmd", "munged", "sbatch", "unshare"))

    def stop(self):
        subprocess.run([self.script, "stop", self.folder], env=self.environment, capture_output=True)

    def call(self, *words):
        return subprocess.run(words, env=self.environment, capture_output=True, text=True)

    def submit(self, gallop, run, mark, place, work):
        sent = subprocess.run([gallop, "submit", run], cwd=work, capture_output=True, text=True,
                              env=dict(self.environment, **{place: mark}))
        if sent.returncode != 0:
            raise RuntimeError(sent.stderr)
        return sent.stdout.strip()

    def field(self, job, name):
        words = self.call("scontrol", "show", "job", job).stdout.split()
        return next((word.split("=", 1)[1] for word in words if word.startswith(name + "=")), "")

    def is_over(self, job):
        return self.field(job, "JobState") in ("", "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")

    def crash(self, job):
        """Crashes a node that the job can do without: not that of its batch script. Its name, or None."""
        host = self.field(job, "BatchHost")
        if not host or self.lost:
            return None
        self.lost = next(node for node in ("node3", "node2") if node != host)
        self.call(self.script, "kill-node", self.lost, self.folder)
        self.call("scontrol", "update", "nodename=" + self.lost, "state=down", "reason=crash")
        return self.lost

    def repair(self):
        if self.lost:
            self.call(self.script, "start-node", self.lost, self.folder)
            self.lost = None
            time.sleep(1)

    def requeue(self, job):
        return self.call("scontrol", "requeue", job).returncode == 0

    def warn(self, job):
        """What Slurm sends before a job's time is up."""
        return self.call("scancel", "--batch", "--signal=USR1", job).returncode == 0

    def cancel(self, job):
        self.call("scancel", job)
        for _ in range(150):
            if self.is_over(job):
                return
            time.sleep(0.2)
