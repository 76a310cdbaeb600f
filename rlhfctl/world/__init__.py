"""The embedded world: questions, responses, a gold reward, annotators and a small model."""
