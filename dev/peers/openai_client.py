"""Talks to a server with the official Python client; reads {"url"} and prints what came of each call."""

import asyncio
import json
import sys

import openai

HELLO = [{"role": "user", "content": "hello"}]


def asking(text):
    return {"model": "d4", "messages": [{"role": "user", "content": text}]}


def outcome(call):
    """The class and the fields of the exception of a call."""
    try:
        call()
    except openai.APIError as error:
        status = getattr(error, "status_code", None)
        return [type(error).__name__, status, error.code, error.param]
    return None


def stream_text(stream):
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


async def concurrently(url):
    client = openai.AsyncOpenAI(base_url=url, api_key="key", max_retries=0)

    async def one(i):
        stream = await client.chat.completions.create(**asking(f"say {i}"), stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    answers = await asyncio.gather(*[one(i) for i in range(20)])
    await client.close()
    return answers


def main():
    url = json.load(sys.stdin)["url"]
    client = openai.OpenAI(base_url=url, api_key="key", max_retries=0)
    chat = client.chat.completions
    whole = chat.create(**asking("hello"), stop=["x"], seed=1, temperature=0, extra_body={"top_k": 3})
    usage = list(chat.create(**asking("hello"), stream=True, stream_options={"include_usage": True}))[-1].usage
    both = chat.create(**asking("both"), n=2, logprobs=True, top_logprobs=2)
    echoed = client.completions.create(model="d4", prompt="ab", echo=True, logprobs=1, max_tokens=1)
    raw = chat.with_raw_response.create(**asking("hello"), user="Ann")
    answers = {
        "whole": [whole.choices[0].message.content, whole.choices[0].finish_reason, whole.usage.total_tokens],
        "extension": [whole.nanochat["seed"], whole.nanochat["tool_events"]],
        "stream": stream_text(chat.create(**asking("hello"), stream=True)),
        "usage": [usage.total_tokens, usage.prompt_tokens_details.cached_tokens],
        "both": [[one.message.content, one.logprobs.content[0].logprob, len(one.logprobs.content[0].top_logprobs)]
                 for one in both.choices],
        "echoed": [echoed.choices[0].text, echoed.choices[0].logprobs.token_logprobs],
        "texts": [one.text for one in client.completions.create(model="d4", prompt=["a", "b"]).choices],
        "models": [model.id for model in client.models.list()],
        "model": client.models.retrieve("base/d4").id,
        "ignored": raw.headers["x-nanochat-ignored"],
        "busy": outcome(lambda: chat.create(**asking("busy"))),
        "closing": outcome(lambda: chat.create(**asking("closing"), stream=True)),
        "long": outcome(lambda: chat.create(**asking("long"))),
        "missing": outcome(lambda: chat.create(model="gpt-4o", messages=HELLO)),
        "unsupported": outcome(lambda: chat.create(**asking("hello"), response_format={"type": "json_object"})),
        "midway": outcome(lambda: stream_text(chat.create(**asking("midway"), stream=True))),
        "together": asyncio.run(concurrently(url)),
    }
    json.dump(answers, sys.stdout)


main()
