"""What the words of a report mean, in one sentence each."""

ATTACKS = {
    "CA+": "Changes a candidate image so that it rises in the ranking of a query it has nothing to do with.",
    "CA-": "Changes a candidate image so that it sinks in the ranking of a query it is close to.",
    "QA+": "Changes the query so that a randomly chosen gallery item rises in its ranking.",
    "QA-": "Changes the query so that one of its nearest gallery items sinks in its ranking.",
    "TMA": "Changes the query so that its embedding imitates that of another image.",
    "ES": "Changes the query so that its embedding moves as far as possible from where it was.",
    "LTM": "Changes the query so that items of its own class move away and a far item of another class comes close.",
    "GTM": "Changes the query so that its nearest neighbour belongs to a wrong class.",
    "GTM-corrected": "GTM aimed at the nearest item of another class, which the published version often misses.",
    "GTT": "Changes the query so that its former best match leaves the top four.",
    "SPQA+": "As QA+, while the query's closest neighbours stay on top so that nobody notices.",
    "SPQA-": "As QA−, while the query's closest neighbours stay on top so that nobody notices.",
}
COMPONENTS = {
    "CA+": "twice the rank (in percent) at which the candidate ends; 100 is the random rank it started from",
    "CA-": "100 minus the rank (in percent) at which the candidate ends",
    "QA+": "twice the rank (in percent) at which the chosen item ends; 100 is the random rank it started from",
    "QA-": "100 minus the rank (in percent) at which the near item ends",
    "TMA": "one minus the cosine similarity to the imitated image; 0 is a perfect imitation",
    "ES:D": "how little the embedding moved; 100 is not at all, which a collapsed model also reaches",
    "ES:R": "recall@1 that survives the shift; cannot exceed clean recall@1",
    "LTM": "recall@1 that survives; cannot exceed clean recall@1",
    "GTM": "recall@1 that survives; cannot exceed clean recall@1",
    "GTT": "share of queries whose former best match stays in the top four",
}
CLEAN = {
    "recall@1": "Recall@1",
    "recall@2": "Recall@2",
    "map": "mAP",
    "map_at_r": "mAP@R",
    "map_at_10": "mAP@10",
    "r_precision": "R-precision",
    "nmi": "NMI",
}
SCORES = {
    "prank": "mean rank",
    "preserved_prank": "rank of kept neighbours",
    "cosine": "cosine similarity",
    "shift": "embedding shift",
    "recall@1": "recall@1",
    "retain@4": "kept in top 4",
}
CHECKS = {
    "eps_zero": "With a budget of zero, the attack must give back exactly the clean scores.",
    "budget": "No attacked image may differ from its original by more than the stated budget.",
    "quantised": "The attack should survive rounding of its pixels to 8 bits, as in a saved image.",
    "zero_gradient": "Where the gradient is zero or not a number at the start, a gradient attack is blind there.",
    "convergence": "More steps or restarts should not change the score; if they do, the attack had not finished.",
    "unconverged": "Many queries reached their best score only at the last step: a longer attack would be stronger.",
    "best_iterate": "How often the last step of the attack was not its strongest.",
    "random_noise": "Random noise of the same size must be weaker than the attack.",
    "unbounded": "With an unlimited budget every score must fall to its floor; if not, the attack is broken.",
    "gradient_masking": "An attack without gradients must not beat one with them; if it does, gradients are hidden.",
    "black_box": "An attack without gradients must not beat one with them; if it does, gradients are hidden.",
    "transfer": "Images made against another model must not beat the direct attack.",
    "nondeterministic": "The same image must give the same embedding twice; a random model needs an averaging attack.",
    "optimisation_in_forward": "The model optimises while it embeds, so plain gradients do not describe it.",
    "broken_graph": "The embedding is cut off from its input, so no gradient can reach the pixels.",
    "saturation": "Distances stick to their smallest or largest value, which hides gradients and creates ties.",
    "collapse": "All images are embedded in nearly the same place. Such a model looks robust because nothing can move.",
    "near_chance": "Clean recall is close to guessing; a model that knows nothing cannot be called robust.",
    "rescore": "Scoring the saved attacked images again must give the same numbers.",
    "eval_mode": "The model must be in evaluation mode, with weights unchanged by the attack.",
    "pixels": "Images must lie in [0, 1] before they reach the model, or the budget means something else.",
}
"""Self-checks and flags of the library's audits, by name."""


def meaning(name: str) -> str:
    """What a self-check or flag is about; empty for an unknown name, whose own message then has to do."""
    return CHECKS.get(name.lower().replace("-", "_").replace(" ", "_"), "")


def attack_meaning(name: str) -> str:
    """What an attack does; attack strings such as `CA:pm=+:W=1` are understood by their first parts."""
    if name in ATTACKS:
        return ATTACKS[name]
    first, *rest = name.split(":")
    sign = next((part[-1] for part in rest if part in ("pm=+", "pm=-")), "")
    return ATTACKS.get(first + sign, "")
