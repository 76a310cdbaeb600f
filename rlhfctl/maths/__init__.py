"""Each formula once, as a pure function of tensors.

Shape legend: B episodes, T tokens of the longest sequence, R tokens of the longest response,
N response tokens in all, H hidden size, V vocabulary. A mask is boolean; True: the token counts.
"""
