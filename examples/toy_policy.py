"""PPO on a toy policy: five tokens, one per response, and a reward per token.

`python examples/toy_policy.py` prints the expected reward before and after training.
"""

import torch

from rlhfctl.maths import TokenLogProbs, inverse_cdf, uniform_numbers
from rlhfctl.ppo import PPOSettings, PPOTrainer
from rlhfctl.run.monitor import NullMonitor

REFERENCE = torch.tensor([0.4, 0.25, 0.2, 0.1, 0.05]).log()
REWARDS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0])


class ToyRoles:
    pad_token_id = 9
    device = torch.device("cpu")
    computes_in_float16 = False

    def __init__(self):
        self.logits = torch.nn.Parameter(REFERENCE.clone())
        self.value = torch.nn.Parameter(torch.zeros(1))

    def generate(self, prompts, seeds):
        logits = self.logits.detach().expand(len(prompts), -1)
        return [[int(token)] for token in inverse_cdf(logits, uniform_numbers(seeds, 1)[:, 0], 1.0)]

    def ended(self, response):
        return True

    def log_probs(self, role, batch, *, training=False, temperature=None):
        with torch.set_grad_enabled(training):
            table = (self.logits if role == "policy" else REFERENCE).log_softmax(0)
            entropy = -(table.exp() * table).sum().expand(batch.mask.shape)
            return TokenLogProbs(table[batch.responses], entropy.detach())

    def values(self, batch, *, training=False):
        with torch.set_grad_enabled(training):
            return self.value.expand(len(batch), 1)

    def scores(self, batch):
        return REWARDS[batch.responses[:, 0]]

    def trainable(self, role):
        return {"logits": self.logits} if role == "policy" else {"value": self.value}


roles = ToyRoles()
settings = PPOSettings(
    episodes=12_800, warmup_rollouts=0, learning_rate=0.03, value_learning_rate=0.03
)
print(f"expected reward before: {float(REFERENCE.softmax(0) @ REWARDS):.2f}")
PPOTrainer(roles, prompts=[[1]], settings=settings, monitor=NullMonitor()).train()
print(f"expected reward after: {float(roles.logits.detach().softmax(0) @ REWARDS):.2f}")
