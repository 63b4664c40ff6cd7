"""Pictures sampled along with their features on our own FLUX: what CoLoGen Features does in the host's samplers, for
experiments.

    v = v_off + weight (v_on - v_off)        without and with the tokens (ReDi); 1 needs no pass without them
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...prw.attachment import Host
from ...prw.bank.bank import Bank
from ...prw.coredi.feature_stream import FeatureStream, last_tokens
from ...prw.coredi.features import WAYS, Features, begun, pooling
from ...prw.flux.inputs import EncodedPrompt, FluxInputs
from ...prw.flux.sampling import euler
from ...prw.positions import token_grid
from ...prw.source import Routing
from ..forward import SourceContext, predict_velocity, weave
from ..sampling import SamplingSettings


@dataclass(frozen=True)
class FeatureSampler:
    """Samples as sampling.sample_latents does, with the features of the task beside the picture."""

    features: Sequence[Features]
    """Of several tasks; the routing's task picks one."""
    weight: float = 1.0
    seed: int = 0
    """Of the noise that the features begin with."""

    @torch.no_grad()
    def __call__(
        self,
        host: Host,
        bank: Bank,
        routing: Routing,
        source: Tensor,
        noise: Tensor,
        prompt: EncodedPrompt,
        settings: SamplingSettings,
    ) -> Tensor:
        (features,) = (one.to(noise.device) for one in self.features if one.info.task == routing.task)
        start, pool = noise.new_zeros(len(noise)), pooling(*token_grid(noise, host.flux.patch_size)).to(noise.device)
        shape, generator = (len(noise), len(pool), features.info.size), torch.Generator().manual_seed(self.seed)
        state = WAYS[features.info.way](features.tensors, torch.randn(shape, generator=generator).to(noise.device))
        negative = settings.negative
        prompts = [prompt] if negative is None else [prompt, negative]
        contexts = [weave(host, bank, routing, source, FluxInputs(noise, start, *each)) for each in prompts]

        def predict(context: SourceContext, x: Tensor, t: Tensor, prompt: EncodedPrompt) -> Tensor:
            inputs = FluxInputs(x, t, *prompt, torch.full_like(t, settings.guidance))
            return predict_velocity(host, context, inputs).float()

        def predict_with_features(x: Tensor, t: Tensor) -> Tensor:
            z, stream = state.at(float(t[0])), None
            if z is not None:
                target = x, t, prompt.pooled, torch.full_like(t, settings.guidance)
                stream = FeatureStream(host, bank, routing, contexts[0].routes, begun(features.tensors, z), *target)
            with last_tokens(host.flux) as tokens:
                velocity = predict(contexts[0].with_patches([stream] if stream else []), x, t, prompt)
            state.hear(stream and stream.left, tokens[0], pool)
            return velocity

        def predict_guided(x: Tensor, t: Tensor, progress: float) -> Tensor:
            velocity = predict_with_features(x, t)
            if self.weight != 1:
                without = predict(contexts[0], x, t, prompt)
                velocity = without + self.weight * (velocity - without)
            if negative is not None:
                without = predict(contexts[1], x, t, negative)
                velocity = without + settings.cfg * (velocity - without)
            return velocity

        return host.latent_out(euler(predict_guided, noise, list(map(float, settings.times))))
