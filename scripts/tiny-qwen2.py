#!/usr/bin/env python3
"""A qwen2 model of random weights, a few hundred kilobytes: tiny-qwen2.py OUT

Written as a Hugging Face folder with biases that are not zero and a byte-level tokenizer of 320 tokens.
needs: torch, transformers, tokenizers.
"""
import sys

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

out = sys.argv[1]
torch.manual_seed(7)
config = Qwen2Config(
    vocab_size=320, hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
    max_position_embeddings=256, rope_theta=10000.0, tie_word_embeddings=True, initializer_range=0.15,
    bos_token_id=None, eos_token_id=1,
)
model = Qwen2ForCausalLM(config)
with torch.no_grad():
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.normal_(0.0, 0.3)
        elif "norm" in name:
            parameter.add_(torch.randn_like(parameter) * 0.1)
model.save_pretrained(out)

tokenizer = Tokenizer(models.BPE())
words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
    pre_tokenizers.Split(Regex(words), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
tokenizer.decoder = decoders.ByteLevel()
text = ["Write a date. What does Lily see? Lily sees a red ball near the big house. She is happy. Name two animals: a cat and a dog."] * 4
trainer = trainers.BpeTrainer(
    vocab_size=320, special_tokens=["<|im_start|>", "<|im_end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
tokenizer.train_from_iterator(text, trainer)
assert tokenizer.get_vocab_size() == 320, tokenizer.get_vocab_size()
wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
wrapped.chat_template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
wrapped.save_pretrained(out)
