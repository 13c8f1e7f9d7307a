#!/usr/bin/env python3
"""Goes through the protocol of `pipeline serve` with the official client of OpenAI: chat, streams, schemas, log-probabilities.

usage: openai-client.py BASE_URL [MODEL]        such as http://127.0.0.1:8080/v1
needs: the package openai. The model should follow instructions a little (SmolLM2-135M-Instruct does).
exit: 0 when all holds; the first thing that does not is raised
"""
import json
import math
import os
import sys

import openai

base_url = sys.argv[1]
client = openai.OpenAI(base_url=base_url, api_key=os.environ.get("ESPALIER_API_KEY", "none"), max_retries=0)
served = [model.id for model in client.models.list()]
model = sys.argv[2] if len(sys.argv) > 2 else served[0]
question = [{"role": "system", "content": "You answer briefly."}, {"role": "user", "content": "Name the capital of France."}]


def refused(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def models():
    assert client.models.retrieve(model).id == model
    error = refused(openai.NotFoundError, lambda: client.models.retrieve("no-such-model"))
    assert error.code == "model_not_found" and error.param == "model", error
    return served


def chat():
    answer = client.chat.completions.create(model=model, messages=question, temperature=0, max_tokens=24)
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    again = client.chat.completions.create(model=model, messages=question, temperature=0, max_completion_tokens=24)
    assert again.choices[0].message.content == answer.choices[0].message.content
    return answer.choices[0].message.content


def seeds():
    def ask(seed):
        answer = client.chat.completions.create(model=model, messages=question, seed=seed, temperature=1.0, n=4, max_tokens=16)
        return [choice.message.content for choice in answer.choices]

    first = ask(7)
    assert first == ask(7) and first != ask(8) and len(set(first)) > 1
    return first


def streaming():
    options = {"model": model, "messages": question, "temperature": 0, "max_tokens": 24}
    whole = client.chat.completions.create(**options)
    text, usage, finish = "", None, None
    for chunk in client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}):
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
            finish = chunk.choices[0].finish_reason or finish
        usage = chunk.usage or usage
    assert text == whole.choices[0].message.content and finish == whole.choices[0].finish_reason
    assert usage == whole.usage
    pieces = client.completions.create(model=model, prompt="One, two, three,", max_tokens=8, temperature=0, stream=True)
    text = "".join(chunk.choices[0].text for chunk in pieces)
    assert text == client.completions.create(model=model, prompt="One, two, three,", max_tokens=8, temperature=0).choices[0].text
    return text


def leaving():
    stream = client.chat.completions.create(model=model, messages=question, max_tokens=2000, stream=True)
    next(iter(stream))
    stream.close()
    return "closed after its first event"


def schema():
    form = {
        "type": "object", "additionalProperties": False, "required": ["city", "people"],
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "people": {"type": "integer", "minimum": 1, "maximum": 99999999}},
    }
    answer = client.chat.completions.create(
        model=model, messages=question, temperature=0, max_tokens=100,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": form}})
    found = json.loads(answer.choices[0].message.content)
    assert answer.choices[0].finish_reason == "stop" and found["city"] in ("Paris", "Rome") and isinstance(found["people"], int)
    free = client.chat.completions.create(
        model=model, messages=question, temperature=0, max_tokens=300, response_format={"type": "json_object"})
    if free.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(free.choices[0].message.content), dict)
    return found


def logprobs():
    answer = client.chat.completions.create(
        model=model, messages=question, temperature=0, max_tokens=8, logprobs=True, top_logprobs=3)
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens
    for token in tokens:
        assert len(token.top_logprobs) == 3 and token.logprob <= 0
        assert token.top_logprobs[0].token == token.token, "greedy takes the most probable"
        assert sum(math.exp(other.logprob) for other in token.top_logprobs) <= 1.0001
    assert "".join(token.token for token in tokens) == answer.choices[0].message.content
    return [(token.token, round(token.logprob, 3)) for token in tokens]


def scoring():
    text = "The capital of France is Paris."
    answer = client.completions.create(model=model, prompt=text, max_tokens=0, echo=True, logprobs=1)
    columns = answer.choices[0].logprobs
    assert answer.choices[0].text == text and columns.token_logprobs[0] is None
    assert all(value <= 0 for value in columns.token_logprobs[1:])
    for token, offset in zip(columns.tokens, columns.text_offset):
        assert text[offset:offset + len(token)] == token, (token, offset)
    several = client.completions.create(model=model, prompt=["One, two,", "Red, green,"], n=2, max_tokens=4, seed=1)
    assert [choice.index for choice in several.choices] == [0, 1, 2, 3]
    return round(sum(columns.token_logprobs[1:]), 3)


def options():
    stopped = client.completions.create(model=model, prompt="a b c d e f", max_tokens=20, temperature=0, stop=[" "])
    assert " " not in stopped.choices[0].text.strip(" ") or stopped.choices[0].finish_reason == "length"
    forced = client.completions.create(model=model, prompt="a", max_tokens=3, temperature=0, logit_bias={"100": 100})
    tokens = client.completions.create(model=model, prompt=[100, 100, 100], max_tokens=0, echo=True).choices[0].text
    assert forced.choices[0].text == tokens
    client.chat.completions.create(
        model=model, messages=question, max_tokens=4, frequency_penalty=0.5, presence_penalty=0.5, top_p=0.9, user="a",
        extra_body={"top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1})
    return forced.choices[0].text


def embeddings():
    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    texts = ["The cat sleeps on the sofa.", "A cat is asleep on a couch.", "Interest rates rose by half a point."]
    packed = client.embeddings.create(model=model, input=texts)
    plain = client.embeddings.create(model=model, input=texts, encoding_format="float")
    vectors = [entry.embedding for entry in plain.data]
    for one, other in zip(packed.data, vectors):
        assert len(one.embedding) == len(other) and max(abs(x - y) for x, y in zip(one.embedding, other)) < 1e-6
    assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2])
    return len(vectors[0]), round(cosine(vectors[0], vectors[1]), 3), round(cosine(vectors[0], vectors[2]), 3)


def errors():
    create = client.chat.completions.create
    error = refused(openai.BadRequestError, lambda: create(model=model, messages=question, temperature=5))
    assert error.param == "temperature" and error.type == "invalid_request_error", error
    refused(openai.BadRequestError, lambda: create(model=model, messages=[]))
    refused(openai.BadRequestError, lambda: create(model=model, messages=question, extra_body={"tempurature": 1}))
    refused(openai.NotFoundError, lambda: create(model="no-such-model", messages=question))
    long = [{"role": "user", "content": "word " * 20_000}]
    error = refused(openai.BadRequestError, lambda: create(model=model, messages=long))
    assert error.code == "context_length_exceeded", error
    return error.message


for step in (models, chat, seeds, streaming, leaving, schema, logprobs, scoring, options, embeddings, errors):
    print(f"{step.__name__:>10}  {step()!r}", flush=True)
