#!/usr/bin/env python3
"""What lm-evaluation-harness makes of the tasks in eval/tests/golden/lm_eval, as golden files of eval/tests/lm_eval.rs.

usage: golden-lm-eval.py stories260K.F32.gguf [plain|chat ...]
needs: lm_eval 0.4.13 with torch and transformers, gguf; no network
The F32 file is `pipeline quantize tests/assets/model/stories260K.bin --type F32 --out stories260K.F32.gguf`.
"""
import json
import os
import pathlib
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["DISABLE_MULTIPROC"] = "1"
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import AutoModelForCausalLM, AutoTokenizer

TASKS = pathlib.Path(__file__).parent.parent / "eval" / "tests" / "golden" / "lm_eval"
NAMES = ["golden_group", "golden_same_split", "golden_last_word", "golden_pages", "golden_blanks", "golden_sums"]
CHAT = ("{% for m in messages %}[{{m.role}}]{{m.content}}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}")

model = pathlib.Path(sys.argv[1]).resolve()
os.chdir(TASKS)
with tempfile.TemporaryDirectory() as folder:
    os.environ["HF_DATASETS_CACHE"] = folder
    tokenizer = AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)
    tokenizer.chat_template = CHAT
    network = AutoModelForCausalLM.from_pretrained(model.parent, gguf_file=model.name, dtype="float32")
    for form in sys.argv[2:] or ["plain", "chat"]:
        results = lm_eval.simple_evaluate(
            model=HFLM(pretrained=network, tokenizer=tokenizer, batch_size=1, add_bos_token=True, max_length=512),
            tasks=NAMES, task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
            bootstrap_iters=2000, log_samples=True, apply_chat_template=form == "chat",
            fewshot_as_multiturn=form == "chat", system_instruction="You are kind." if form == "chat" else None,
        )
        samples = {
            task: [
                {key: sample[key] for key in ("doc_id", "filter", "target", "doc_hash", "prompt_hash", "target_hash", "filtered_resps")}
                | {"arguments": sample["arguments"], "metrics": {name: sample[name] for name in sample["metrics"]}}
                for sample in rows
            ]
            for task, rows in results["samples"].items()
        }
        golden = {
            "command": f"scripts/golden-lm-eval.py stories260K.F32.gguf {form}",
            "lm_eval": lm_eval.__version__,
            "results": results["results"], "n-shot": results["n-shot"], "versions": results["versions"], "samples": samples,
        }
        text = json.dumps(golden, ensure_ascii=False, separators=(",", ":"), default=lambda value: value.tolist())
        (TASKS / f"{form}.json").write_text(text + "\n", encoding="utf-8")
        print(form, {task: {k: v for k, v in found.items() if "," in k} for task, found in results["results"].items()})
