"""What a person waits for beside the sampling, in a warm ComfyUI server with the toy set: nodes, and the first step.

Of the nodes, those that work on pixels alone; the others' time is their VAE's.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..comfyui.find_host import enter_host, needed_host
from ..comfyui.server import Server, base_directory, node, sources, toy_prompt

SIDE = 1024
MAPS = ("canny", "lineart", "hed")


def graph(repeats: int) -> dict:
    """`source` is what the first step takes longer than with keys and values that were kept from the run before."""
    with running() as server:
        first = {
            kind: statistics.median(warm(repeats, first_step, server, kind)) for kind in ("plain", "woven", "kept")
        }
        nodes = warm(repeats, own_times, server)
    source = first["woven"] - first["kept"]
    own = {name: 1000 * statistics.median(times[name] for times in nodes) for name in nodes[0]}
    return {
        "first_step": first,
        "source": source,
        "ratio_to_plain_and_source": first["woven"] / (first["plain"] + source),
        "node_ms": own,
    }


def warm(repeats: int, measure: Callable, *given) -> list:
    """The first time does not count."""
    return [measure(*given, i) for i in range(repeats + 1)][1:]


@contextmanager
def running() -> Iterator[Server]:
    host = needed_host()
    enter_host(host)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(host, base_directory(Path(folder) / "base", sources()))
        try:
            yield server
        finally:
            server.stop()


def first_step(server: Server, kind: str, seed: int) -> float:
    """Seconds from the queue to the end of the first step; each seed is sampled anew."""
    prompt = toy_prompt("edit", "make the circle at the top left blue", "edit", seed)
    if kind == "plain":
        prompt["sample"]["inputs"] |= {"positive": ["text", 0], "negative": ["empty", 0]}
    for name in ("source", "without"):
        prompt[name]["inputs"]["keep_between_runs"] = kind == "kept"
    return next(when for event, _, when in heard(server, prompt) if event == "progress")


def own_times(server: Server, i: int) -> dict[str, float]:
    events = heard(server, on_pixels(i))
    begun = [(data["node"], when) for kind, data, when in events if kind == "executing"]
    took = {name: after - when for (name, when), (_, after) in zip(begun, begun[1:])}
    return {name: took[name] for name in ("paste", "read", *MAPS)}


def on_pixels(colour: int) -> dict:
    """Nodes on one large picture of a colour that no run had before."""
    maps = dict(model="auto", low_threshold=0.1, high_threshold=0.2)
    picture, mask = ["picture", 0], ["mask", 0]
    return {
        "picture": node("EmptyImage", width=SIDE, height=SIDE, batch_size=1, color=colour),
        "mask": node("SolidMask", value=1.0, width=SIDE, height=SIDE),
        "paste": node("CoLoGenPasteBack", drawn=picture, original=picture, mask=mask, grow=6, feather=4),
        "end": node("PreviewAny", source=["paste", 0]),
        "read": node("CoLoGenReadGrounding", drawn=picture, original=picture, form="box", colour="red"),
        **{kind: node("CoLoGenControlMap", image=picture, kind=kind, **maps) for kind in MAPS},
    }


def heard(server: Server, prompt: dict) -> list[tuple[str, dict, float]]:
    """What the server says while it runs a prompt: kind, data, seconds since it was queued."""
    return asyncio.run(_heard(server, prompt))


async def _heard(server: Server, prompt: dict) -> list[tuple[str, dict, float]]:
    import aiohttp  # the host's

    address, said = f"http://127.0.0.1:{server.port}", []
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{address}/ws?clientId=bench") as socket:
        start = time.perf_counter()
        async with session.post(f"{address}/prompt", json={"prompt": prompt, "client_id": "bench"}) as answer:
            if answer.status != 200:
                raise RuntimeError(await answer.text())
        async for message in socket:
            if message.type == aiohttp.WSMsgType.TEXT:
                event = json.loads(message.data)
                said.append((event["type"], event["data"], time.perf_counter() - start))
                if event["type"] == "execution_error":
                    raise RuntimeError(event["data"]["exception_message"])
                if event["type"] == "executing" and event["data"]["node"] is None:
                    break
    return said
