"""What a person waits for beside the sampling, in a warm ComfyUI server with the toy set: nodes, and the first step.

A node's own time is without its VAE's: the stock VAE Encode in the same graph is taken off once for each picture that the
node encodes.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .host import enter_host, find_host
from .server import Server, base_directory, node, sources, toy_prompt

SIDE = 1024
ENCODES = {"edit": 1, "inpaint": 2, "control": 1, "subject": 1, "ground": 1}
"""Pictures that a task's node encodes: inpainting starts from one, too."""


def graph(repeats: int) -> dict:
    with running() as server:
        plain, woven = ([first_step(server, kind, i) for i in range(repeats + 1)][1:] for kind in (False, True))
        nodes = [own_times(server, i) for i in range(repeats + 1)][1:]
    begun, step = (statistics.median(times) for times in zip(*plain))
    with_source = statistics.median(first for first, _ in woven)
    own = {name: statistics.median(times[name] for times in nodes) for name in nodes[0]}
    return {
        "plain_first_step": begun,
        "woven_first_step": with_source,
        "plain_step": step,
        "ratio_to_plain_and_a_pass": with_source / (begun + step),
        "node_ms": {name: 1000 * seconds for name, seconds in own.items()},
        "slowest_node_ms": 1000 * max(own.values()),
    }


@contextmanager
def running() -> Iterator[Server]:
    host = find_host()
    if host is None:
        raise FileNotFoundError("No ComfyUI was found: set COMFYUI_PATH to its folder.")
    enter_host(host)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(host, base_directory(Path(folder) / "base", sources()))
        try:
            yield server
        finally:
            server.stop()


def first_step(server: Server, woven: bool, seed: int) -> tuple[float, float]:
    """Seconds from the queue to the end of the first step, and of a step after it; each seed is sampled anew."""
    prompt = toy_prompt("edit", "make the circle at the top left blue", "edit", seed)
    if not woven:
        prompt["sample"]["inputs"] |= {"positive": ["text", 0], "negative": ["empty", 0]}
    told = [(data["value"], when) for kind, data, when in heard(server, prompt) if kind == "progress"]
    (one, first), *_, (last, end) = told  # the server leaves some of them out
    return first, (end - first) / (last - one)


def own_times(server: Server, i: int) -> dict[str, float]:
    events = heard(server, tasks(i))
    begun = [(data["node"], when) for kind, data, when in events if kind == "executing"]
    took = {name: after - when for (name, when), (_, after) in zip(begun, begun[1:])}
    return {
        name: took[name] - ENCODES.get(name, 0) * took["encode"]
        for name in (*ENCODES, "paste", "read", "canny", "lineart", "hed")
    }


def tasks(colour: int) -> dict:
    """Every task's node on one large picture of a colour that no run had before."""
    flux = toy_prompt("edit", "", "edit")["flux"]
    given = dict(positive=["text", 0], vae=["flux", 2])
    maps = dict(model="auto", low_threshold=0.1, high_threshold=0.2)
    prompt = {
        "flux": flux,
        "text": node("CLIPTextEncode", clip=["flux", 1], text=""),
        "picture": node("EmptyImage", width=SIDE, height=SIDE, batch_size=1, color=colour),
        "mask": node("SolidMask", value=1.0, width=SIDE, height=SIDE),
        "encode": node("VAEEncode", pixels=["picture", 0], vae=["flux", 2]),
        "edit": node("CoLoGenEdit", image=["picture", 0], **given),
        "inpaint": node("CoLoGenInpaint", image=["picture", 0], mask=["mask", 0], grow=0, keep_rest=True, **given),
        "control": node("CoLoGenControl", map=["picture", 0], kind="canny", **given),
        "subject": node("CoLoGenSubject", image=["picture", 0], **given),
        "ground": node(
            "CoLoGenGround", clip=["flux", 1], vae=["flux", 2], image=["picture", 0], phrase="it", form="box",
            colour="red",
        ),
        "paste": node(
            "CoLoGenPasteBack", drawn=["picture", 0], original=["picture", 0], mask=["mask", 0], grow=6, feather=4
        ),
        "read": node("CoLoGenReadGrounding", drawn=["picture", 0], original=["picture", 0], form="box", colour="red"),
        **{kind: node("CoLoGenControlMap", image=["picture", 0], kind=kind, **maps) for kind in ("canny", "lineart", "hed")},
    }  # fmt: skip
    ends = ("encode", *ENCODES, "paste", "read")
    return prompt | {f"end_{name}": node("PreviewAny", source=[name, 0]) for name in ends}


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
