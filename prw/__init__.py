"""Progressive Representation Weaving (PRW): the method of CoLoGen, in pure torch.

A source image runs through FLUX's own weights as a token stream of its own. In every block a router
picks one low-rank expert that changes the source's keys and values; text and noise read them.

    w          = h W_r + e * softplus(h W_n)                    eq. 2   router.py: route
    S          = top-1 of softmax(w)                            eq. 3   router.py: route
    K^, V^     = KV(h) + sum over S of softmax(w)_k E_k(h)      eq. 4   weaving.py: add_residuals; experts.py: Weave.residual
    K, V       = [K_x; K_y; K^], [V_x; V_y; V^]                 eq. 5-6 weaving.py: append_sources
    Out_{x,y}  = Attention([Q_x; Q_y], K, V)                    eq. 7   FLUX's own attention

Reading order: tasks, router, experts, weaving, source, select_experts, source_pass, kv_cache, appended_kv, attachment; then
bank/ (the file of experts and routers) and the two hosts, embedded_host with flux/ (ours) and comfyui/patch (ComfyUI's).
Beside the paper: personalization/ and coredi/. The map of all rooms: docs/architecture.md.
"""
