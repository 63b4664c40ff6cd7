"""Progressive Representation Weaving (PRW): the method of CoLoGen, in pure torch.

A source image runs through FLUX's own weights as a token stream of its own. In every block a router
picks one low-rank expert that bends the source's keys and values; text and noise read them.

    w          = h W_r + e * softplus(h W_n)                    eq. 2   router.py
    S          = top-1 of softmax(w)                            eq. 3   router.py
    K^, V^     = KV(h) + sum over S of softmax(w)_k E_k(h)      eq. 4   weaving.py: add_residuals; experts.py: residual
    K, V       = [K_x; K_y; K^], [V_x; V_y; V^]                 eq. 5-6 weaving.py: append_sources
    Out_{x,y}  = Attention([Q_x; Q_y], K, V)                    eq. 7   FLUX's own attention

Reading order: tasks, router, experts, weaving, source, pick, kv, appendix, attachment, bank, then the hosts: flux and
embedded (ours), conditioning and flux_patch (ComfyUI's; flux_patch alone imports the host). Beside the paper, sampling
for a subject: marked_words, watch, dual_branch, personal.
"""
