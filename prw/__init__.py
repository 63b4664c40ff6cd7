"""Progressive Representation Weaving (PRW): the method of CoLoGen, in pure torch.

A source image runs through FLUX's own weights as a token stream of its own. In every block a router
picks one low-rank expert that adds to the source's keys and values; text and noise read them.

    w          = h W_r + e * softplus(h W_n)                  eq. 2    router.py: route, add_noise
    S          = top-1 of softmax(w)                          eq. 3    router.py: route
    K^, V^     = KV(h) + sum over S of softmax(w)_k E_k(h)    eq. 4    weaving.py: add_residuals; experts.py: BlockExperts.residual
    K, V       = [K_x; K_y; K^], [V_x; V_y; V^]               eq. 5-6  weaving.py: append_sources
    Out_{x,y}  = Attention([Q_x; Q_y], K, V)                  eq. 7    FLUX's own (flux/math.py: attention)

To read beside the paper, from the formulas outwards:

    tasks, router, experts, weaving            the method itself, for one block and for all
    source, positions, fit_image               the given image, and where its tokens lie
    config, find_experts, select_experts       what a bank says of itself, and which of its experts serve a source and a block
    source_pass, kv_cache, appended_kv         a source's way to keys and values, which every sampler step reads
    source_group, stream_group, model_group    sources that see one another, and who reads them: the base, or a whole model (model_pass)
    attachment                                 all of it at work on one FLUX
    embedded_host, comfyui/patch               the two hosts: our own FLUX (flux/) and ComfyUI's

The curriculum and its losses (eq. 8 to 10) are in training/. Beside the paper: personalization/ and coredi/. The map of
all rooms: docs/architecture.md.
"""
