"""Writes the seeds that are not files of the repository: a random llama of one layer as a Hugging Face folder."""

import json
import pathlib
import random
import struct

HERE = pathlib.Path(__file__).parent / "seeds"
VOCABULARY, HIDDEN, FEED_FORWARD = 258, 8, 8


def alphabet():
    printable = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    other = 256
    for byte in range(256):
        if byte in printable:
            yield chr(byte)
        else:
            yield chr(other)
            other += 1


def special(number, content):
    flags = dict(special=True, single_word=False, lstrip=False, rstrip=False, normalized=False)
    return dict(id=number, content=content, **flags)


config = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=VOCABULARY, hidden_size=HIDDEN,
    num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, intermediate_size=FEED_FORWARD,
    max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=True,
    hidden_act="silu", bos_token_id=0, eos_token_id=1, torch_dtype="bfloat16",
)
vocabulary = {"<s>": 0, "</s>": 1} | {character: number + 2 for number, character in enumerate(alphabet())}
level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True)
tokenizer = dict(
    version="1.0", added_tokens=[special(0, "<s>"), special(1, "</s>")], normalizer=None, pre_tokenizer=level,
    post_processor=None, decoder=level, model=dict(type="BPE", vocab=vocabulary, merges=[]),
)
shapes = {"model.embed_tokens.weight": [VOCABULARY, HIDDEN], "model.norm.weight": [HIDDEN]}
for name, shape in {
    "self_attn.q_proj": [8, 8], "self_attn.k_proj": [4, 8], "self_attn.v_proj": [4, 8], "self_attn.o_proj": [8, 8],
    "mlp.gate_proj": [8, 8], "mlp.up_proj": [8, 8], "mlp.down_proj": [8, 8],
    "input_layernorm": [8], "post_attention_layernorm": [8],
}.items():
    shapes[f"model.layers.0.{name}.weight"] = shape
random.seed(7)


def safetensors(shapes):
    header, data = {}, b""
    for name, shape in shapes.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = b"".join(struct.pack("<f", random.uniform(-1, 1))[2:] for _ in range(count))
        header[name] = dict(dtype="BF16", shape=shape, data_offsets=[len(data), len(data) + len(values)])
        data += values
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + data


weights = safetensors(shapes)
projection = "base_model.model.model.layers.0.self_attn.q_proj"
adapter = safetensors({f"{projection}.lora_A.weight": [2, 8], f"{projection}.lora_B.weight": [8, 2]})
config, tokenizer = json.dumps(config).encode(), json.dumps(tokenizer, separators=(",", ":")).encode()
for name, content in {
    "folder/config.json": config, "folder/tokenizer.json": tokenizer, "folder/model.safetensors": weights,
    "rows/messages": b'\x00{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A", "weight": 0.5}]}\n',
    "rows/alpaca": b'\x01[{"instruction": "Q", "input": "", "output": "A"},\n {"instruction": "R", "output": "B"}]',
    "rows/sharegpt": b'\xff{"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}\n',
    "rows/completion": b'\xff{"prompt": "Q", "completion": "A"}\n{"prompt": [], "completion": []}\n',
    "safetensors/whole": weights, "safetensors/adapter": adapter, "json_tokenizer/whole": config + b"\0" + tokenizer,
}.items():
    (HERE / name).parent.mkdir(parents=True, exist_ok=True)
    (HERE / name).write_bytes(content)
