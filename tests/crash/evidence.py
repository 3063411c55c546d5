"""What can be seen of a run from outside: its files, its journals, its processes."""
import hashlib, json, os

PLACE = "GALLOP_CRASH_CAMPAIGN"  # in the environment of everything that we start: how we know it


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def outputs(run):
    """Every file of clips/ and latents/, by path, with its digest."""
    found = {}
    for part in ("clips", "latents"):
        for folder, _, names in os.walk(os.path.join(run, part)):
            for name in names:
                path = os.path.join(folder, name)
                try:
                    found[os.path.relpath(path, run)] = sha256(path)
                except FileNotFoundError:
                    pass  # a temporary file that has just got its name
    return found


def leftovers(run):
    return [os.path.join(folder, name) for folder, _, names in os.walk(run) for name in names
            if name.endswith(".tmp") or os.path.basename(os.path.dirname(folder)) == "leases"]


def events(run):
    for name in sorted(os.listdir(run)) if os.path.isdir(run) else ():
        if name == "journal.jsonl" or (name.startswith("journal-") and name.endswith(".jsonl")):
            with open(os.path.join(run, name), "rb") as file:
                for line in file:
                    try:
                        yield json.loads(line)
                    except ValueError:
                        pass  # torn by a kill; the run says so, too


def done(run):
    """The items that the journals call done."""
    return {event["id"] for event in events(run) if event.get("event") == "done"}


def processes(mark):
    """Those that live of what was started with `mark`: pid -> kind."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = dict(part.split(b"=", 1) for part in file.read().split(b"\0") if b"=" in part)
            if environment.get(PLACE.encode()) != mark.encode():
                continue
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    continue
        except (OSError, ValueError):
            continue
        program = os.path.basename(words[0])
        if program in (b"mpirun", b"orterun", b"prterun"):
            found[int(pid)] = "mpirun"
        elif program == b"srun" and b"--mpi=pmix" in words:
            found[int(pid)] = "srun"
        elif program != b"gallop":
            continue
        elif b"renderer" in words:
            found[int(pid)] = "renderer"
        elif b"--attach" in words:
            found[int(pid)] = "attached"
        elif b"run" in words:
            rank = environment.get(b"OMPI_COMM_WORLD_RANK", environment.get(b"PMIX_RANK", b"0"))
            found[int(pid)] = "coordinator" if rank == b"0" else "agent"
    return found
