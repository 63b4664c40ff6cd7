"""Pictures sampled along with their features on our own FLUX: what CoLoGen Features does in the host's samplers, for
experiments.

    v = v_off + weight (v_on - v_off)        without and with the tokens (ReDi); 1 needs no pass without them
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...prw.bank.bank import Bank
from ...prw.coredi.feature_stream import FeatureStream, SourceExperts, record_last_tokens
from ...prw.coredi.features import FEATURE_STATES, Features, embed_features, make_pooling_matrix
from ...prw.flux.inputs import EncodedPrompt, FluxInputs
from ...prw.flux.sampling import sample_euler
from ...prw.positions import token_grid
from ...prw.source import Routing
from ...prw.source_pass import Host
from ..forward import ReadSource, predict_velocity
from ..sampling import SamplingSettings, guide, make_readers


@dataclass(frozen=True)
class FeatureSampler:
    """Samples as sampling.sample_latents does, with the features of the task beside the picture."""

    features: Sequence[Features]
    """One for each task; the routing's task picks one of them."""
    weight: float = 1.0
    seed: int = 0
    """Seed of the noise that the features begin with."""

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
        pool = make_pooling_matrix(*token_grid(noise, host.flux.patch_size)).to(noise.device)
        shape, generator = (len(noise), len(pool), features.info.size), torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(shape, generator=generator).to(noise.device)
        state = FEATURE_STATES[features.info.way](features.tensors, drawn)
        negative = settings.negative
        readers = make_readers(host, bank, routing, source, settings)

        def predict(read: ReadSource, x: Tensor, t: Tensor, prompt: EncodedPrompt) -> Tensor:
            inputs = FluxInputs(x, t, *prompt, torch.full_like(t, settings.guidance))
            return predict_velocity(host, read(inputs), inputs).float()

        def predict_with_features(x: Tensor, t: Tensor) -> Tensor:
            z, stream = state.advance(float(t[0])), None
            inputs = FluxInputs(x, t, *prompt, torch.full_like(t, settings.guidance))
            context = readers[0](inputs)
            if z is not None:
                experts = SourceExperts(bank, routing, context.routes)
                stream = FeatureStream(host, experts, embed_features(features.tensors, z), inputs)
            with record_last_tokens(host.flux) as tokens:
                velocity = predict_velocity(host, context.with_patches([stream] if stream else []), inputs).float()
            state.update(None if stream is None else stream.last_tokens, tokens[0], pool)
            return velocity

        def predict_guided(x: Tensor, t: Tensor, progress: float) -> Tensor:
            velocity = predict_with_features(x, t)
            if self.weight != 1:
                without = predict(readers[0], x, t, prompt)
                velocity = guide(velocity, without, self.weight)
            if negative is not None:
                without = predict(readers[1], x, t, negative)
                velocity = guide(velocity, without, settings.cfg)
            return velocity

        return host.unscale_latent(sample_euler(predict_guided, noise, list(map(float, settings.times))))
