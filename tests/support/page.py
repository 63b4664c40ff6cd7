"""The host's page in a browser: opened, spoken to, and what it complained of."""

import json
import urllib.request

from pack import SCREENSHOTS

HARMLESS = ("Failed to load resource", "favicon", "user.css", "WebSocket")
"""What the page says in a fresh ComfyUI without a network or any pack."""


def visited(browser, server):
    page = browser.new_page(viewport={"width": 1920, "height": 1200})
    page.set_default_timeout(120_000)  # a machine may be busy; what hangs is found all the same
    page.said = []
    page.on("console", lambda message: page.said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto(f"http://127.0.0.1:{server.port}")
    page.wait_for_function("window.app?.graph && window.app.extensionManager")
    page.wait_for_timeout(2500)
    return page


def open_page(browser, server, **settings):
    """The page without what greets newcomers; screenshots have their folder."""
    post(server, "/api/settings", {"Comfy.TutorialCompleted": True, "Comfy.Minimap.Visible": False, **settings})
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    return visited(browser, server)


def open_template(page, folder, name: str) -> dict:
    """Puts a saved graph on the canvas, and gives it."""
    page.said.clear()
    saved = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    page.evaluate("([saved, name]) => app.loadGraphData(saved, true, true, name)", [saved, name])
    return saved


def post(server, path: str, data: dict) -> None:
    body = json.dumps(data).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}", body, {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=300).close()


def problems(page) -> list[str]:
    return [line for line in page.said if not any(word in line for word in HARMLESS)]


def wait_for_run(page, server, before: set[str]) -> dict:
    """The history's entry of the one run that was queued since."""
    for _ in range(1200):
        done = [entry for number, entry in server.get("/history").items() if number not in before]
        if done and done[0]["status"]["completed"]:
            break
        page.wait_for_timeout(250)
    (entry,) = done
    return entry
