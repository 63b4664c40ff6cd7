"""CoLoGen for ComfyUI: where the host enters. The nodes are in nodes/, the method in prw/."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    from .nodes import CoLoGenExtension

    return CoLoGenExtension()
